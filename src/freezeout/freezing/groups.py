"""Split an optimizer's parameter groups by layer, so that each layer can have its own rate."""

from __future__ import annotations

import copy
import itertools
import re
from collections.abc import Sequence
from typing import Any
from weakref import WeakKeyDictionary

from torch.optim import Optimizer

from freezeout.freezing.holders import holders_of
from freezeout.freezing.lists import NewList, Part, split_lists
from freezeout.freezing.optimizers import after_split, keeps_parts
from freezeout.layers import Layers

__all__ = ["check_groups", "split_groups"]

_PER_PARAMETER = ("params", "param_names")
"""Entries of a parameter group that hold one item for each parameter."""

_NAMES: WeakKeyDictionary[Optimizer, list[str]] = WeakKeyDictionary()
"""The names of the groups of an optimizer, which a checkpoint without names would take away."""


def check_groups(optimizer: Optimizer, layers: Layers) -> None:
    """Raise where `split_groups` could not follow, and change nothing.

    Args:
        optimizer: As for `split_groups`.
        layers: As for `split_groups`.

    Raises:
        ValueError: If the optimizer keeps a list beside its groups that is not understood.
    """
    _split_lists(optimizer, _parts(optimizer, layers))


def split_groups(optimizer: Optimizer, layers: Layers) -> list[int]:
    """Split every parameter group by layer, in place; other settings of a group are copied.

    Each part has a ``"name"``, unlike that of any other: the group's own, if it had one, and its
    layer's. Lists that the optimizer, or a wrapper around it, keeps beside its groups are split
    with them.

    Args:
        optimizer: Its ``param_groups`` are replaced; the order of parameters within a part stays.
        layers: The layers of the model. A parameter that is not in the model goes with the last
            layer, which learns to the end.

    Returns:
        The index of the layer of each new group.

    Raises:
        ValueError: If the optimizer keeps a list beside its groups that is not understood.
        FreezeOutError: If the optimizer shards its state and cannot follow.
    """
    parts = _parts(optimizer, layers)
    lists = _split_lists(optimizer, parts)
    before = list(optimizer.param_groups)
    groups = [_take(before[part.group], part.positions) for part in parts]
    _name(groups, parts, layers)
    around = [
        kept
        for holder in holders_of(optimizer)
        if isinstance(kept := getattr(holder, "__dict__", {}).get("param_groups"), list)
        and [id(group) for group in kept] == [id(group) for group in before]
    ]
    optimizer.param_groups[:] = groups
    try:
        after_split(optimizer)
    except Exception:
        optimizer.param_groups[:] = before
        raise
    for kept in around:
        kept[:] = groups
    for holder, name, value in lists:
        setattr(holder, name, value)
    _keep_names(optimizer)
    return [part.layer for part in parts]


def _parts(optimizer: Optimizer, layers: Layers) -> list[Part]:
    parts = []
    for i, group in enumerate(optimizer.param_groups):
        members: dict[int, list[int]] = {}
        for position, parameter in enumerate(group["params"]):
            index = layers.index_of(parameter)
            members.setdefault(len(layers) - 1 if index is None else index, []).append(position)
        parts += [Part(i, index, members[index]) for index in sorted(members)]
    return parts


def _split_lists(optimizer: Optimizer, parts: Sequence[Part]) -> list[NewList]:
    groups = optimizer.param_groups
    if [part.group for part in parts] == list(range(len(groups))):
        return []  # each group is of one layer, and none is split
    holders = [holder for holder in holders_of(optimizer) if not keeps_parts(holder)]
    return split_lists(holders, groups, parts)


def _take(group: dict[str, Any], positions: Sequence[int]) -> dict[str, Any]:
    part = {k: copy.deepcopy(v) for k, v in group.items() if k not in _PER_PARAMETER}
    for key in _PER_PARAMETER:
        if key in group:
            part[key] = [group[key][position] for position in positions]
    return part


def _name(groups: Sequence[dict[str, Any]], parts: Sequence[Part], layers: Layers) -> None:
    taken: set[str] = set()
    for group, part in zip(groups, parts, strict=True):
        layer = layers[part.layer].name or f"layer {part.layer}"
        own = str(group.get("name") or "")
        last = own.rpartition("/")[2]  # the layer's, if an earlier split has given the name
        named = re.fullmatch(re.escape(layer) + r"(-\d+)?", last)
        name = own if named else f"{own}/{layer}" if own else layer
        numbered = (f"{name}-{i}" for i in itertools.count(2))
        group["name"] = next(n for n in itertools.chain([name], numbered) if n not in taken)
        taken.add(group["name"])


def _keep_names(optimizer: Optimizer) -> None:
    """Give the groups their names back after a checkpoint is loaded that was made without."""
    known = optimizer in _NAMES
    _NAMES[optimizer] = [group["name"] for group in optimizer.param_groups]
    if not known:
        optimizer.register_load_state_dict_post_hook(_rename)


def _rename(optimizer: Optimizer) -> None:
    names = _NAMES.get(optimizer, [])
    if len(names) == len(optimizer.param_groups):
        for group, name in zip(optimizer.param_groups, names, strict=True):
            group["name"] = name
