"""An update counts once, however many classes take part in its step."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from freezeout import FreezeOut
from tests.scheduler.loops import STEPS, loss_of, make_net


class Child(torch.optim.Adam):
    def step(self, closure: Any = None) -> Any:
        return super().step(closure)


class Grandchild(Child):
    fails = False

    def step(self, closure: Any = None) -> Any:
        if self.fails:
            raise ArithmeticError
        return super().step(closure)


class StepsTwice(torch.optim.SGD):
    """Two updates of its parent in one of its own: what a training loop sees is one."""

    def step(self, closure: Any = None) -> Any:
        super().step()
        return super().step(closure)


class Around(torch.optim.Optimizer):
    """Steps another optimizer, which counts."""

    def __init__(self, optimizer: torch.optim.Optimizer) -> None:
        super().__init__(optimizer.param_groups, {})
        self.optimizer = optimizer
        self.param_groups = optimizer.param_groups

    def step(self, closure: Any = None) -> Any:
        return self.optimizer.step(closure)


@pytest.fixture(autouse=True)
def _parents_are_in_use() -> None:
    """Their steps have hooks from when one of them is made."""
    for kind in (torch.optim.Adam, torch.optim.SGD, Child, Grandchild):
        kind([nn.Parameter(torch.zeros(1))], lr=0.1)


def updates(optimizer: Any, model: nn.Module, count: int) -> int:
    scheduler = FreezeOut(optimizer, model, STEPS)
    for n in range(count):
        loss_of(model, n).backward()
        optimizer.step()
        optimizer.zero_grad()
        scheduler.step()
    return round(scheduler.progress * STEPS)


@pytest.mark.parametrize("kind", [torch.optim.Adam, Child, Grandchild, StepsTwice])
@pytest.mark.parametrize("wrapped", [False, True])
def test_an_update_counts_once(kind: type[torch.optim.Optimizer], wrapped: bool) -> None:
    model = make_net()
    optimizer = kind(model.parameters(), lr=0.01)
    assert updates(Around(optimizer) if wrapped else optimizer, model, 3) == 3


def test_a_step_that_failed_does_not_hide_the_next() -> None:
    model = make_net()
    optimizer = Grandchild(model.parameters(), lr=0.01)
    scheduler = FreezeOut(optimizer, model, STEPS)
    loss_of(model, 0).backward()
    optimizer.fails = True
    with pytest.raises(ArithmeticError):
        optimizer.step()
    scheduler.step()
    assert scheduler.progress == 0
    optimizer.fails = False
    optimizer.step()
    scheduler.step()
    assert scheduler.progress == 1 / STEPS


def test_one_optimizer_stepped_by_anothers_step_counts_for_itself() -> None:
    models = make_net(), make_net()
    inner = torch.optim.SGD(models[0].parameters(), lr=0.1)

    class Both(torch.optim.SGD):
        def step(self, closure: Any = None) -> Any:
            inner.step()
            return super().step(closure)

    outer = Both(models[1].parameters(), lr=0.1)
    schedulers = FreezeOut(inner, models[0], STEPS), FreezeOut(outer, models[1], STEPS)
    for model in models:
        loss_of(model, 0).backward()
    outer.step()
    for scheduler in schedulers:
        scheduler.step()
        assert scheduler.progress == 1 / STEPS
