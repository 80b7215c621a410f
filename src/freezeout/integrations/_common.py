"""What the callbacks share: what they log."""

from __future__ import annotations

from freezeout.scheduler import FreezeOut

__all__ = ["metrics"]


def metrics(scheduler: FreezeOut) -> dict[str, float]:
    """What to log: frozen layers, their fraction of all parameters, the highest rate, progress."""
    sizes = [layer.num_parameters for layer in scheduler.layers]
    return {
        "freezeout/frozen": float(scheduler.frozen),
        "freezeout/frozen_fraction": sum(sizes[: scheduler.frozen]) / max(1, sum(sizes)),
        "freezeout/learning_rate": max(float(rate) for rate in scheduler.get_last_lr()),
        "freezeout/progress": scheduler.progress,
    }
