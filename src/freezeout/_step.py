"""One training step on the example: forward, loss, backward, optimizer."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from freezeout._step_errors import checked_loss, line_of
from freezeout._timeline import Where
from freezeout.errors import CostError, FreezeOutError
from freezeout.layers import Layers
from freezeout.tensors import call_arguments, is_out_of_memory, tensors_in

__all__ = ["TrainingStep"]


class TrainingStep:
    """One training step on the example, with a stamp at the end of every phase."""

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
        self._loss = loss or _own_loss
        self._optimizer = optimizer
        self._autocast = autocast
        first = next(model.parameters())
        self.device = first.device
        self.precision = str(autocast or first.dtype).removeprefix("torch.")
        if not layers.model.training:
            model.train()

    def __call__(self, stamp: Callable[[Where], None]) -> None:
        stamp(("forward", 0))
        with self._precision():
            output = self._forward()
            stamp(("loss", 0))
            loss = checked_loss(self._loss_of(output))
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
                f"{type(self._model).__name__} rejects the batch: {line_of(error)} "
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
                f"the loss fails on the model's output: {line_of(error)} "
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
                f"{type(self._optimizer).__name__} cannot take a step: {line_of(error)} "
                f"({type(error).__name__}). Pass the optimizer that trains this model."
            ) from error

    def _precision(self) -> AbstractContextManager[Any]:
        if self._autocast is None:
            return nullcontext()
        return torch.autocast(self.device.type, dtype=self._autocast)


def _own_loss(output: Any) -> torch.Tensor:
    """The output's own loss, or a stand-in that reaches all of it."""
    own = output.get("loss") if hasattr(output, "get") else getattr(output, "loss", None)
    if isinstance(own, torch.Tensor):
        return own
    tensors = list(tensors_in(output))
    if not tensors:
        raise CostError(
            f"the model's output is {type(output).__name__}, in which no tensor is found. "
            "Pass loss=lambda output: ..., which turns it into a number."
        )
    parts = [t.abs() if t.is_complex() else t for t in tensors if t.requires_grad]
    parts = [part.float().mean() for part in parts]
    return torch.stack(parts).sum() if parts else tensors[0]
