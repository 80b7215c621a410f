"""The tensors in what a model takes and gives, and how it is called."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from types import CodeType, FrameType
from typing import Any

import torch

__all__ = [
    "call_arguments",
    "called_from",
    "held_bytes",
    "is_out_of_memory",
    "tensor_bytes",
    "tensors_in",
    "uncompiled",
]


def tensors_in(value: Any) -> Iterator[torch.Tensor]:
    """Yield the tensors in a value: itself, or within tuples, lists, mappings, dataclasses."""
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from tensors_in(item)
    elif isinstance(value, (tuple, list)):
        for item in value:
            yield from tensors_in(item)
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        for field in dataclasses.fields(value):
            yield from tensors_in(getattr(value, field.name))


def held_bytes(tensor: torch.Tensor) -> int:
    """Return the bytes of memory behind a tensor: the whole storage that a view keeps alive."""
    try:
        return tensor.untyped_storage().nbytes()
    except (NotImplementedError, RuntimeError):  # sparse, or a subclass without storage
        if tensor.layout == torch.sparse_coo:
            return held_bytes(tensor._indices()) + held_bytes(tensor._values())
        return tensor.numel() * tensor.element_size()


def tensor_bytes(tensor: torch.Tensor) -> int:
    """Return the bytes of a tensor's own elements."""
    return tensor.numel() * tensor.element_size()


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether memory ran out, on any device."""
    words = ("out of memory", "can't allocate memory", "not enough memory")
    return isinstance(error, (MemoryError, torch.OutOfMemoryError)) or (
        isinstance(error, RuntimeError) and any(word in str(error) for word in words)
    )


def call_arguments(example: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Return the positional and keyword arguments to call a model with an example.

    Args:
        example: One tensor, a tuple of positional or a mapping of keyword arguments.
    """
    if isinstance(example, Mapping):
        return (), dict(example)
    if isinstance(example, (tuple, list)):
        return tuple(example), {}
    return (example,), {}


def called_from(code: CodeType | None) -> bool:
    """Return whether the caller was called, directly or not, by the function with this code."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and frame.f_code is not code:
        frame = frame.f_back
    return frame is not None


def uncompiled() -> AbstractContextManager[Any]:
    """Run compiled modules as they are written: their hooks fire, and nothing is compiled."""
    if "torch._dynamo" not in sys.modules:  # nothing has been compiled
        return nullcontext()
    stance: AbstractContextManager[Any] = torch.compiler.set_stance("force_eager")
    return stance
