"""Other schedulers of the same optimizer: which live, which one set its rates, whose turn it is.

torch has no list of them, and one that a framework made is held by nobody we know; so they are
looked for among all objects (`freezeout.wrappers.instances_of`): where groups are split, and where
a rate is not the one that was set. What a scheduler leaves on its optimizer does not tell whether
there is one: ``ReduceLROnPlateau`` leaves nothing.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from typing import Any

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau, SequentialLR

from freezeout.freezing import unwrap_optimizer
from freezeout.wrappers import instances_of

__all__ = ["describe", "has_turn", "is_plateau", "schedulers_of", "setter_of"]


def schedulers_of(optimizer: Optimizer) -> list[LRScheduler]:
    """Return every live scheduler of an optimizer, `FreezeOut` included.

    Args:
        optimizer: The optimizer that steps, without wrappers.
    """
    return [
        found
        for found in instances_of(LRScheduler)
        if unwrap_optimizer(found.__dict__.get("optimizer")) is optimizer
    ]


def setter_of(
    rates: Sequence[float], others: Sequence[LRScheduler], ours: LRScheduler | None = None
) -> LRScheduler | None:
    """Return the scheduler that set the present rates, ``None`` if none of them did.

    Every scheduler of torch notes the rates that it left behind. One that nobody steps does not
    have the present ones.

    Args:
        rates: The rates of all groups as they are.
        others: Every scheduler of the optimizer.
        ours: Not counted, and neither are those that step it; ``None`` to count all.
    """
    found = [
        other
        for other in others
        if other is not ours and not _holds(other, ours) and _noted(other) == list(rates)
    ]
    inside = {id(part) for other in found for part in _parts(other)}
    outer = [other for other in found if id(other) not in inside]
    return min(outer, key=is_plateau, default=None)


def has_turn(ours: LRScheduler, others: Sequence[LRScheduler]) -> bool:
    """Return whether no ``SequentialLR`` that holds a scheduler has gone on to another.

    Args:
        ours: The scheduler.
        others: Every scheduler of the optimizer.
    """
    for other in others:
        if isinstance(other, SequentialLR) and _holds(other, ours):
            index = bisect_right(other._milestones, other.last_epoch)
            at_work = other._schedulers[index]
            if at_work is not ours and not _holds(at_work, ours):
                return False
    return True


def is_plateau(scheduler: LRScheduler) -> bool:
    """Return whether a scheduler only cuts the rates from time to time."""
    return isinstance(scheduler, ReduceLROnPlateau)


def describe(scheduler: LRScheduler) -> str:
    """Name a scheduler, with what it is made of."""
    parts = " and ".join(type(part).__name__ for part in _parts(scheduler))
    return type(scheduler).__name__ + (f" (of {parts})" if parts else "")


def _noted(scheduler: LRScheduler) -> list[float] | None:
    rates = scheduler.__dict__.get("_last_lr")
    if not isinstance(rates, list):
        return None
    try:
        return [float(rate) for rate in rates]
    except (TypeError, ValueError, RuntimeError):
        return None


def _parts(scheduler: Any) -> Sequence[Any]:
    parts = getattr(scheduler, "_schedulers", ())
    return parts if isinstance(parts, Sequence) else ()


def _holds(scheduler: Any, part: LRScheduler | None) -> bool:
    return any(inner is part or _holds(inner, part) for inner in _parts(scheduler))
