"""What the callbacks share: their settings, and what they log."""

from __future__ import annotations

from collections.abc import Sequence

from freezeout.schedule import Anneal, Schedule, Spacing
from freezeout.scheduler import FreezeOut

__all__ = ["metrics", "one_schedule"]


def one_schedule(
    schedule: Schedule | None,
    *,
    t0: float,
    spacing: Spacing,
    scaled: bool,
    anneal: Anneal,
    warmup_steps: int,
    scale_cap: float | None,
    times: Sequence[float] | None,
    max_freezes: int | None,
) -> Schedule:
    """The settings as one object, checked when the callback is made and not when training begins.

    Raises:
        TypeError: If a setting has the wrong type, or is given beside a schedule.
        ValueError: If a setting is out of range.
    """
    given = Schedule(
        t0=t0,
        spacing=spacing,
        scaled=scaled,
        anneal=anneal,
        warmup_steps=warmup_steps,
        scale_cap=scale_cap,
        times=times,
        max_freezes=max_freezes,
    )
    if schedule is None:
        return given
    if not isinstance(schedule, Schedule):
        raise TypeError(f"schedule must be a freezeout.Schedule, got {schedule!r}. Make one.")
    both = Schedule().differences(given.to_dict())
    if both:
        raise TypeError(
            f"schedule already holds all settings, got more beside it ({'; '.join(both)}). "
            "Give either the schedule or the settings one by one."
        )
    return schedule


def metrics(scheduler: FreezeOut) -> dict[str, float]:
    """What to log: frozen layers, their fraction of all parameters, the highest rate, progress."""
    sizes = [layer.num_parameters for layer in scheduler.layers]
    return {
        "freezeout/frozen": float(scheduler.frozen),
        "freezeout/frozen_fraction": sum(sizes[: scheduler.frozen]) / max(1, sum(sizes)),
        "freezeout/learning_rate": max(float(rate) for rate in scheduler.get_last_lr()),
        "freezeout/progress": scheduler.progress,
    }
