"""Puts a model, its gradients and the random state back to what they were, bit for bit."""

from __future__ import annotations

import random
import sys
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import torch
from torch import nn

__all__ = ["preserved"]

_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")


@contextmanager
def preserved(model: nn.Module, others: Iterable[torch.Tensor] = ()) -> Iterator[None]:
    """On leaving, the model is as it was: weights, buffers, modes, flags, gradients, hooks.

    So are other tensors and the random state of torch, of Python and, where it is loaded, of NumPy.
    Gradients are set aside. Values wait in host memory, or, where the tensors themselves lie there,
    in files, so that no more memory is held than in training.

    Args:
        model: The model.
        others: Further tensors whose values are kept.
    """
    modules = [
        (
            module,
            {k: v for k, v in module.__dict__.items() if not isinstance(v, dict)},
            dict(module._buffers),
            {hooks: dict(getattr(module, hooks)) for hooks in _HOOKS},
        )
        for module in model.modules()
    ]
    parameters = [(p, p.requires_grad, p.grad) for p in model.parameters()]
    values = _Values([*model.parameters(), *model.buffers(), *others])
    with _random_state([*model.parameters(), *model.buffers()]):
        try:
            for parameter, _, _ in parameters:
                parameter.grad = None
            yield
        finally:
            for module, attributes, buffers, hooks in modules:
                kept = {k: v for k, v in module.__dict__.items() if isinstance(v, dict)}
                module.__dict__.clear()
                module.__dict__.update({**kept, **attributes})
                module._buffers.clear()  # a forward pass may replace a buffer
                module._buffers.update(buffers)
                for name, registered in hooks.items():
                    current = getattr(module, name)
                    current.clear()
                    current.update(registered)
            for parameter, flag, gradient in parameters:
                parameter.requires_grad_(flag)
                parameter.grad = gradient
            values.put_back()


class _Values:
    """The values of tensors, kept where they are not in the way."""

    def __init__(self, tensors: Iterable[torch.Tensor]) -> None:
        self._tensors = list({id(t): t for t in tensors}.values())
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        with suppress(OSError):  # nowhere to write: then in memory
            self._folder = tempfile.TemporaryDirectory(prefix="freezeout-")
        self._kept: dict[int, torch.Tensor] = {}
        for i, tensor in enumerate(self._tensors):
            self._keep(i, tensor.detach())

    def _keep(self, i: int, tensor: torch.Tensor) -> None:
        if tensor.device.type != "cpu":
            self._kept[i] = tensor.cpu()
            return
        copy = tensor.clone()  # a view would drag the whole of its storage along
        path = self._path(i)
        if path is None:
            self._kept[i] = copy
            return
        try:
            torch.save(copy, path)
        except (OSError, RuntimeError):  # no room: then in memory after all
            path.unlink(missing_ok=True)
            self._kept[i] = copy

    def put_back(self) -> None:
        """Writes the values into the tensors again, where they differ."""
        with torch.no_grad():
            for i, tensor in enumerate(self._tensors):
                in_memory = self._kept.pop(i, None)
                path = self._path(i)
                if in_memory is None and path is not None:
                    in_memory = torch.load(path, weights_only=True)
                if in_memory is None:
                    continue
                value = in_memory.to(tensor.device)
                if not _same_bits(tensor.detach(), value):  # an expanded one cannot be written
                    tensor.detach().copy_(value)
        if self._folder is not None:
            self._folder.cleanup()

    def _path(self, i: int) -> Path | None:
        return None if self._folder is None else Path(self._folder.name) / f"{i}.pt"


def _same_bits(a: torch.Tensor, b: torch.Tensor) -> bool:
    """Equal values with equal signs of zero; NaN equals NaN only by chance, which costs a copy."""
    if not torch.equal(a, b):
        return False
    if not a.is_floating_point():
        return True
    return torch.equal(torch.signbit(a), torch.signbit(b))


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
