"""The settings of FreezeOut in one object, and what follows from them."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

from freezeout.errors import check_bool, check_whole
from freezeout.schedule.checks import (
    check_anneal,
    check_cap,
    check_spacing,
    check_t0,
    check_times,
)
from freezeout.schedule.formulas import (
    annealing,
    freeze_step,
    freeze_times,
    initial_scales,
    rate_factors,
    warmup_factor,
)
from freezeout.schedule.merging import merge_times
from freezeout.schedule.settings import Anneal, Curve, RateSettings, Spacing
from freezeout.text import did_you_mean

__all__ = ["Schedule", "make_schedule"]


@dataclass(frozen=True)
class Schedule:
    r"""The settings of FreezeOut, checked when made: which layer freezes when, at which rates.

    Args:
        t0: Freeze time of the first layer before spacing, in (0, 1]. 1 freezes nothing. The
            paper recommends 0.8 (cubic, scaled), or 0.5 for more speed at some loss.
        spacing: How freeze times grow from the first layer to the last: ``"linear"``,
            ``"squared"`` or ``"cubic"``.
        scaled: Whether initial rates are scaled by $1/t_i$.
        anneal: Annealing curve evaluated at $t/t_i$: ``"cosine"`` (the paper's), ``"linear"``, a
            callable from [0, 1) to a factor of at least 0, or ``None``: only freeze, and leave the
            rates to another scheduler.
        warmup_steps: Length of the linear warm-up in optimizer steps, at least 0. It multiplies the
            curve and must end before the first layer freezes.
        scale_cap: Largest factor that scaling may put on a base rate, at least 1, or ``None``.
        times: Explicit freeze times, one per layer, in (0, 1], never decreasing, in place of `t0`
            and `spacing`. The last layer learns to the end whatever it says.
        max_freezes: Most moments at which layers freeze, at least 1, or ``None`` for as many as
            there are layers. Neighbours freeze together at the mean of their times, and learn until
            then. Useful for models that are compiled as a whole, where every freeze costs a
            compilation; `plan` also weighs layers by what they cost.

    Raises:
        TypeError: If an argument has the wrong type.
        ValueError: If an argument is outside its range.

    Example:
        >>> Schedule(t0=0.5, spacing="linear").freeze_times(3)
        (0.5, 0.75, 1.0)
        >>> Schedule().freeze_steps(num_layers=3, total_steps=1000)
        (512, 729, None)

    Reference:
        Brock et al., "FreezeOut", 2017, section 2. Beyond the paper: other curves than the
        cosine, the warm-up, the cap, ``anneal=None``, explicit times, ``max_freezes``.
    """

    t0: float = 0.8
    spacing: Spacing = "cubic"
    scaled: bool = True
    anneal: Anneal = "cosine"
    warmup_steps: int = 0
    scale_cap: float | None = None
    times: Sequence[float] | None = None
    max_freezes: int | None = None

    def __post_init__(self) -> None:
        check_t0(self.t0)
        check_spacing(self.spacing)
        hint = "It says whether initial rates are divided by freeze times."
        check_bool("scaled", self.scaled, hint)
        check_anneal(self.anneal)
        check_whole("warmup_steps", self.warmup_steps, "Give 0 for no warm-up.")
        check_cap(self.scale_cap)
        if self.anneal is None and (self.warmup_steps or self.scale_cap is not None):
            raise ValueError(
                "warmup_steps and scale_cap set rates, but anneal=None leaves all rates to another "
                "scheduler. Drop them, or choose an annealing curve."
            )
        if self.times is not None:
            if isinstance(self.times, Iterable):
                self._set("times", tuple(self.times))
            check_times(self.times)
            self._set("times", tuple(map(float, self.times)))
        if self.max_freezes is not None:
            hint = "It is how often layers freeze; leave it out to let each freeze by itself."
            check_whole("max_freezes", self.max_freezes, hint, least=1)
            self._set("max_freezes", int(self.max_freezes))
        self._set("warmup_steps", int(self.warmup_steps))
        if self.scale_cap is not None:
            self._set("scale_cap", float(self.scale_cap))
        self._set("t0", float(self.t0))

    def _set(self, name: str, value: object) -> None:
        """Store a setting as a plain number: NumPy's would not load from a checkpoint."""
        object.__setattr__(self, name, value)

    def freeze_times(self, num_layers: int) -> tuple[float, ...]:
        """Return the freeze time of each layer, in (0, 1]; the last is 1.

        Args:
            num_layers: Number of layers, at least 1.

        Raises:
            ValueError: If explicit times were given for another number of layers.
        """
        if self.times is not None and len(self.times) != num_layers:
            raise ValueError(
                f"times holds {len(self.times)} freeze times, but the model was cut into "
                f"{num_layers} layers. Give one time per layer, or name the layers yourself."
            )
        if self.times is None:
            times = freeze_times(num_layers, self.t0, spacing=self.spacing)
        else:
            times = (*self.times[:-1], 1.0)
        if self.max_freezes is None:
            return times
        return merge_times(times, [1.0] * num_layers, self.max_freezes)

    def freeze_steps(self, num_layers: int, total_steps: int) -> tuple[int | None, ...]:
        """Return the step at which each layer freezes; ``None`` where it learns to the end.

        Args:
            num_layers: Number of layers, at least 1.
            total_steps: Length of training in optimizer steps, at least 1.

        Raises:
            ValueError: If the warm-up does not end before the first layer freezes.
        """
        check_whole("total_steps", total_steps, "It is the number of optimizer updates.", least=1)
        steps = tuple(freeze_step(t, total_steps) for t in self.freeze_times(num_layers))
        first = total_steps if steps[0] is None else steps[0]
        if self.warmup_steps > first:
            raise ValueError(
                f"warmup_steps must not exceed {first}, the step at which the first layer freezes, "
                f"got {self.warmup_steps}. Warm up for less, raise t0, or train for longer."
            )
        return steps

    def scales(self, num_layers: int) -> tuple[float, ...]:
        """Return the factor on each layer's base rate at the start (see `initial_scales`).

        All are 1 with ``anneal=None``, which leaves the rates alone.
        """
        times = self.freeze_times(num_layers)
        scaled = self.scaled and self.anneal is not None
        return initial_scales(times, scaled=scaled, cap=self.scale_cap)

    def factors(self, step: int, total_steps: int, num_layers: int) -> tuple[float, ...]:
        r"""Return the rate of each layer over its base rate after `step` optimizer steps.

        This is $s_i\,c(t/t_i)$ times the warm-up for $t < t_i$, and 0 from $t_i$ on.

        Args:
            step: Optimizer steps done, at least 0.
            total_steps: Length of training in optimizer steps, at least 1.
            num_layers: Number of layers, at least 1.

        Returns:
            One factor per layer, at least 0.

        Raises:
            TypeError: If an argument is not a whole number.
            ValueError: If an argument is outside its range.

        Example:
            >>> Schedule(t0=0.5, spacing="linear").factors(25, 100, 2)
            (1.0, 0.8535533905932737)
        """
        check_whole("step", step, "It is the number of optimizer updates done.")
        check_whole("total_steps", total_steps, "It is the number of optimizer updates.", least=1)
        return rate_factors(
            step / total_steps,
            self.freeze_times(num_layers),
            self.scales(num_layers),
            annealing(self.anneal),
            warmup_factor(step, self.warmup_steps),
        )

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for a checkpoint; a callable curve is stored by its full name."""
        state: dict[str, Any] = {f.name: getattr(self, f.name) for f in fields(self)}
        if callable(self.anneal):
            state["anneal"] = _curve_name(self.anneal)
        if self.times is not None:
            state["times"] = list(self.times)
        return state

    def differences(self, state: Mapping[str, Any]) -> list[str]:
        """Return how these settings differ from those that `to_dict` stored, a phrase for each."""
        here = self.to_dict()
        return [
            f"{name}={state.get(name)!r} there but {name}={value!r} here"
            for name, value in here.items()
            if state.get(name) != value
        ]


def make_schedule(
    schedule: Schedule | None,
    settings: RateSettings,
    taker: Callable[..., Any],
    *,
    default: Schedule | None = None,
) -> Schedule:
    """Make the schedule that was given to a function, as one object or setting by setting.

    Args:
        schedule: The object, or ``None``.
        settings: The settings that were given one by one: `ScheduleSettings`, or some of them.
        taker: The function or class that took them; error messages name it.
        default: Where settings that were left out come from; by default, those of `Schedule`.

    Raises:
        TypeError: If there is no setting of a name, `schedule` is not a schedule, or settings were
            given beside it.
        ValueError: If a setting is outside its range.
    """
    known = [f.name for f in fields(Schedule)]
    for name in settings:
        if name not in known:
            takes = inspect.signature(taker).parameters.values()
            others = [p.name for p in takes if p.kind is not p.VAR_KEYWORD]
            hint = did_you_mean(name, [*known, *others], f"Settings are {', '.join(known)}.")
            raise TypeError(f"{taker.__name__} takes no argument {name!r}. {hint}")
    if schedule is None:
        return replace(default or Schedule(), **settings)
    if not isinstance(schedule, Schedule):
        raise TypeError(f"schedule must be a freezeout.Schedule, got {schedule!r}. Make one.")
    if settings:
        raise TypeError(
            f"schedule already holds all settings, got {', '.join(settings)} beside it. "
            "Give either the schedule or the settings one by one."
        )
    return schedule


def _curve_name(curve: Curve) -> str:
    module = getattr(curve, "__module__", type(curve).__module__)
    name = getattr(curve, "__qualname__", type(curve).__qualname__)
    return f"{module}.{name}"
