"""Run a model without leaving a mark on it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn

from freezeout.layers.members import modules_in
from freezeout.layers.restoring import put_back

__all__ = ["undisturbed"]


@contextmanager
def undisturbed(model: nn.Module, inputs: Any = ()) -> Iterator[None]:
    """Run in evaluation mode, then put back modes, buffers, attributes and random state."""
    with put_back(model, inputs):
        for module in modules_in(model):
            module.training = False
        yield
