"""Lists that an optimizer keeps beside its parameter groups, one entry for each of them.

AdaBound notes the first rate of every group, Lookahead the slow weights of every group, when they
are made, and walk through these lists and the groups side by side. A list that stayed as it is
while the groups are split would end the walk early: later groups would never learn.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch

from freezeout.errors import is_number

__all__ = ["NewList", "Part", "split_lists", "walks_beside_groups", "walks_beside_parameters"]


class Part(NamedTuple):
    """One part of a split group.

    Attributes:
        group: Index of the group it comes from.
        layer: Index of its layer.
        positions: Which parameters of that group it takes.
    """

    group: int
    layer: int
    positions: list[int]


class NewList(NamedTuple):
    """What an attribute of an optimizer becomes when the groups are split.

    Attributes:
        holder: The optimizer, or a wrapper around it.
        name: Name of the attribute.
        value: Its new value.
    """

    holder: Any
    name: str
    value: Any


def split_lists(
    holders: Sequence[Any], groups: Sequence[dict[str, Any]], parts: Sequence[Part]
) -> list[NewList]:
    """Return the lists that must be split together with the groups, and change nothing.

    A list is understood if its entries are numbers or settings that the groups have, too, or
    collections of one item for each parameter of the group. A list with one item for each parameter
    of all groups is put in the new order.

    Args:
        holders: The optimizer and the wrappers around it.
        groups: The groups before the split.
        parts: What they are split into.

    Raises:
        ValueError: If there are several groups, and a list of as many entries is not understood.
    """
    found = []
    for holder in holders:
        for name, value in _lists_of(holder):
            if len(value) == len(groups):
                new = _by_group(value, groups, parts)
                if new is None and len(groups) > 1 and _may_walk(value):
                    raise ValueError(
                        f"{type(holder).__name__} keeps a list of {len(value)} entries, "
                        f"{name!r}, beside its {len(groups)} parameter groups, which cannot be "
                        "split by layer with them: layers might never learn. Give the optimizer "
                        "one group, or pass anneal=None, which leaves its groups as they are."
                    )
            else:
                new = _by_parameter(value, groups, parts)
            if new is not None:
                found.append(NewList(holder, name, type(value)(new)))
    return found


def walks_beside_groups(optimizer: Any) -> bool:
    """Return whether an optimizer keeps a list with one entry for each of its groups.

    Args:
        optimizer: Any optimizer.
    """
    groups = optimizer.param_groups
    parts = [Part(i, 0, list(range(len(g["params"])))) for i, g in enumerate(groups)]
    return any(
        len(value) == len(groups) and _by_group(value, groups, parts) is not None
        for _, value in _lists_of(optimizer)
    )


def walks_beside_parameters(optimizer: Any) -> bool:
    """Return whether an optimizer keeps a list with one item for each of its parameters.

    Args:
        optimizer: Any optimizer.
    """
    held = {"params": [p for group in optimizer.param_groups for p in group["params"]]}
    return any(_one_each(list(value), held) for _, value in _lists_of(optimizer))


def _lists_of(holder: Any) -> list[tuple[str, Any]]:
    return [
        (name, value)
        for name, value in getattr(holder, "__dict__", {}).items()
        if type(value) in (list, tuple) and value and name != "param_groups"
    ]


def _may_walk(value: Any) -> bool:
    """Return whether something walks through it beside the groups: a tuple is a setting."""
    kinds = (torch.Tensor, list, tuple, dict)
    return type(value) is list and any(is_number(v) or isinstance(v, kinds) for v in value)


def _by_group(
    value: Sequence[Any], groups: Sequence[dict[str, Any]], parts: Sequence[Part]
) -> list[Any] | None:
    pairs = list(zip(value, groups, strict=True))
    if all(_one_each(entry, group) for entry, group in pairs):
        return [_pick(value[part.group], groups[part.group], part.positions) for part in parts]
    if type(value) is list and _is_setting(pairs):
        return [value[part.group] for part in parts]
    return None


def _is_setting(pairs: Sequence[tuple[Any, dict[str, Any]]]) -> bool:
    """Return whether the entries are one setting of the groups."""
    keys = set(pairs[0][1]).intersection(*(group for _, group in pairs)) - {"params"}
    return any(all(_same(entry, group[key]) for entry, group in pairs) for key in keys)


def _same(entry: Any, setting: Any) -> bool:
    if isinstance(entry, torch.Tensor) or isinstance(setting, torch.Tensor):
        whole = all(getattr(v, "numel", lambda: 1)() == 1 for v in (entry, setting))
        return (
            whole and _is_amount(entry) and _is_amount(setting) and float(entry) == float(setting)
        )
    plain = is_number(entry) or (type(entry) is tuple and all(is_number(v) for v in entry))
    return plain and type(entry) is type(setting) and bool(entry == setting)


def _is_amount(value: Any) -> bool:
    return is_number(value) or isinstance(value, torch.Tensor)


def _one_each(entry: Any, group: dict[str, Any]) -> bool:
    """Return whether an entry holds one item for each parameter of the group."""
    parameters = group["params"]
    if isinstance(entry, Mapping):
        return len(entry) == len(parameters) and all(
            any(key is p for key in entry) for p in parameters
        )
    if type(entry) not in (list, tuple) or len(entry) != len(parameters):
        return False
    return all(
        isinstance(item, torch.Tensor) and item.shape == p.shape
        for item, p in zip(entry, parameters, strict=True)
    )


def _pick(entry: Any, group: dict[str, Any], positions: Sequence[int]) -> Any:
    if isinstance(entry, Mapping):
        chosen = {group["params"][i] for i in positions}
        return {key: item for key, item in entry.items() if key in chosen}
    return type(entry)(entry[i] for i in positions)


def _by_parameter(
    value: Sequence[Any], groups: Sequence[dict[str, Any]], parts: Sequence[Part]
) -> list[Any] | None:
    """Return one item for each parameter in the new order; ``None`` if it is no such list."""
    everything = [p for group in groups for p in group["params"]]
    if not _one_each(list(value), {"params": everything}):
        return None
    start = [0]
    for group in groups:
        start.append(start[-1] + len(group["params"]))
    return [value[start[part.group] + i] for part in parts for i in part.positions]
