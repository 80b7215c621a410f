r"""Which schedule saves what you want, given measured costs.

`Plan` predicts what a schedule saves; `plan` turns the question round and finds the gentlest
schedule of the paper's curves that saves as much, or freeze times made for it from the costs
themselves (derived in `freezeout.planning.allocate`).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Literal, TypeAlias

from typing_extensions import Unpack

from freezeout.costs import Costs
from freezeout.errors import check_fraction, check_number, check_whole, is_number
from freezeout.planning.allocate import budget_times, default_weights, pooled
from freezeout.planning.planned import Plan
from freezeout.schedule import (
    POWERS,
    RateSettings,
    Schedule,
    Spacing,
    make_schedule,
    merge_times,
)
from freezeout.text import percent, precise_seconds

__all__ = ["LEAST_T0", "PlanSpacing", "plan"]

LEAST_T0 = 0.1
"""Smallest `t0` that a plan takes by itself: the smallest of the paper's experiments."""

PlanSpacing: TypeAlias = Literal[Spacing, "budget"]
"""The paper's curves, or freeze times made from measured costs."""

_GRAIN = 10_000  # t0 is given in ten-thousandths
_FINE = 1e-9  # freeze times of a budget; finer ones would lie within rounding of a step


def plan(
    costs: Costs,
    total_steps: int,
    *,
    saving: float | None = None,
    seconds: float | None = None,
    t0: float | None = None,
    times: Sequence[float] | None = None,
    spacing: PlanSpacing = "cubic",
    max_freezes: int | None = None,
    weights: Sequence[float] | None = None,
    least_t0: float = LEAST_T0,
    **rates: Unpack[RateSettings],
) -> Plan:
    r"""Predict what a schedule saves, or find the schedule for what you want to save.

    Give `t0` or `times` to have their saving predicted. Give `saving` or `seconds` to get the
    largest `t0` (the gentlest schedule of that spacing) that saves as much. A wish that cannot be
    met gives the nearest that can, with `Plan.reached` false and the limit in `Plan.note`.

    ``spacing="budget"`` goes beyond the paper: freeze times that save what you want at the least
    learning time lost, $\sum_i w_i (1 - t_i)^2$, where a layer's share of the measured step time
    decides how much losing learning time brings in. It freezes costly layers earlier than cheap
    ones, but always input first.

    Args:
        costs: What `measure_costs` found.
        total_steps: Length of training in optimizer steps, at least 1.
        saving: Wanted saving of training time, a fraction in [0, 1).
        seconds: Wanted seconds of all training steps together, above 0.
        t0: Freeze time of the first layer before spacing, in (0, 1].
        times: Explicit freeze times, one per layer (see `Schedule`).
        spacing: ``"linear"``, ``"squared"``, ``"cubic"``, or ``"budget"`` (with `saving` or
            `seconds`).
        max_freezes: Most steps at which layers freeze, at least 1: neighbours are merged to freeze
            together, at the same saving. For training that pays for every freeze, as a compiled
            model does.
        weights: What the learning time of each layer is worth, above 0, one per layer (that of the
            last is not used); only for ``"budget"``. By default one over the number of layers
            behind it; with equal costs that gives the paper's linear freeze times.
        least_t0: Smallest `t0` to take, in (0, 1]; for ``"budget"`` the earliest freeze time.
        **rates: `scaled`, `anneal`, `warmup_steps`, `scale_cap`: settings of the `Schedule`, which
            says what they mean. The first layer freezes after the warm-up.

    Returns:
        The plan.

    Raises:
        TypeError: If not exactly one of `saving`, `seconds`, `t0` and `times` is given, or an
            argument has the wrong type.
        ValueError: If an argument is out of range.

    Example:
        >>> costs = Costs.load(path)  # doctest: +SKIP
        >>> plan(costs, 10_000, saving=0.2, spacing="budget").saving  # doctest: +SKIP
        0.2

    Reference:
        Brock et al., "FreezeOut", 2017, section 2, for the three curves; the rest is ours.
    """
    _check(costs, saving, seconds, t0, times, spacing, max_freezes, weights, least_t0)
    family = _Family(costs, total_steps, spacing, rates, weights, least_t0, max_freezes)
    if t0 is not None:
        return family.at(t0)
    if times is not None:
        return family.merged(Plan(costs, Schedule(times=times, **rates), total_steps))
    baseline = total_steps * costs.step_seconds(0)
    wanted = saving if saving is not None else 1.0 - (seconds or 0.0) / baseline
    found, reached = family.saving_at_least(wanted)
    note = ""
    if not reached:
        wish = f"a saving of {percent(wanted)}" if seconds is None else precise_seconds(seconds)
        limit = f"{percent(found.saving)}, {precise_seconds(found.seconds)} in all"
        least = f"{'' if spacing == 'budget' else 't0 = '}{family.least:g}"
        note = (
            f"{wish} cannot be reached with {spacing} freeze times from {least} on: "
            f"the limit is {limit}, and this plan is at it"
        )
    elif wanted <= 0.0:
        note = f"nothing needs to freeze: the run takes {precise_seconds(baseline)} without"
    return replace(found, note=note, reached=reached)


class _Family:
    """All plans of one spacing, from the gentlest to the one that saves most."""

    def __init__(
        self,
        costs: Costs,
        total_steps: int,
        spacing: PlanSpacing,
        rates: RateSettings,
        weights: Sequence[float] | None,
        least_t0: float,
        max_freezes: int | None,
    ) -> None:
        self._costs = costs
        self._max_freezes = max_freezes
        self._total_steps = total_steps
        self._spacing = spacing
        self._rates = rates
        gentlest = make_schedule(None, rates, plan, default=Schedule(t0=1.0))
        gentlest.freeze_steps(len(costs), total_steps)  # checks both
        warm = gentlest.warmup_steps / total_steps
        if spacing == "budget":
            self.least = max(least_t0, warm)
            self._slopes = _slopes(costs, weights)
            rising = [slope for slope in self._slopes if slope > 0.0]
            self._stations = [0.0, *((1.0 - self.least) / slope for slope in rising[-1:])]
        else:
            first = math.ceil(_GRAIN * warm ** (1 / POWERS[spacing])) / _GRAIN
            self.least = max(least_t0, first)
            self._stations = [1.0, self.least]
            if any(layer.saving < 0.0 for layer in costs.layers[:-1]):  # noise; it may turn back
                between = (k / 100 for k in range(99, 0, -1))
                self._stations[1:1] = [t for t in between if t > self.least]

    def at(self, t0: float) -> Plan:
        """Return the plan with this `t0`; for the budget, the one with this multiplier."""
        if self._spacing == "budget":
            schedule = Schedule(times=budget_times(self._slopes, t0, self.least), **self._rates)
        else:
            schedule = Schedule(t0=t0, spacing=self._spacing, **self._rates)
        return self.merged(Plan(self._costs, schedule, self._total_steps, self._spacing))

    def merged(self, made: Plan) -> Plan:
        """Return a plan with no more freezes than allowed, which saves the same."""
        most = self._max_freezes
        if most is None or made.freezes <= most:
            return made
        savings = [layer.saving for layer in self._costs.layers]
        times = merge_times(made.freeze_times, savings, most)
        return replace(made, schedule=Schedule(times=times, **self._rates))

    def saving_at_least(self, wanted: float) -> tuple[Plan, bool]:
        """Return the gentlest plan that saves as much, or the gentlest of those that save most.

        The second value says whether it saves as much.
        """
        gentle, *stronger = self._stations  # between them the saving rises
        best = self.at(gentle)
        if wanted <= 0.0:
            return best, True
        for strong in stronger:
            made = self.at(strong)
            if made.saving >= wanted:
                return self._between(gentle, strong, wanted), True
            gentle = strong
            best = max(best, made, key=lambda plan: round(plan.saving, 9))
        return best, False

    def _between(self, gentle: float, strong: float, wanted: float) -> Plan:
        """Return the gentlest that saves as much; `gentle` saves less, `strong` enough."""
        budget = self._spacing == "budget"
        while not budget or (strong - gentle) * self._slopes[0] > _FINE:
            middle = (gentle + strong) / 2.0
            if not budget:
                middle = round(_GRAIN * middle) / _GRAIN
            if middle in (gentle, strong):
                break
            if self.at(middle).saving >= wanted:
                strong = middle
            else:
                gentle = middle
        return self.at(strong)


def _slopes(costs: Costs, weights: Sequence[float] | None) -> list[float]:
    """Return what each layer's learning time brings in over what it is worth, pooled."""
    if weights is None:
        weights = default_weights(len(costs))
    if not isinstance(weights, Iterable) or isinstance(weights, (str, Mapping)):
        raise TypeError(f"weights must be a sequence of numbers, got {weights!r}. Give a list.")
    weights = tuple(weights)
    if weights and not all(map(is_number, weights)):
        raise TypeError(f"weights must be numbers, got {list(weights)}. Give one for each layer.")
    if len(weights) not in (len(costs), len(costs) - 1) or not all(
        w > 0 and math.isfinite(w) for w in weights
    ):
        raise ValueError(
            f"weights must be one number above 0 for each of the {len(costs)} layers, got "
            f"{list(weights)}. They say what a layer's learning time is worth."
        )
    largest = max(weights)
    weights = [max(w / largest, 1e-12) for w in weights]  # only their proportion counts
    step = costs.step_seconds(0)
    savings = [layer.saving / step for layer in costs.layers[:-1]]
    return pooled(savings, weights[: len(savings)])


def _check(
    costs: object,
    saving: float | None,
    seconds: float | None,
    t0: float | None,
    times: object,
    spacing: PlanSpacing,
    max_freezes: int | None,
    weights: Sequence[float] | None,
    least_t0: float,
) -> None:
    if not isinstance(costs, Costs):
        raise TypeError(f"costs must be freezeout.Costs, got {costs!r}. Measure them first.")
    wishes = {"saving": saving, "seconds": seconds, "t0": t0, "times": times}
    given = [name for name, value in wishes.items() if value is not None]
    if len(given) != 1:
        raise TypeError(
            f"give one of saving, seconds, t0 and times, got {' and '.join(given) or 'none'}. t0 "
            "and times ask for their saving, the others for a schedule that saves as much."
        )
    if spacing not in (*POWERS, "budget"):
        raise ValueError(
            f"spacing must be one of {', '.join((*POWERS, 'budget'))}, got {spacing!r}. "
            "It says how freeze times grow from the first layer to the last."
        )
    if spacing == "budget" and (t0 is not None or times is not None):
        raise TypeError(
            f"spacing='budget' takes no {given[0]}: its freeze times follow from the saving. Give "
            "saving or seconds."
        )
    if spacing != "budget" and weights is not None:
        raise TypeError(
            f"weights are for spacing='budget', got them with spacing={spacing!r}. Leave them out, "
            "or ask for a budget."
        )
    if saving is not None:
        check_fraction("saving", saving, "Write 0.25 for 25 %.", within="[0, 1)")
    if seconds is not None:
        hint = "It is the wanted time of all training steps together, such as 3600."
        check_number("seconds", seconds, hint, above=0.0)
    if max_freezes is not None:
        hint = "None sets no limit; t0=1 freezes nothing."
        check_whole("max_freezes", max_freezes, hint, least=1)
    check_fraction("least_t0", least_t0, "The paper goes to 0.1.")
