"""The settings of a schedule and their types, written down once for all that take them.

A function takes them one by one as ``**settings: Unpack[ScheduleSettings]``, and makes a `Schedule`
of them with `make_schedule`. `Schedule` says what each means.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal, TypeAlias, TypedDict

__all__ = ["Anneal", "Curve", "RateSettings", "ScheduleSettings", "Spacing"]

Spacing: TypeAlias = Literal["linear", "squared", "cubic"]
"""How freeze times grow from the first layer to the last: to the power 1, 2 or 3."""


Curve: TypeAlias = Callable[[float], float]
"""A factor for every fraction $u = t / t_i \\in [0, 1)$ of a layer's learning time."""


Anneal: TypeAlias = Literal["cosine", "linear"] | Curve | None
"""Name of an annealing curve, a custom curve, or ``None`` to leave the rates alone."""


class RateSettings(TypedDict, total=False):
    """Settings that decide the rates alone, not when layers freeze (see `Schedule`)."""

    scaled: bool
    anneal: Anneal
    warmup_steps: int
    scale_cap: float | None


class ScheduleSettings(RateSettings, total=False):
    """All settings of a `Schedule`, each of which may be left out."""

    t0: float
    spacing: Spacing
    times: Sequence[float] | None
    max_freezes: int | None
