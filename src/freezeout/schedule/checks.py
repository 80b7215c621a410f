"""Checks of a schedule's settings, in words that say what is allowed and what to do."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import get_args

from freezeout.errors import check_fraction, is_number
from freezeout.schedule.settings import Spacing

__all__ = [
    "check_anneal",
    "check_cap",
    "check_curve",
    "check_factor",
    "check_spacing",
    "check_t0",
    "check_times",
]


def check_t0(t0: object) -> None:
    """Raise unless `t0` is a number in (0, 1]."""
    hint = "It is the fraction of training after which the first layer may freeze."
    check_fraction("t0", t0, hint)


def check_spacing(spacing: object) -> None:
    """Raise unless `spacing` names one of the paper's curves."""
    if spacing == "budget":
        raise ValueError(
            "spacing 'budget' needs measured costs, so a schedule alone cannot have it. Take the "
            "schedule of a plan: "
            "freezeout.plan(costs, total_steps, spacing='budget', saving=0.2).schedule."
        )
    if spacing not in get_args(Spacing):
        raise ValueError(
            f"spacing must be one of {', '.join(get_args(Spacing))}, got {spacing!r}. "
            "It says how freeze times grow from the first layer to the last."
        )


def check_anneal(anneal: object) -> None:
    """Raise unless `anneal` is the name of a curve, a curve, or ``None``."""
    allowed = "'cosine', 'linear', a callable of t/t_i, or None"
    hint = "It is the curve along which rates fall; None leaves them to another scheduler."
    if isinstance(anneal, str):
        if anneal not in ("cosine", "linear"):
            raise ValueError(f"anneal must be {allowed}, got {anneal!r}. {hint}")
    elif callable(anneal):
        check_curve(anneal)
    elif anneal is not None:
        raise TypeError(f"anneal must be {allowed}, got {anneal!r}. {hint}")


def check_curve(curve: Callable[[float], float]) -> None:
    """Raise `ValueError` where a custom curve gives something else than a factor."""
    for u in (0.0, 0.25, 0.5, 0.75, 0.999):
        check_factor(u, curve(u))


def check_factor(u: float, value: object) -> float:
    """Return what a custom curve gave for a fraction `u`, as a plain number."""
    if not is_number(value) or not math.isfinite(value) or value < 0.0:
        raise ValueError(
            f"anneal must return a finite factor of at least 0, but anneal({u}) is {value!r}. "
            "It is called with the fraction t/t_i of a layer's learning time."
        )
    return float(value)


def check_cap(cap: object) -> None:
    """Raise unless `cap` is a number of at least 1, infinity included, or ``None``."""
    hint = "It limits the factor 1/t_i that scaling puts on a base rate; None sets no limit."
    if cap is None:
        return
    if not is_number(cap):
        raise TypeError(f"scale_cap must be a number of at least 1 or None, got {cap!r}. {hint}")
    if not cap >= 1.0:
        raise ValueError(f"scale_cap must be at least 1, got {cap}. {hint}")


def check_times(times: Sequence[float] | None) -> None:
    """Raise unless `times` are numbers in (0, 1] that never decrease, or ``None``."""
    hint = "Give one fraction of training per layer, from the input to the output."
    if times is None:
        return
    if not isinstance(times, Iterable):
        raise TypeError(f"times must be a sequence of numbers in (0, 1], got {times!r}. {hint}")
    times = tuple(times)
    if not times:
        raise ValueError(f"times must hold at least one freeze time, got none. {hint}")
    before = 0.0
    for i, t in enumerate(times):
        check_fraction(f"times[{i}]", t, hint)
        if t < before:
            raise ValueError(
                f"times must never decrease, because only a prefix can freeze, got times[{i}] = "
                f"{t} after {before}. {hint}"
            )
        before = t
