"""What a call is found by: its function and arguments, with nodes in place of tensors.

Keys hold numbers of different types apart, which Python takes for equal: 1, 1.0 and True, 0.0 and
-0.0.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any

import torch

from freezeout.prefix.lazy import Lazy, is_tracked
from freezeout.prefix.nodes import Node

__all__ = ["Active", "Known", "Unreadable", "key_part", "template"]


class Active(Exception):  # noqa: N818 - it is no error
    """An argument comes from active code, so the call is active too."""


class Unreadable(Active):
    """An argument is an object that cannot be looked into."""


Known = Callable[[torch.Tensor], "Node | None"]
"""Returns the node of a constant; ``None`` for any other tensor."""

_YES, _NO = ("bool", True), ("bool", False)
_ATOMS = frozenset(
    (
        *(int, str, type(None), bytes, torch.dtype, torch.device, torch.layout),
        *(torch.memory_format, type(Ellipsis), type),
    )
)


def key_part(value: Any, lazies: list[Lazy], known: Known) -> Hashable:
    """Return what stands for an argument in a key.

    Args:
        value: The argument.
        lazies: Lazy tensors in it are added, in order.
        known: Finds constants.

    Raises:
        Active: If active code has made any of it.
        Unreadable: If there is an object in it of another kind than tensors, numbers, strings,
            data types and the like, tuples, lists, dictionaries and slices.
    """
    kind = type(value)
    if kind is Lazy:
        if is_tracked(value) or (
            (value.handed is not None or value.base is not None) and value.worn
        ):
            raise Active
        lazies.append(value)
        return value.node  # type: ignore[no-any-return]  # `value` is anything here
    if kind in _ATOMS:
        return value  # type: ignore[no-any-return]  # as above
    if kind is bool:
        return _YES if value else _NO
    if kind is float or kind is complex:
        return kind, repr(value)
    if kind is tuple or kind is list or kind is torch.Size:
        return kind, *[key_part(item, lazies, known) for item in value]
    if isinstance(value, torch.Tensor):
        node = known(value)
        if node is None:
            raise Active
        return node
    if kind is dict:
        items = [(key, key_part(item, lazies, known)) for key, item in value.items()]
        return dict, *items
    if kind is slice:
        parts = (value.start, value.stop, value.step)
        return slice, *[key_part(item, lazies, known) for item in parts]
    raise Unreadable


def template(value: Any, known: Known) -> Any:
    """Return an argument with nodes in place of tensors, to be filled in by every evaluation."""
    if isinstance(value, Lazy):
        return value.node
    if isinstance(value, torch.Tensor):
        return known(value)
    if isinstance(value, (tuple, list)):
        items = (template(item, known) for item in value)
        return tuple(items) if isinstance(value, tuple) else list(items)
    if isinstance(value, dict):
        return {key: template(item, known) for key, item in value.items()}
    if isinstance(value, slice):
        return slice(*(template(part, known) for part in (value.start, value.stop, value.step)))
    return value
