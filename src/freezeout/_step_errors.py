"""What can go wrong in a training step, in words that say what to do."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from freezeout.errors import CostError
from freezeout.tensors import is_out_of_memory

__all__ = ["checked_loss", "explained", "line_of"]


def checked_loss(loss: Any) -> torch.Tensor:
    """The loss, if it is one number that can be differentiated."""
    if not isinstance(loss, torch.Tensor) or loss.numel() != 1 or not loss.requires_grad:
        what = (
            f"a tensor of shape {tuple(loss.shape)}, requires_grad={loss.requires_grad}"
            if isinstance(loss, torch.Tensor)
            else repr(loss)
        )
        raise CostError(
            f"the loss must be one number that depends on parameters that learn, got {what}. "
            "Pass loss=lambda output: ..., which turns the model's output into it. If it does so "
            "until layers freeze, the layer that runs last is not the last of the list: pass "
            "layers=split_layers(model, example=...)."
        )
    return loss


@contextmanager
def explained(model: nn.Module, batch: int | None) -> Iterator[None]:
    """Turns memory that ran out into advice."""
    try:
        yield
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        size = "the batch" if batch is None else f"a batch of {batch}"
        hint = "a smaller batch" if batch is None or batch < 2 else f"a batch of {batch // 2}"
        raise CostError(
            f"memory ran out in a training step of {type(model).__name__} on {size}: "
            f"{line_of(error)}. Training would run out as well: try {hint}."
        ) from error


def line_of(error: BaseException) -> str:
    """The first line of its message."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
