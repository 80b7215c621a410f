"""Schedulers that are not stepped: told at the first update that shows it."""

from __future__ import annotations

import warnings
from typing import Any

import pytest

from freezeout import FreezeOut
from tests.contracts import STEPS, train
from tests.scheduler.steps import LINEAR, group_rates, momentum, set_up, update


class TakesRates:
    """A wrapper of another framework: it asks for rates, sets them itself, and never steps."""

    def __init__(self, optimizer: Any, scheduler: Any) -> None:
        self.optimizer, self.scheduler = optimizer, scheduler

    def step(self) -> None:
        rates = self.scheduler.get_lr()
        for group, rate in zip(self.optimizer.param_groups, rates, strict=True):
            group["lr"] = rate


def test_rates_that_are_only_taken_are_told_at_the_next_update() -> None:
    model, optimizer, scheduler = set_up(momentum)
    wrapper = TakesRates(optimizer, scheduler)
    train(model, optimizer, [wrapper], stop=1)
    assert group_rates(optimizer) == [0.1 * f for f in scheduler.factors_at(1)]
    with pytest.warns(UserWarning, match=r"taken from get_lr\(\), and step\(\) was not called"):
        train(model, optimizer, [wrapper], start=1, stop=2)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        train(model, optimizer, [wrapper], start=2, stop=6)  # said once
        scheduler.step()  # and what was taken is no change by hand
    assert scheduler.base_lrs == [0.1] * 4
    assert scheduler.frozen == 1


@pytest.mark.parametrize("per", [1, 3, 6])
def test_asking_for_rates_alone_is_no_alarm(per: int) -> None:
    """A log of the rates at every update, in a loop that steps once in a while."""
    model, optimizer, scheduler = set_up(momentum)
    for n in range(STEPS):
        update(model, optimizer, n)
        assert len(scheduler.get_lr()) == 4
        if n % per == per - 1:
            scheduler.step()
    assert scheduler.frozen == 3


@pytest.mark.parametrize("options", [{"schedule": LINEAR}, {"t0": 0.8}, {"t0": 0.3}])
@pytest.mark.parametrize("anneal", [None, "cosine"])
def test_a_freeze_that_is_overdue_is_told_if_step_is_never_called(
    options: dict[str, Any], anneal: Any
) -> None:
    if "schedule" in options:
        options = {"t0": 0.3, "spacing": "linear"}
    model, optimizer, scheduler = set_up(momentum, **options, anneal=anneal)
    first = max(scheduler.freeze_steps[0] or 0, STEPS // 2)  # two epochs, stepped at their end
    train(model, optimizer, stop=first)
    with pytest.warns(UserWarning, match=rf"{first + 1} of 12 .*step\(\) was never called"):
        update(model, optimizer)
    train(model, optimizer, start=first, stop=STEPS)  # said once


def test_no_alarm_where_it_is_stepped_twice_or_nothing_is_to_freeze() -> None:
    model, optimizer, scheduler = set_up(momentum)
    for n in range(2):
        train(model, optimizer, [], start=6 * n, stop=6 * n + 6)
        scheduler.step()
    assert scheduler.frozen == 3
    model, optimizer, scheduler = set_up(momentum, t0=1.0)
    train(model, optimizer)
    state = set_up(momentum)[2].state_dict() | {"last_epoch": 8}
    model, optimizer, scheduler = set_up(momentum)
    scheduler.load_state_dict(state)
    update(model, optimizer)  # a resume is followed by an update first
    assert scheduler.frozen == 2


@pytest.mark.parametrize("anneal", [None, "cosine"])
def test_one_that_another_has_followed_is_no_alarm(anneal: Any) -> None:
    model, optimizer, first = set_up(momentum)
    second = FreezeOut(optimizer, model, STEPS, t0=0.3, spacing="linear", anneal=anneal)
    train(model, optimizer, [second])
    assert (first.progress, second.frozen) == (1.0, 3)
