"""Another scheduler of the same optimizer: told at the first step, or none of our business."""

from __future__ import annotations

import gc
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch.optim import lr_scheduler

from freezeout import FreezeOut, Schedule
from freezeout.reference import RateOnly
from tests.contracts import STEPS, differing, make_net, snapshot, train
from tests.scheduler import steps
from tests.scheduler.steps import LINEAR, go_on, group_rates, momentum, set_up, update

Make = Callable[[torch.optim.Optimizer], Any]

OTHERS: dict[str, Make] = {
    "CosineAnnealingLR": lambda o: lr_scheduler.CosineAnnealingLR(o, T_max=STEPS),
    "LambdaLR": lambda o: lr_scheduler.LambdaLR(o, lambda n: 1 / (n + 1)),
    "MultiplicativeLR": lambda o: lr_scheduler.MultiplicativeLR(o, lambda n: 0.9),
    "StepLR": lambda o: lr_scheduler.StepLR(o, 1),
    "LinearLR": lambda o: lr_scheduler.LinearLR(o, 0.1, 1.0, 5),
    "ExponentialLR": lambda o: lr_scheduler.ExponentialLR(o, 0.9),
    "PolynomialLR": lambda o: lr_scheduler.PolynomialLR(o, STEPS),
    "CosineAnnealingWarmRestarts": lambda o: lr_scheduler.CosineAnnealingWarmRestarts(o, 3),
    "CyclicLR": lambda o: lr_scheduler.CyclicLR(o, 0.01, 0.1, 3, cycle_momentum=False),
    "OneCycleLR": lambda o: lr_scheduler.OneCycleLR(o, 0.1, STEPS, cycle_momentum=False),
}


@pytest.mark.parametrize("order", ["before", "after"])
@pytest.mark.parametrize("first", [True, False], ids=["steps first", "steps last"])
@pytest.mark.parametrize("name", OTHERS)
def test_one_that_is_stepped_too_is_told_by_name_and_has_no_say(
    name: str, first: bool, order: str
) -> None:
    """Whether it was made before (its lists are those of other groups then) or after."""
    model = make_net()
    optimizer = momentum(model.parameters())
    if order == "before":
        other = OTHERS[name](optimizer)
        for group in optimizer.param_groups:
            group["initial_lr"] = 0.1  # OneCycleLR and CyclicLR begin elsewhere
    scheduler = FreezeOut(optimizer, model, STEPS, schedule=LINEAR)
    if order == "after":
        other = OTHERS[name](optimizer)
    with pytest.warns(UserWarning, match=f"^{name} sets the rates of the same optimizer") as seen:
        go_on(model, optimizer, *((other, scheduler) if first else (scheduler, other)), stop=2)
    assert "anneal=None" in str(seen[0].message)
    assert [w.filename for w in seen] == [steps.__file__]  # where step() is called
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # said once
        go_on(model, optimizer, other, scheduler, stop=3)
    factors = scheduler.factors_at(5)
    assert group_rates(optimizer) == [0.1 * factor for factor in factors]
    assert [float(base) for base in scheduler.base_lrs] == [0.1] * 4


@pytest.mark.parametrize("chained", [True, False])
def test_one_in_a_chain_with_it_is_told(chained: bool) -> None:
    model, optimizer, scheduler = set_up(momentum)
    step = lr_scheduler.StepLR(optimizer, 1)
    other = lr_scheduler.ExponentialLR(optimizer, 0.9)
    parts = [step, other]
    both = [scheduler, lr_scheduler.ChainedScheduler(parts)] if chained else [scheduler, *parts]
    chain = lr_scheduler.ChainedScheduler(both)
    name = r"ChainedScheduler \(of StepLR and ExponentialLR\)" if chained else "ExponentialLR"
    with pytest.warns(UserWarning, match=f"^{name} sets the rates"):
        train(model, optimizer, [chain], stop=2)


@pytest.mark.parametrize("name", OTHERS)
def test_one_that_nobody_steps_is_no_alarm(name: str) -> None:
    plain = set_up(momentum)
    train(*plain[:2], [plain[2]])
    model = make_net()
    optimizer = momentum(model.parameters())
    other = OTHERS[name](optimizer)
    for group in optimizer.param_groups:
        group["initial_lr"] = 0.1
    scheduler = FreezeOut(optimizer, model, STEPS, schedule=LINEAR)
    train(model, optimizer, [scheduler])
    assert other.optimizer is optimizer
    assert differing(snapshot(model), snapshot(plain[0])) == []


@pytest.mark.parametrize("name", OTHERS)
def test_one_made_before_can_still_step_with_groups_of_its_own(name: str) -> None:
    """Two groups become eight; each part goes on as the group that it comes from."""

    def build() -> tuple[nn.Module, torch.optim.Optimizer, Any]:
        model = make_net()
        weights = [p for p in model.parameters() if p.ndim > 1]
        others = [p for p in model.parameters() if p.ndim == 1]
        groups = [{"params": weights, "lr": 0.2}, {"params": others}]
        optimizer = torch.optim.SGD(groups, lr=0.1)
        return model, optimizer, OTHERS[name](optimizer)

    model, optimizer, other = build()
    control = RateOnly(optimizer, model, STEPS, t0=1.0, spacing="linear", anneal=None)
    twin, plain, alone = build()
    train(model, optimizer, [other, control], stop=5)
    train(twin, plain, [alone], stop=5)
    weights, biases = (group["lr"] for group in plain.param_groups)
    assert group_rates(optimizer) == [weights] * 4 + [biases] * 4
    assert weights != biases or name in ("CyclicLR", "OneCycleLR")
    assert differing(snapshot(model), snapshot(twin)) == []


def test_without_rates_all_are_welcome() -> None:
    for name, make in OTHERS.items():
        model = make_net()
        optimizer = momentum(model.parameters())
        before = make(optimizer) if name != "OneCycleLR" else None
        scheduler = FreezeOut(optimizer, model, STEPS, schedule=Schedule(t0=0.3, anneal=None))
        after = make(optimizer)
        stepped = [s for s in (before, scheduler, after) if s is not None]
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            train(model, optimizer, stepped, stop=8)
        assert scheduler.frozen == scheduler.depth_at(8) > 0


def test_one_of_another_optimizer_is_no_alarm() -> None:
    model, optimizer, scheduler = set_up(momentum)
    elsewhere = torch.optim.SGD([nn.Parameter(torch.ones(1))], lr=0.1)
    other = lr_scheduler.StepLR(elsewhere, 1)
    for n in range(4):
        update(model, optimizer, n)
        elsewhere.step()
        other.step()
        optimizer.param_groups[-1]["lr"] *= 0.5 if n == 2 else 1.0  # so that it looks
        scheduler.step()
    assert scheduler.base_lrs[-1] == pytest.approx(0.05)


def test_an_earlier_freezeout_that_is_stepped_too_is_told() -> None:
    model, optimizer, first = set_up(momentum)
    second = FreezeOut(optimizer, model, STEPS, t0=0.5)
    with pytest.warns(UserWarning, match="^FreezeOut sets the rates of the same optimizer"):
        go_on(model, optimizer, second, first, stop=3)


def test_it_is_found_also_where_objects_are_frozen_for_the_collector() -> None:
    model, optimizer, scheduler = set_up(momentum)
    other = OTHERS["CosineAnnealingLR"](optimizer)
    gc.freeze()
    try:
        with pytest.warns(UserWarning, match="^CosineAnnealingLR sets"):
            train(model, optimizer, [other, scheduler], stop=2)
    finally:
        gc.unfreeze()
