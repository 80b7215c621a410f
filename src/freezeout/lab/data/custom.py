"""Custom data: what the user's function may return, and how it is loaded."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch

from freezeout.errors import RunError
from freezeout.lab.data.dataset import Dataset
from freezeout.lab.importing import Factory, error_line, kind_of
from freezeout.text import one_line

__all__ = ["DATA", "load_custom"]

DATA = Factory(option="--data", makes="the data", kind=Dataset, noun="a data set")

_IMAGES = ("train_images", "test_images")
_PARTS = ("train_images", "train_labels", "test_images", "test_labels")

_WHOLE = (torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64)


def load_custom(target: str) -> Dataset:
    """Call the user's function and make a data set of what it returns.

    Meanwhile torch's generator on the CPU is seeded, so that data drawn from it are the same in
    every run and after a resume.

    Args:
        target: ``module:function``; dots after the colon reach into classes and objects.

    Returns:
        The data set, on the CPU.

    Raises:
        RunError: If anything in this goes wrong; the message is one line and says what to do.
    """
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        given: Any = DATA.call(target)
    if not isinstance(given, Dataset) and not (isinstance(given, tuple) and len(given) == 4):
        raise RunError(
            f"{target} must return a freezeout.lab.data.Dataset or a tuple "
            f"({', '.join(_PARTS)}), got {kind_of(given)}. Return one of these."
        )
    try:
        dataset = given if isinstance(given, Dataset) else _from_parts(target, given)
        shapes = {name: tuple(getattr(dataset, name).shape) for name in _IMAGES}
        moved = replace(dataset, **{name: getattr(dataset, name).cpu() for name in _PARTS})
    except (TypeError, ValueError) as error:
        raise RunError(
            f"{target} returns what cannot be used as data: {one_line(error)}"
        ) from error
    except Exception as error:  # an object of the user's may raise anything
        raise RunError(
            f"{target} returns what cannot be used as data: {error_line(error)}. Return tensors or "
            "NumPy arrays."
        ) from error
    for name, shape in shapes.items():
        if _is_channels_last(shape):
            raise RunError(
                f"{name} of {target} must have a shape (N, C, H, W), got {shape}, which looks like "
                "(N, H, W, C). Permute it: images.permute(0, 3, 1, 2)."
            )
    return moved


def _from_parts(target: str, parts: tuple[Any, ...]) -> Dataset:
    values = {name: _tensor(name, part) for name, part in zip(_PARTS, parts, strict=True)}
    for name in ("train_labels", "test_labels"):
        if values[name].ndim != 1:
            raise ValueError(
                f"{name} must have the shape (N,), got {tuple(values[name].shape)}. Give one label "
                "for every image."
            )
        if values[name].dtype in _WHOLE:
            values[name] = values[name].long()
    highest = _highest(values["train_labels"], values["test_labels"])
    count = len(values["train_labels"]) + len(values["test_labels"])
    if highest >= count:
        raise ValueError(
            f"labels go up to {highest}, but there are only {count} images. Number the classes "
            "from 0."
        )
    return Dataset(target, **values, classes=tuple(str(i) for i in range(highest + 1)))


def _tensor(name: str, value: Any) -> torch.Tensor:
    if isinstance(value, torch.Tensor):
        return value.detach()
    if not hasattr(value, "__array_interface__"):
        raise TypeError(
            f"{name} must be a tensor or a NumPy array, got {kind_of(value)}. Convert it, for "
            "example with numpy.asarray."
        )
    import numpy as np

    array = np.asarray(value)
    if name.endswith("labels") and array.dtype.kind in "iu":
        array = array.astype(np.int64)
    if array.dtype.kind not in "iufb":
        raise TypeError(f"{name} must hold numbers, got an array of {array.dtype}. Convert it.")
    # A copy: torch wants memory that may be written and runs forward.
    return torch.from_numpy(np.array(array, dtype=array.dtype.newbyteorder("="), order="C"))


def _highest(*labels: torch.Tensor) -> int:
    """Return the highest label; 0 where there is none, which the data set then refuses."""
    whole = [part for part in labels if part.dtype == torch.int64 and part.numel()]
    return max([0, *(int(part.max()) for part in whole)])


def _is_channels_last(shape: tuple[int, ...]) -> bool:
    """Tell whether channels seem to come last: 3 or 4 of them, or 1 of a square image."""
    _, second, third, last = shape
    return min(second, third) > 4 and (last in (3, 4) or (last == 1 and second == third))
