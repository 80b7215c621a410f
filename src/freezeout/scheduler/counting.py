"""Count the updates of an optimizer that really happen."""

from __future__ import annotations

import weakref
from typing import Any, Protocol

from torch.optim import Optimizer

from freezeout.freezing import is_inner_step, makes_state_only

__all__ = ["count_updates"]


class _Counter(Protocol):
    """What is asked of a `RateScheduler` here."""

    def _updated(self) -> None: ...


def count_updates(optimizer: Optimizer, scheduler: _Counter) -> None:
    """Tell a scheduler of every update that really happens, for as long as it lives.

    Args:
        optimizer: The optimizer that steps.
        scheduler: What counts.
    """
    alive = weakref.ref(scheduler)

    def count(optimizer: Optimizer, args: Any, kwargs: Any) -> None:
        scheduler = alive()
        # Fused optimizers are stepped by a gradient scaler even where it wants the step skipped.
        skipped = getattr(optimizer, "found_inf", None)
        if scheduler is None or (skipped is not None and bool(skipped)):
            return
        if not (makes_state_only(optimizer) or is_inner_step(optimizer)):
            scheduler._updated()

    optimizer.register_step_post_hook(count)
