"""The base rates of an optimizer's groups, and what others do to rates between two steps.

A rate is base rate times factor. Where a rate is found changed, one of these things has happened:

- somebody changed it for good (a line of the training loop, ``ReduceLROnPlateau``): the base rate
  follows, by the factor of the change, or to the rate itself where all layers were given one;
- another scheduler sets the rates as well: that is told, and nothing follows;
- the optimizer's state was loaded, which puts other groups in place: no change by hand at all.
"""

from __future__ import annotations

import math
import warnings
import weakref
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from freezeout.scheduler.last_set import LastSet, check_rate, remember
from freezeout.scheduler.others import describe, has_turn, is_plateau, schedulers_of, setter_of

__all__ = ["BaseRates"]

_IN_A_ROW = 3
"""Rates that change at so many updates in a row are set by a scheduler, whatever it is."""


class BaseRates:
    """Set the rates of an optimizer's groups, and follow changes that others make for good.

    Args:
        optimizer: Its groups are split by layer already.
        ours: The scheduler, which is named in warnings and is none of the others.
    """

    def __init__(self, optimizer: Optimizer, ours: LRScheduler) -> None:
        self.last = LastSet()
        remember(optimizer, self.last)
        self._scheduler = weakref.ref(ours)
        self._factors: Sequence[float] = ()
        self._changed_at = -1
        self._in_a_row = 0
        self._before_the_row: list[float] = []
        self._gave_rates = False
        self._told: set[str] = set()
        self._known: list[weakref.ref[LRScheduler]] = []

    @property
    def _ours(self) -> LRScheduler:
        scheduler = self._scheduler()
        assert scheduler is not None, "only the scheduler itself calls"
        return scheduler

    def write(self, factors: Sequence[float]) -> list[float | torch.Tensor] | None:
        """Set the rates, base rates times factors; return them if they are plain numbers.

        Args:
            factors: One for each group.
        """
        ours = self._ours
        self._factors = factors
        rates = [base * factor for base, factor in zip(ours.base_lrs, factors, strict=True)]
        return rates if self.last.write(ours.optimizer.param_groups, rates) else None

    def are_ours(self) -> bool:
        """Return whether all rates are those that were set."""
        return not self.last.changed_rates(self._ours.optimizer.param_groups)

    def is_others_turn(self) -> bool:
        """Return whether a ``SequentialLR`` has gone on to another scheduler."""
        return not self.are_ours() and not has_turn(self._ours, schedulers_of(self._ours.optimizer))

    def follow(self, coming: Callable[[], Sequence[float | torch.Tensor]], updates: int) -> None:
        """Change base rates as others changed the rates, if that was meant for good.

        Args:
            coming: Returns the rates about to be set; one that is there already was taken from us.
            updates: Optimizer updates done.

        Raises:
            TypeError: If a rate was set to something that is no number.
            ValueError: If it was set to a number that is no rate.
        """
        groups = self._ours.optimizer.param_groups
        if self.last.is_untouched(groups):
            return
        initial = self.last.changed_initial_rates(groups)
        changed = self.last.changed_rates(groups)
        if not changed and not initial:
            return
        for i in changed:
            check_rate(f'param_groups[{i}]["lr"]', groups[i]["lr"])
        ours = coming() if changed else []
        changed = [i for i in changed if not _is_rounded(groups[i]["lr"], float(ours[i]))]
        if not changed and not initial:
            return
        rates = [float(group["lr"]) for group in groups]
        other = self._setter_of(rates, updates)
        if other is not None and not is_plateau(other):
            self._tell_of(other)
        else:
            self._follow_initial(initial)
            by_hand = [i for i in changed if i not in initial]
            self._follow_rates(by_hand, updates, single=other is not None)
        self.last.note_initial(groups)  # as they are now: a later change is another one

    def _setter_of(self, rates: Sequence[float], updates: int) -> LRScheduler | None:
        """Return the scheduler that set the rates, after a search only if no known one did."""
        ours = self._ours
        known = [other for ref in self._known if (other := ref()) is not None]
        found = setter_of(rates, known, ours)
        series_goes_on = self._in_a_row >= _IN_A_ROW and updates <= self._changed_at + 1
        if found is None and not series_goes_on:
            known = schedulers_of(ours.optimizer)
            self._known = [weakref.ref(other) for other in known]
            found = setter_of(rates, known, ours)
        return found

    def _follow_initial(self, changed: Sequence[int]) -> None:
        for i in changed:
            given = self._ours.optimizer.param_groups[i].get("initial_lr")
            if given is not None:
                check_rate(f'param_groups[{i}]["initial_lr"]', given)
                self._set_base(i, float(given))

    def _follow_rates(self, changed: Sequence[int], updates: int, *, single: bool) -> None:
        groups = self._ours.optimizer.param_groups
        given = {float(groups[i]["lr"]) for i in changed} if self._gave_rates else ()
        learning = [  # with those that were given just the rate that they had
            i
            for i, factor in enumerate(self._factors)
            if factor > 0.0 and (i in changed or float(groups[i]["lr"]) in given)
        ]
        if not learning:
            if changed:
                self._tell_of_frozen(changed[0])
            return
        if not single and self._is_series(updates):
            self._tell_of_series(learning[0], float(groups[learning[0]]["lr"]))
            self.restore(self._before_the_row)
            return
        before = [float(base) for base in self._ours.base_lrs]
        if not single and self._is_base_rate(learning, before):
            self._gave_rates = True
            self._tell_of_base_rate(learning[0], float(groups[learning[0]]["lr"]))
            self._take_as_base(learning, before)
            return
        for i in learning:
            self._set_base(i, float(groups[i]["lr"]) / self._factors[i])
        self._follow_where_done(before)

    def _is_base_rate(self, changed: Sequence[int], bases: Sequence[float]) -> bool:
        """Return whether layers were given a base rate, rather than their rates multiplied.

        Their factors differ, and the new rates do not show it. Where factors are the same, both is
        possible: then a rate that is the base rate is one, and what all were given once before.
        """
        rates = [float(self._ours.optimizer.param_groups[i]["lr"]) for i in changed]
        before = [bases[i] for i in changed]
        if not all(rates):
            return False  # zero is the same either way
        if _is_multiple(rates, [bases[i] * self._factors[i] for i in changed]):
            are_all = len(changed) == sum(factor > 0.0 for factor in self._factors)
            return (self._gave_rates and are_all) or _is_close(rates, before)
        return _is_close(rates, rates[:1] * len(rates)) or _is_multiple(rates, before)

    def _take_as_base(self, changed: Sequence[int], bases: Sequence[float]) -> None:
        """Make the rates base rates; what all that learns was given is for all groups."""
        groups = self._ours.optimizer.param_groups
        learning = [i for i, factor in enumerate(self._factors) if factor > 0.0]
        rates = [float(groups[i]["lr"]) for i in learning]
        before = [bases[i] for i in learning]
        if _is_close(rates, rates[:1] * len(rates)):
            self.restore(rates[:1] * len(groups))
        elif _is_multiple(rates, before):
            self.restore([base * rates[0] / before[0] for base in bases])
        else:
            for i in changed:
                self._set_base(i, float(groups[i]["lr"]))

    def _follow_where_done(self, before: Sequence[float]) -> None:
        """Change the base rates of layers that are done as those of all others were changed.

        Their rates are 0 whatever one multiplies them by, but a next run begins at the base rate.
        """
        now = [float(base) for base in self._ours.base_lrs]
        ratios = [
            b / a for a, b, f in zip(before, now, self._factors, strict=True) if f > 0.0 and a > 0.0
        ]
        if ratios and all(math.isclose(ratio, ratios[0], rel_tol=1e-5) for ratio in ratios):
            for i, factor in enumerate(self._factors):
                if factor == 0.0:
                    self._set_base(i, before[i] * ratios[0])

    def _is_series(self, updates: int) -> bool:
        """Return whether rates have changed at several updates in a row, this one included."""
        if updates != self._changed_at:
            follows = updates == self._changed_at + 1 and self._changed_at >= 0
            self._in_a_row = self._in_a_row + 1 if follows else 1
            self._changed_at = updates
            if not follows:
                self._before_the_row = [float(base) for base in self._ours.base_lrs]
        return self._in_a_row >= _IN_A_ROW

    def restore(self, bases: Sequence[float]) -> None:
        """Set all base rates, as a checkpoint has them."""
        for i, base in enumerate(bases):
            self._set_base(i, base)

    def _set_base(self, index: int, rate: float) -> None:
        bases: list[Any] = self._ours.base_lrs
        group = self._ours.optimizer.param_groups[index]
        bases[index] = _filled(bases[index], rate)
        group["initial_lr"] = _filled(group.get("initial_lr"), rate)

    def _tell(self, key: str, message: str, *, stacklevel: int = 6) -> None:
        if key not in self._told:
            self._told.add(key)
            warnings.warn(message, UserWarning, stacklevel=stacklevel)

    def _tell_of(self, other: LRScheduler) -> None:
        self._tell(
            describe(other),
            f"{describe(other)} sets the rates of the same optimizer, so that updates were done at "
            f"rates that {_name(self._ours)} did not set. One of the two is enough: drop "
            f"{type(other).__name__} (warmup_steps= gives a warm-up, anneal= another curve), or "
            f"keep its rates with {_name(self._ours)}(anneal=None), which only freezes.",
            stacklevel=5,
        )

    def _tell_of_series(self, index: int, rate: float) -> None:
        self._tell(
            "series",
            f"the rates were set from outside at {_IN_A_ROW} updates in a row (group {index} to "
            f"{rate:g}), so something else schedules them too. {_name(self._ours)} goes on with "
            "its own base rates: drop the other (warmup_steps= gives a warm-up, a callable as "
            f"anneal= any curve), or keep its rates with {_name(self._ours)}(anneal=None), which "
            "only freezes.",
        )

    def _tell_of_base_rate(self, index: int, rate: float) -> None:
        self._tell(
            "base rate",
            f"rates were set from outside without regard to each layer's factor (group {index} to "
            f"{rate:g}). {_name(self._ours)} takes what was set as the base rate, and goes on with "
            'each layer\'s own schedule from there. Multiply the rates (group["lr"] *= 0.5) to '
            f"change them by a factor, or keep rates of your own with {_name(self._ours)}"
            "(anneal=None), which only freezes.",
        )

    def _tell_of_frozen(self, index: int) -> None:
        self._tell(
            "frozen",
            f"the rate of parameter group {index} was set from outside, but its layer is done and "
            "learns no more, so the rate stays 0. Set only rates that are above 0; to train the "
            f"layer again, make a new {_name(self._ours)}.",
        )


def _is_close(rates: Sequence[float], others: Sequence[float]) -> bool:
    return all(math.isclose(a, b, rel_tol=1e-6) for a, b in zip(rates, others, strict=True))


def _is_multiple(rates: Sequence[float], others: Sequence[float]) -> bool:
    """Return whether rates are others times one factor."""
    return all(others) and _is_close(rates, [rates[0] / others[0] * other for other in others])


def _filled(kept: Any, rate: float) -> Any:
    return kept.fill_(rate) if isinstance(kept, torch.Tensor) else rate


def _is_rounded(value: Any, rate: float) -> bool:
    """Return whether a value is a rate, rounded if it is a tensor."""
    if isinstance(value, torch.Tensor):
        rate = torch.tensor(rate, dtype=value.dtype).item()
    return float(value) == rate


def _name(scheduler: LRScheduler) -> str:
    return type(scheduler).__name__
