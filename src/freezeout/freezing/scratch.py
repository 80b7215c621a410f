"""Run a part of a model once more without a trace: state, modes and random numbers are put back."""

from __future__ import annotations

import copy
import random
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from freezeout.layers import modules_in, parameters_in
from freezeout.tensors import tensors_in

__all__ = ["cloned", "same_bits", "without_trace"]


@contextmanager
def without_trace(module: nn.Module, inputs: Any) -> Iterator[None]:
    """Put back what a forward pass changes: buffers, plain attributes, modes, random numbers.

    Parameters are not put back: a forward pass does not change them.

    Args:
        module: What is run.
        inputs: What it is run on; it says which devices hold random numbers.
    """
    used = {t.device for t in (*tensors_in(inputs), *parameters_in(module))}
    accelerated = sorted({device.index or 0 for device in used if device.type == "cuda"})
    modules = list(modules_in(module))
    places = [(own, dict(own)) for m in modules for own in (m._buffers, m.__dict__)]
    buffers = [(b, b.detach().clone()) for b in module.buffers()]
    numbers = random.getstate()
    try:
        with torch.random.fork_rng(devices=accelerated):
            yield
    finally:
        random.setstate(numbers)
        for place, before in places:
            _put_back(place, before)
        with torch.no_grad():
            for buffer, value in buffers:
                if not same_bits(buffer, value):
                    buffer.copy_(value)


def _put_back(place: dict[str, Any], before: dict[str, Any]) -> None:
    for key in place.keys() - before.keys():
        del place[key]
    for key, value in before.items():
        if key not in place or place[key] is not value:
            place[key] = value


def same_bits(one: torch.Tensor, other: torch.Tensor) -> bool:
    """Return whether two tensors have the same bits, where not-a-number equals itself."""
    if one.dtype != other.dtype or one.shape != other.shape:
        return False
    both = (t.detach().contiguous().view(torch.uint8) if t.numel() else t for t in (one, other))
    return torch.equal(*both) if one.ndim else torch.equal(one.nan_to_num(), other.nan_to_num())


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
