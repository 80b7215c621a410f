"""Put a model, its gradients and the random state back to what they were, bit for bit."""

from __future__ import annotations

import random
import sys
import tempfile
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import torch
from torch import nn

from freezeout.errors import CostError

__all__ = ["preserved"]

_CONTAINERS = (dict, OrderedDict, list, set)
"""Attributes of these types come back with what was in them; others as the same object."""


@contextmanager
def preserved(models: Sequence[nn.Module], others: Iterable[torch.Tensor] = ()) -> Iterator[None]:
    """Put models back on leaving: weights, buffers, modes, flags, gradients, hooks.

    Other tensors come back too, and the random state of torch, of Python and, where it is loaded,
    of NumPy. Gradients are set aside. Values are kept in host memory, or, where the tensors
    themselves are there, in files, so that no more memory is held than in training.

    Args:
        models: The model, and a loss with parameters of its own.
        others: Further tensors whose values, flags and gradients are kept.

    Raises:
        CostError: If a tensor's value could not be put back; all others have been.
    """
    modules = [_Attributes(module) for model in models for module in model.modules()]
    tensors = [t for model in models for t in (*model.parameters(), *model.buffers())]
    unique = list({id(t): t for t in (*tensors, *others)}.values())
    leaves = [(t, t.requires_grad, t.grad, dict(vars(t))) for t in unique if t.is_leaf]
    values = _Values(unique)
    with _random_state(unique):
        try:
            for tensor, *_ in leaves:
                tensor.grad = None
            yield
        finally:
            for module in modules:
                module.put_back()
            for tensor, flag, gradient, attributes in leaves:
                tensor.requires_grad = flag
                tensor.grad = gradient
                vars(tensor).clear()
                vars(tensor).update(attributes)
            values.put_back()


class _Attributes:
    """The attributes of a module, one level deep."""

    def __init__(self, module: nn.Module) -> None:
        self._module = module
        self._values = dict(module.__dict__)
        self._contents = {
            name: type(value)(value)
            for name, value in self._values.items()
            if type(value) in _CONTAINERS
        }

    def put_back(self) -> None:
        """Take away what was added, and give containers their content again."""
        attributes = self._module.__dict__
        attributes.clear()
        attributes.update(self._values)
        for name, content in self._contents.items():
            container = self._values[name]
            container.clear()
            container.extend(content) if isinstance(content, list) else container.update(content)


class _Values:
    """The values of tensors, kept where they take no memory of the device."""

    def __init__(self, tensors: Sequence[torch.Tensor]) -> None:
        self._tensors = tensors
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        with suppress(OSError):  # nowhere to write: then in memory
            self._folder = tempfile.TemporaryDirectory(prefix="freezeout-")
        self._kept: dict[int, torch.Tensor] = {}
        for i, tensor in enumerate(tensors):
            self._keep(i, tensor.detach())

    def _keep(self, i: int, tensor: torch.Tensor) -> None:
        if tensor.device.type != "cpu":
            self._kept[i] = tensor.cpu()
            return
        copy = tensor.clone()  # a view would drag the whole of its storage along
        if self._folder is None or not _is_plain(tensor):
            self._kept[i] = copy
            return
        path = self._path(self._folder, i)
        try:
            torch.save(copy, path)
        except (OSError, RuntimeError):  # no room: then in memory
            path.unlink(missing_ok=True)
            self._kept[i] = copy

    def put_back(self) -> None:
        """Write the values into the tensors again where they differ.

        Raises:
            CostError: If one could not be written; all others have been.
        """
        lost: list[str] = []
        with torch.no_grad():
            for i, tensor in enumerate(self._tensors):
                try:
                    value = self._kept.pop(i, None)
                    if value is None and self._folder is not None:
                        value = torch.load(self._path(self._folder, i), weights_only=True)
                    if value is not None:
                        _write(tensor.detach(), value.to(tensor.device))
                except (OSError, RuntimeError, NotImplementedError, TypeError) as error:
                    lost.append(f"one of shape {tuple(tensor.shape)} ({error})")
        if self._folder is not None:
            self._folder.cleanup()
        if lost:
            raise CostError(
                f"the values of {len(lost)} tensors could not be put back after measuring: "
                f"{lost[0]}. Load the model's weights again before you train."
            )

    @staticmethod
    def _path(folder: tempfile.TemporaryDirectory[str], i: int) -> Path:
        return Path(folder.name) / f"{i}.pt"


def _is_plain(tensor: torch.Tensor) -> bool:
    """Return whether it is plain numbers in memory, strided or not, and nothing more."""
    known = type(tensor) in (torch.Tensor, nn.Parameter)
    return known and tensor.layout == torch.strided and not tensor.is_quantized


def _write(tensor: torch.Tensor, value: torch.Tensor) -> None:
    # Equal bits are left alone: an expanded tensor cannot be written.
    if not (_is_plain(tensor) and torch.equal(_bits(tensor), _bits(value))):
        tensor.copy_(value)


def _bits(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.contiguous().reshape(-1).view(torch.uint8)


@contextmanager
def _random_state(tensors: Iterable[torch.Tensor]) -> Iterator[None]:
    devices = {t.device.index for t in tensors if t.is_cuda}
    python = random.getstate()
    numpy: Any = sys.modules.get("numpy")
    state = None if numpy is None else numpy.random.get_state()
    try:
        with torch.random.fork_rng(devices=sorted(devices)):
            yield
    finally:
        random.setstate(python)
        if state is not None:
            numpy.random.set_state(state)
