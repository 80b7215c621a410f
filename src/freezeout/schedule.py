r"""When each layer freezes, and at which rate it learns until then. Start reading here.

Numbers in, numbers out: this module imports no torch, so that it reads beside the paper.

Training runs over *progress* $t \in [0, 1]$, the steps done divided by ``total_steps``. Layer $i$
learns until its freeze time $t_i$, at the rate

$$\alpha_i(t) = \alpha \cdot s_i \cdot c(t / t_i), \qquad s_i = 1/t_i \text{ (scaled) or } 1,
\qquad c(u) = \tfrac12 (1 + \cos \pi u),$$

and is frozen from $t_i$ on. Everything is closed form: nothing depends on the step before, so a
resumed run and an uninterrupted one cannot differ.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, Literal, TypeAlias

from freezeout._schedule_checks import (
    check_anneal,
    check_cap,
    check_factor,
    check_integer,
    check_spacing,
    check_t0,
    check_times,
)
from freezeout.merging import merge_times

__all__ = [
    "POWERS",
    "Anneal",
    "Schedule",
    "Spacing",
    "annealing",
    "freeze_step",
    "freeze_times",
    "initial_scales",
    "one_schedule",
    "rate_factors",
    "warmup_factor",
]

Spacing: TypeAlias = Literal["linear", "squared", "cubic"]
"""How freeze times grow from the first layer to the last: to the power 1, 2 or 3."""

Curve: TypeAlias = Callable[[float], float]
"""A factor for every fraction $u = t / t_i \\in [0, 1)$ of a layer's learning time."""

Anneal: TypeAlias = Literal["cosine", "linear"] | Curve | None
"""Name of an annealing curve, a curve of your own, or ``None`` to leave the rates alone."""

POWERS: Mapping[Spacing, int] = {"linear": 1, "squared": 2, "cubic": 3}
"""Exponent of each spacing."""


def freeze_times(num_layers: int, t0: float, *, spacing: Spacing = "cubic") -> tuple[float, ...]:
    r"""When each layer stops learning, as a fraction of training.

    Layer $i$ of $L$, counted from the input, freezes at
    $t_i = (t_0 + (1 - t_0)\,i/(L-1))^p$, with $p$ = 1, 2, 3 for ``"linear"``, ``"squared"``,
    ``"cubic"``. Note that `t0` is quoted before the power: 0.8 cubed freezes the first layer
    at 0.512.

    Args:
        num_layers: Number of layers, at least 1. A single layer freezes at 1.
        t0: Freeze time of the first layer before spacing, in (0, 1].
        spacing: How freeze times grow from the first layer to the last.

    Returns:
        One value per layer in (0, 1], never decreasing, the last exactly 1.0.

    Raises:
        TypeError: If an argument is not a number.
        ValueError: If an argument is outside its range.

    Example:
        >>> freeze_times(3, 0.5, spacing="linear")
        (0.5, 0.75, 1.0)

    Reference:
        Brock et al., "FreezeOut", 2017, section 2 (arXiv:1706.04983).
    """
    check_integer("num_layers", num_layers, 1, "A model has one or more layers.")
    check_t0(t0)
    check_spacing(spacing)
    power = POWERS[spacing]
    last = num_layers - 1
    times = [(t0 + (1.0 - t0) * i / last) ** power for i in range(last)]
    # A power that underflows to 0 would be a layer that never learns; the paper's t_i are positive.
    return (*(max(t, sys.float_info.min) for t in times), 1.0)


def initial_scales(
    times: Sequence[float], *, scaled: bool = True, cap: float | None = None
) -> tuple[float, ...]:
    r"""Factor on each layer's base rate at the start: $1/t_i$ when scaled, else 1.

    Scaling makes the area under every layer's schedule the same, $\int \alpha_i\,dt = \alpha/2$
    for the cosine, so that a layer that freezes early has learned as much as one that does not.

    Args:
        times: Freeze times, each in (0, 1].
        scaled: Whether to scale at all.
        cap: Largest factor allowed, at least 1; ``None`` for no limit (the paper).
            Cubic with `t0` = 0.5 starts the first layer at 8 times the base rate: too much for
            some optimizers.

    Returns:
        One factor per layer, at least 1.

    Raises:
        TypeError: If an argument is not a number.
        ValueError: If an argument is outside its range.

    Example:
        >>> initial_scales((0.125, 0.5, 1.0), cap=4.0)
        (4.0, 2.0, 1.0)

    Reference:
        Brock et al., "FreezeOut", 2017, section 2.1; the cap is ours.
    """
    check_times(times)
    check_cap(cap)
    if not scaled:
        return (1.0,) * len(times)
    limit = math.inf if cap is None else cap
    return tuple(min(1.0 / max(t, sys.float_info.min), limit) for t in times)


def annealing(anneal: Anneal) -> Curve:
    r"""The annealing curve $c(u)$ for $u = t/t_i \in [0, 1)$.

    Args:
        anneal: ``"cosine"`` is $\frac12(1 + \cos \pi u)$, the paper's; ``"linear"`` is $1 - u$;
            a callable is used as it is, its values checked; ``None`` is the constant 1.

    Returns:
        The curve.

    Raises:
        ValueError: If the name is unknown.
        TypeError: If `anneal` is neither a name, nor callable, nor ``None``.

    Example:
        >>> annealing("cosine")(0.5)
        0.5
    """
    check_anneal(anneal)
    if anneal is None:
        return _constant
    if callable(anneal):
        own = anneal
        return lambda u: check_factor(u, own(u))
    return {"cosine": _cosine, "linear": _linear}[anneal]


def warmup_factor(step: int, warmup_steps: int) -> float:
    """Linear warm-up: rises from ``1 / warmup_steps`` at step 0 to 1 at step ``warmup_steps - 1``.

    Args:
        step: Optimizer steps done, at least 0.
        warmup_steps: Length of the warm-up in optimizer steps; 0 for none.

    Returns:
        A factor in (0, 1].

    Example:
        >>> [warmup_factor(n, 4) for n in range(5)]
        [0.25, 0.5, 0.75, 1.0, 1.0]
    """
    return 1.0 if step + 1 >= warmup_steps else (step + 1) / warmup_steps


def rate_factors(
    progress: float,
    times: Sequence[float],
    scales: Sequence[float],
    curve: Curve,
    warmup: float = 1.0,
) -> tuple[float, ...]:
    r"""Each layer's rate relative to its base rate: $s_i\,w\,c(t/t_i)$ until $t_i$, then 0.

    Args:
        progress: $t$, steps done / total steps, at least 0.
        times: Freeze times $t_i$, each in (0, 1].
        scales: Initial scales $s_i$ (see `initial_scales`).
        curve: Annealing curve $c$ (see `annealing`).
        warmup: Factor $w$ of the warm-up (see `warmup_factor`).

    Returns:
        One factor per layer.

    Example:
        >>> rate_factors(0.25, (0.25, 0.5, 1.0), (4.0, 2.0, 1.0), lambda u: 1.0 - u)
        (0.0, 1.0, 0.75)

    Reference:
        Brock et al., "FreezeOut", 2017, equation 1 (with the factor one half that it lacks).
    """
    return tuple(
        0.0 if _reached(progress, t) else float(scale * warmup * curve(progress / t))
        for t, scale in zip(times, scales, strict=True)
    )


def freeze_step(time: float, total_steps: int) -> int | None:
    """The step from which a layer is frozen: the least $n$ with $n / N >= t_i$, up to rounding.

    0.8 cubed is 0.5120000000000001 in floating point; of 1000 steps the layer freezes at 512.

    Args:
        time: Freeze time in (0, 1].
        total_steps: Length $N$ of training in optimizer steps, at least 1.

    Returns:
        Steps done when the layer freezes, in [1, total_steps); ``None`` if it never does, because
        it learns to the very end.

    Example:
        >>> freeze_step(0.512, 1000), freeze_step(1.0, 1000)
        (512, None)
    """
    n = max(1, math.floor(time * total_steps))
    while not _reached(n / total_steps, time):
        n += 1
    return n if n < total_steps else None


@dataclass(frozen=True)
class Schedule:
    r"""The settings of FreezeOut, checked when made: which layer freezes when, at which rates.

    Args:
        t0: Freeze time of the first layer before spacing, in (0, 1]. 1 freezes nothing. The
            paper recommends 0.8 (cubic, scaled), or 0.5 for more speed at some loss.
        spacing: How freeze times grow from the first layer to the last.
        scaled: Whether initial rates are scaled by $1/t_i$.
        anneal: Annealing curve evaluated at $t/t_i$: ``"cosine"`` (the paper's), ``"linear"``, a
            callable from [0, 1) to a factor of at least 0, or ``None``: only freeze, and leave the
            rates to another scheduler.
        warmup_steps: Linear warm-up over the first so many optimizer steps, multiplied onto the
            curve; it must end before the first layer freezes.
        scale_cap: Largest factor that scaling may put on a base rate, at least 1, or ``None``.
        times: Explicit freeze times, one per layer, in (0, 1], never decreasing; they take the
            place of `t0` and `spacing`. The last layer learns to the end whatever it says.
        max_freezes: Most moments at which layers freeze, at least 1, or ``None`` for as many as
            there are layers. Neighbours freeze together at the mean of their times, and learn until
            then. For models that are compiled as a whole, where every freeze costs a compilation;
            `plan` weighs layers by what they cost, too.

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
        if not isinstance(self.scaled, bool):
            raise TypeError(
                f"scaled must be True or False, got {self.scaled!r}. "
                "It says whether initial rates are divided by freeze times."
            )
        check_anneal(self.anneal)
        check_integer("warmup_steps", self.warmup_steps, 0, "Give 0 for no warm-up.")
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
            hint = "It is how many times layers freeze; leave it out to let each freeze by itself."
            check_integer("max_freezes", self.max_freezes, 1, hint)
            self._set("max_freezes", int(self.max_freezes))
        self._set("warmup_steps", int(self.warmup_steps))
        if self.scale_cap is not None:
            self._set("scale_cap", float(self.scale_cap))
        self._set("t0", float(self.t0))

    def _set(self, name: str, value: object) -> None:
        """Makes a setting plain: one given as a NumPy number would not load from a checkpoint."""
        object.__setattr__(self, name, value)

    def freeze_times(self, num_layers: int) -> tuple[float, ...]:
        """Freeze time of each layer, in (0, 1]; the last is 1.

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
        """The step at which each layer freezes; ``None`` for layers that learn to the end.

        Args:
            num_layers: Number of layers, at least 1.
            total_steps: Length of training in optimizer steps, at least 1.

        Raises:
            ValueError: If the warm-up does not end before the first layer freezes.
        """
        check_integer("total_steps", total_steps, 1, "It is the number of optimizer updates.")
        steps = tuple(freeze_step(t, total_steps) for t in self.freeze_times(num_layers))
        first = total_steps if steps[0] is None else steps[0]
        if self.warmup_steps > first:
            raise ValueError(
                f"warmup_steps must not exceed {first}, the step at which the first layer freezes, "
                f"got {self.warmup_steps}. Warm up for less, raise t0, or train for longer."
            )
        return steps

    def scales(self, num_layers: int) -> tuple[float, ...]:
        """Factor on each layer's base rate at the start (see `initial_scales`).

        All are 1 with ``anneal=None``, which leaves the rates alone.
        """
        times = self.freeze_times(num_layers)
        scaled = self.scaled and self.anneal is not None
        return initial_scales(times, scaled=scaled, cap=self.scale_cap)

    def factors(self, step: int, total_steps: int, num_layers: int) -> tuple[float, ...]:
        r"""Rate of each layer relative to its base rate, after `step` optimizer steps.

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
        check_integer("step", step, 0, "It is the number of optimizer updates done.")
        check_integer("total_steps", total_steps, 1, "It is the number of optimizer updates.")
        return rate_factors(
            step / total_steps,
            self.freeze_times(num_layers),
            self.scales(num_layers),
            annealing(self.anneal),
            warmup_factor(step, self.warmup_steps),
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain values for a checkpoint. A callable curve is stored by its qualified name."""
        state: dict[str, Any] = {f.name: getattr(self, f.name) for f in fields(self)}
        if callable(self.anneal):
            state["anneal"] = _curve_name(self.anneal)
        if self.times is not None:
            state["times"] = list(self.times)
        return state

    def settings(self) -> dict[str, Any]:
        """The settings that are not as they are by default, as arguments."""
        default = Schedule()
        values = ((f.name, getattr(self, f.name)) for f in fields(self))
        return {name: value for name, value in values if value != getattr(default, name)}

    def differences(self, state: Mapping[str, Any]) -> list[str]:
        """How these settings differ from those that `to_dict` stored, one phrase per setting."""
        own = self.to_dict()
        return [
            f"{name}={state.get(name)!r} there but {name}={value!r} here"
            for name, value in own.items()
            if state.get(name) != value
        ]


def one_schedule(schedule: Schedule | None, given: Schedule) -> Schedule:
    """The settings that hold, where they may be given as one object or one by one.

    Args:
        schedule: The object, or ``None``.
        given: What was given one by one.

    Raises:
        TypeError: If `schedule` is something else, or settings were given beside it.
    """
    if schedule is None:
        return given
    if not isinstance(schedule, Schedule):
        raise TypeError(f"schedule must be a freezeout.Schedule, got {schedule!r}. Make one.")
    both = given.settings()
    if both:
        raise TypeError(
            f"schedule already holds all settings, got {', '.join(both)} beside it. "
            "Give either the schedule or the settings one by one."
        )
    return schedule


def _reached(progress: float, time: float) -> bool:
    """Whether progress has come to a freeze time, up to the rounding of a power."""
    return progress >= time * (1.0 - 1e-12)


def _cosine(u: float) -> float:
    return (1.0 + math.cos(math.pi * u)) / 2.0


def _linear(u: float) -> float:
    return 1.0 - u


def _constant(u: float) -> float:
    return 1.0


def _curve_name(curve: Curve) -> str:
    module = getattr(curve, "__module__", type(curve).__module__)
    name = getattr(curve, "__qualname__", type(curve).__qualname__)
    return f"{module}.{name}"
