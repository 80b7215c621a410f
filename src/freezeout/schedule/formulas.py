"""The formulas of the paper: freeze times, initial scales, annealing, warm-up, rates."""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping, Sequence

from freezeout.errors import check_whole
from freezeout.schedule.checks import (
    check_anneal,
    check_cap,
    check_factor,
    check_spacing,
    check_t0,
    check_times,
)
from freezeout.schedule.settings import Anneal, Curve, Spacing

__all__ = [
    "POWERS",
    "annealing",
    "freeze_step",
    "freeze_times",
    "initial_scales",
    "rate_factors",
    "warmup_factor",
]

POWERS: Mapping[Spacing, int] = {"linear": 1, "squared": 2, "cubic": 3}
"""Exponent of each spacing."""

_ROUNDED = 1.0 - 1e-12
"""A freeze time is reached at this part of it already, because powers are rounded."""


def freeze_times(num_layers: int, t0: float, *, spacing: Spacing = "cubic") -> tuple[float, ...]:
    r"""Return when each layer stops learning, as a fraction of training.

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
    check_whole("num_layers", num_layers, "A model has one or more layers.", least=1)
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
    r"""Return the factor on each layer's base rate at the start: $1/t_i$ when scaled, else 1.

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
    r"""Return the annealing curve $c(u)$ for $u = t/t_i \in [0, 1)$.

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
        custom = anneal
        return lambda u: check_factor(u, custom(u))
    return {"cosine": _cosine, "linear": _linear}[anneal]


def warmup_factor(step: int, warmup_steps: int) -> float:
    """Return the factor of a linear warm-up.

    It rises from ``1 / warmup_steps`` at step 0 to 1 at step ``warmup_steps - 1``.

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
    r"""Return each layer's rate over its base rate: $s_i\,w\,c(t/t_i)$ until $t_i$, then 0.

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
        [  # at every step of a run: a list is a third faster to fill than a tuple
            0.0 if progress >= t * _ROUNDED else float(scale * warmup * curve(progress / t))
            for t, scale in zip(times, scales, strict=True)
        ]
    )


def freeze_step(time: float, total_steps: int) -> int | None:
    """Return the step from which a layer is frozen, the least $n$ with $n / N >= t_i$.

    Rounding is allowed for: 0.8 cubed is 0.5120000000000001 in floating point, and of 1000 steps
    the layer freezes at 512.

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


def _reached(progress: float, time: float) -> bool:
    """Return whether progress has come to a freeze time."""
    return progress >= time * _ROUNDED


def _cosine(u: float) -> float:
    return (1.0 + math.cos(math.pi * u)) / 2.0


def _linear(u: float) -> float:
    return 1.0 - u


def _constant(u: float) -> float:
    return 1.0
