"""Split an optimizer's groups by layer, and make schedulers that were there fit the new groups."""

from __future__ import annotations

from collections.abc import Sequence

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from freezeout.freezing import split_groups
from freezeout.layers import Layers
from freezeout.scheduler.others import schedulers_of

__all__ = ["split_by_layer"]

_PER_GROUP = (
    *("base_lrs", "_last_lr", "lr_lambdas"),
    *("min_lrs", "max_lrs", "base_momentums", "max_momentums"),
)
"""Attributes of torch's schedulers that hold one entry for each parameter group."""


def split_by_layer(optimizer: Optimizer, layers: Layers) -> list[int]:
    """Split an optimizer's groups by layer.

    torch's schedulers keep lists with one entry for each group. Those of a scheduler that was made
    before (a warm-up in a ``SequentialLR``, say) get one for each of the new groups; otherwise its
    next step would fail.

    Args:
        optimizer: Its groups are replaced.
        layers: The layers of the model.

    Returns:
        The index of the layer of each new group.
    """
    groups = optimizer.param_groups
    origin = {id(p): i for i, group in enumerate(groups) for p in group["params"]}
    before = len(groups)
    owners = split_groups(optimizer, layers)
    if len(owners) != before:
        others = schedulers_of(optimizer)
        _adapt(others, [origin[id(g["params"][0])] for g in optimizer.param_groups], before)
    return owners


def _adapt(others: Sequence[LRScheduler], origin: Sequence[int], before: int) -> None:
    for other in others:
        for name in _PER_GROUP:
            entries = other.__dict__.get(name)
            if isinstance(entries, list) and len(entries) == before:
                setattr(other, name, [entries[i] for i in origin])
