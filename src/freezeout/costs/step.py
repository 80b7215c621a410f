"""One training step on the example, and what can go wrong in it, in words that help."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from freezeout.costs.timeline import Where
from freezeout.errors import CostError, FreezeOutError
from freezeout.layers import Layers
from freezeout.tensors import call_arguments, is_out_of_memory, tensors_in
from freezeout.text import first_line

__all__ = ["TrainingStep", "explained"]


@contextmanager
def explained(model: nn.Module, batch: int | None) -> Iterator[None]:
    """Turn memory that ran out into advice."""
    try:
        yield
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        size = "the batch" if batch is None else f"a batch of {batch}"
        hint = "a smaller batch" if batch is None or batch < 2 else f"a batch of {batch // 2}"
        raise CostError(
            f"memory ran out in a training step of {type(model).__name__} on {size}: "
            f"{first_line(error)}. Training would run out as well: try {hint}."
        ) from error


class TrainingStep:
    """Run a training step on the example, phase by phase."""

    def __init__(
        self,
        model: nn.Module,
        layers: Layers,
        example: Any,
        loss: Callable[[Any], torch.Tensor] | None,
        optimizer: Optimizer,
        autocast: torch.dtype | None,
    ) -> None:
        self._model = model
        self._last = len(layers) - 1
        self._args, self._kwargs = call_arguments(example)
        self._loss = loss or _loss_in
        self._optimizer = optimizer
        self._autocast = autocast
        first = next(model.parameters())
        self.device = first.device
        self.precision = str(autocast or first.dtype).removeprefix("torch.")
        if not layers.model.training:
            model.train()

    def __call__(self, stamp: Callable[[Where], None]) -> None:
        """Run the step; `stamp` hears when each phase begins, and of the end."""
        stamp(("forward", 0))
        with self._precision():
            output = self._forward()
            stamp(("loss", 0))
            loss = _checked_loss(self._loss_of(output))
        stamp(("backward", self._last))
        del output
        loss.backward()
        del loss
        stamp(("optimizer", 0))
        self._update()
        stamp(("clear", 0))
        self._optimizer.zero_grad(set_to_none=True)
        stamp(("end", 0))

    def _forward(self) -> Any:
        try:
            return self._model(*self._args, **self._kwargs)
        except FreezeOutError:  # it says by itself what to do
            raise
        except Exception as error:
            if is_out_of_memory(error):
                raise
            raise CostError(
                f"{type(self._model).__name__} rejects the batch: {first_line(error)} "
                f"({type(error).__name__}). Pass what its forward takes in training: one tensor, "
                "a tuple of positional or a dict of keyword arguments, on the model's device. A "
                "target belongs into loss=lambda output: ..."
            ) from error

    def _loss_of(self, output: Any) -> Any:
        try:
            return self._loss(output)
        except (RuntimeError, ValueError, TypeError, IndexError) as error:
            if is_out_of_memory(error):
                raise
            raise CostError(
                f"the loss fails on the model's output: {first_line(error)} "
                f"({type(error).__name__}). It gets what the model returns for the example; its "
                "target must belong to that batch."
            ) from error

    def _update(self) -> None:
        try:
            self._optimizer.step()
        except (RuntimeError, TypeError, ValueError, NotImplementedError) as error:
            if is_out_of_memory(error):
                raise
            raise CostError(
                f"{type(self._optimizer).__name__} cannot take a step: {first_line(error)} "
                f"({type(error).__name__}). Pass the optimizer that trains this model."
            ) from error

    def _precision(self) -> AbstractContextManager[Any]:
        if self._autocast is None:
            return nullcontext()
        return torch.autocast(self.device.type, dtype=self._autocast)


def _loss_in(output: Any) -> torch.Tensor:
    """Return the loss in an output, or a stand-in that reaches all of it."""
    loss = output.get("loss") if hasattr(output, "get") else getattr(output, "loss", None)
    if isinstance(loss, torch.Tensor):
        return loss
    tensors = list(tensors_in(output))
    if not tensors:
        raise CostError(
            f"the model's output is {type(output).__name__}, in which no tensor is found. "
            "Pass loss=lambda output: ..., which turns it into a number."
        )
    parts = [t.abs() if t.is_complex() else t for t in tensors if t.requires_grad]
    parts = [part.float().mean() for part in parts]
    return torch.stack(parts).sum() if parts else tensors[0]


def _checked_loss(loss: Any) -> torch.Tensor:
    """Return the loss, if it is one number that can be differentiated."""
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
