"""What the callbacks share: what they log, and what they refuse."""

from __future__ import annotations

from freezeout.errors import CheckpointError, FreezeOutError
from freezeout.scheduler import FreezeOut

__all__ = ["metrics", "same_rates", "without_state"]


def metrics(scheduler: FreezeOut) -> dict[str, float]:
    """Return what to log: frozen layers, their part of all parameters, highest rate, progress."""
    sizes = [layer.num_parameters for layer in scheduler.layers]
    rates = [float(rate) for rate in scheduler.get_last_lr() if rate is not None]
    return {
        "freezeout/frozen": float(scheduler.frozen),
        "freezeout/frozen_fraction": sum(sizes[: scheduler.frozen]) / max(1, sum(sizes)),
        "freezeout/learning_rate": max(rates, default=0.0),
        "freezeout/progress": scheduler.progress,
    }


def same_rates(found: str, remedy: str) -> FreezeOutError:
    """Return the error for a second scheduler of rates.

    Args:
        found: Where the other one comes from, as the beginning of a sentence.
        remedy: What to do about it.
    """
    return FreezeOutError(
        f"{found}, and FreezeOutCallback would set the same rates. {remedy}, or give "
        "FreezeOutCallback(anneal=None), which only freezes."
    )


def without_state(found: str, remedy: str) -> CheckpointError:
    """Return the error for a checkpoint without the state of FreezeOut.

    Args:
        found: Which checkpoint it is and why it has none, as the beginning of a sentence.
        remedy: What to do about it.
    """
    return CheckpointError(f"{found}, so it does not say which layers are frozen. {remedy}")
