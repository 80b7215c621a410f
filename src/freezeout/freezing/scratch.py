"""Run a part of a model once more without a trace: state, modes and random numbers are put back."""

from __future__ import annotations

import copy
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from freezeout.layers import put_back, same_bits

__all__ = ["cloned", "same_bits", "without_trace"]


@contextmanager
def without_trace(module: nn.Module, inputs: Any) -> Iterator[None]:
    """Put back what a forward pass changes, values of parameters too: some are set by hand in it.

    Args:
        module: What is run.
        inputs: What it is run on; it says which devices hold random numbers.
    """
    with put_back(module, inputs, parameters=True):
        yield


def cloned(value: Any) -> Any:
    """Return the same value with other tensors, so that changes in place do not show.

    Args:
        value: Arguments of a module. Modules among them stay the same.

    Raises:
        Exception: If an object among them cannot be copied.
    """
    if isinstance(value, torch.Tensor):
        return value.detach().clone().requires_grad_(value.requires_grad)
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)(*map(cloned, value))
    if type(value) in (tuple, list):
        return type(value)(map(cloned, value))
    if type(value) in (dict, OrderedDict):
        return type(value)((key, cloned(item)) for key, item in value.items())
    return value if isinstance(value, nn.Module) else copy.deepcopy(value)
