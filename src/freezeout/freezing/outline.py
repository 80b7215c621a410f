"""The structure of what a module returns, without its values."""

from __future__ import annotations

import dataclasses
import functools
import inspect
import weakref
from collections.abc import Iterator, Mapping
from types import CodeType
from typing import Any

import torch
from torch import nn

__all__ = ["Outlines", "alike", "is_of_torch", "outline", "reads_mode"]


def outline(value: Any, *, sizes: bool = False) -> Any:
    """Return a value's structure: types, fields and keys, and of tensors the rank and data type.

    How many items a list has may depend on the data, so only their different kinds are kept.

    Args:
        value: What a module returns.
        sizes: Whether to keep the shape of tensors, too: to compare two runs on the same input.
    """
    kind, inner = type(value), functools.partial(outline, sizes=sizes)
    if isinstance(value, torch.Tensor):
        return torch.Tensor, tuple(value.shape) if sizes else value.ndim, value.dtype
    if isinstance(value, Mapping):
        return kind, {key: inner(item) for key, item in value.items()}
    if isinstance(value, list):
        return list, _different(map(inner, value))
    if isinstance(value, tuple):
        return kind, tuple(map(inner, value))
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = dataclasses.fields(value)
        return kind, {field.name: inner(getattr(value, field.name)) for field in fields}
    return kind


def alike(one: Any, other: Any) -> bool:
    """Return whether two outlines are the same; an empty list is like any other list."""
    if not (isinstance(one, tuple) and isinstance(other, tuple) and len(one) == len(other) == 2):
        return bool(one == other)
    (kind, first), (other_kind, second) = one, other
    if kind is not other_kind:
        return False
    if isinstance(first, list) and isinstance(second, list):
        return not first or not second or (_covers(first, second) and _covers(second, first))
    if isinstance(first, dict) and isinstance(second, dict):
        return first.keys() == second.keys() and all(alike(first[k], second[k]) for k in first)
    if isinstance(first, tuple) and isinstance(second, tuple):
        return len(first) == len(second) and all(map(alike, first, second))
    return bool(first == second)


def _different(outlines: Iterator[Any]) -> list[Any]:
    found: list[Any] = []
    for one in outlines:
        if one not in found:
            found.append(one)
    return found


def _covers(these: list[Any], those: list[Any]) -> bool:
    return all(any(alike(one, other) for one in these) for other in those)


class Outlines:
    """What modules returned in a training pass, before any of them froze."""

    def __init__(self) -> None:
        self._known: weakref.WeakKeyDictionary[nn.Module, list[Any]] = weakref.WeakKeyDictionary()
        self._keep: weakref.WeakKeyDictionary[nn.Module, bool] = weakref.WeakKeyDictionary()

    def note(self, module: nn.Module, output: Any) -> None:
        """Keep the structure of what a module returned."""
        found = self._known.setdefault(module, [])
        found[:] = _different(iter([*found, outline(output)]))

    def has(self, module: nn.Module) -> bool:
        """Return whether a module has been seen."""
        return module in self._known

    def fits(self, module: nn.Module, found: Any) -> bool:
        """Return whether a module has returned something of this outline."""
        return any(alike(one, found) for one in self._known.get(module, ()))

    def decide(self, module: nn.Module, keeps_flag: bool) -> None:
        """Keep whether a module needs its own flag when it is frozen."""
        self._keep[module] = keeps_flag

    def decided(self, module: nn.Module) -> bool | None:
        """Return whether a module needs its own flag when it is frozen, if that is known."""
        return self._keep.get(module)


def is_of_torch(module: nn.Module) -> bool:
    """Return whether PyTorch defines a module's class; these return the same in both modes."""
    return not _own_classes(type(module))


@functools.lru_cache(maxsize=4096)
def reads_mode(kind: type) -> bool:
    """Return whether any method of a module's class, PyTorch's aside, speaks of ``training``."""
    return any("training" in _words(code) for own in _own_classes(kind) for code in _codes(own))


def _own_classes(kind: type) -> list[type]:
    """Return a class and its bases without those of PyTorch, which parametrizing puts before it."""
    others = ("torch", "builtins", "abc", "typing")
    return [base for base in kind.__mro__ if base.__module__.partition(".")[0] not in others]


def _codes(kind: type) -> Iterator[CodeType]:
    for value in vars(kind).values():
        found = value.fget if isinstance(value, property) else getattr(value, "__func__", value)
        if callable(found):
            code = getattr(inspect.unwrap(found), "__code__", None)
            if isinstance(code, CodeType):
                yield code


def _words(code: CodeType) -> Iterator[Any]:
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _words(constant)
        else:
            yield constant
