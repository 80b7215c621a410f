"""Split an optimizer's parameter groups by layer, so that each layer can have its own rate."""

from __future__ import annotations

import copy
from typing import Any

from torch.optim import Optimizer

from freezeout.freezing.optimizers import after_split
from freezeout.layers import Layers

__all__ = ["split_groups"]

_PER_PARAMETER = ("params", "param_names")
"""Entries of a parameter group that hold one item for each parameter."""


def split_groups(optimizer: Optimizer, layers: Layers) -> list[int]:
    """Split every parameter group by layer, in place; other settings of a group are copied.

    Args:
        optimizer: Its ``param_groups`` are replaced; the order of parameters within a part stays.
        layers: The layers of the model. A parameter that is not in the model goes with the last
            layer, which learns to the end.

    Returns:
        The index of the layer of each new group.

    Raises:
        FreezeOutError: If the optimizer shards its state and cannot follow.
    """
    groups: list[dict[str, Any]] = []
    owners: list[int] = []
    for group in optimizer.param_groups:
        members: dict[int, list[int]] = {}
        for position, parameter in enumerate(group["params"]):
            index = layers.index_of(parameter)
            members.setdefault(len(layers) - 1 if index is None else index, []).append(position)
        for index in sorted(members):
            part = {k: copy.deepcopy(v) for k, v in group.items() if k not in _PER_PARAMETER}
            for key in _PER_PARAMETER:
                if key in group:
                    part[key] = [group[key][position] for position in members[index]]
            groups.append(part)
            owners.append(index)
    before = list(optimizer.param_groups)
    optimizer.param_groups[:] = groups
    try:
        after_split(optimizer)
    except Exception:
        optimizer.param_groups[:] = before
        raise
    return owners
