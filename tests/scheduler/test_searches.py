"""A run hardly ever searches all objects of the process: how often, and for what, is counted."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from typing import Any

import pytest
from torch.optim import SGD, Adam, Optimizer, lr_scheduler
from torch.optim.lr_scheduler import LRScheduler

from freezeout import FreezeOut
from freezeout.freezing import holders
from freezeout.wrappers import discovery
from tests.freezing.optimizers import SETTINGS, STEPS, Lookahead, loss_of, make_net, train


@pytest.fixture
def searches(monkeypatch: pytest.MonkeyPatch) -> list[type]:
    """What is searched for, in a process in which no other search was done."""
    found: list[type] = []

    class Counted(discovery._Search):
        def instances_of(self, kind: type[Any]) -> list[Any]:
            found.append(kind)
            return super().instances_of(kind)

    counted = Counted(*discovery._SEARCH._known[1])
    monkeypatch.setattr(discovery, "_SEARCH", counted)
    return found


@pytest.fixture
def whole(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[None]]:
    """Looks at every object of the process, while the garbage collector ages none."""
    found: list[None] = []
    plain = discovery._all_objects

    def all_objects() -> list[Any]:
        found.append(None)
        return plain()

    monkeypatch.setattr(discovery, "_all_objects", all_objects)
    gc.collect()
    gc.disable()
    yield found
    gc.enable()


@pytest.fixture
def only_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the optimizers of PyTorch and of trainers alone, as most processes do."""
    kinds = [SGD, Adam, type("Accelerated", (Optimizer,), {"__module__": "accelerate.optimizer"})]
    monkeypatch.setattr(holders, "subclasses_of", lambda kind: kinds)


@pytest.mark.parametrize("beside", [False, True])
@pytest.mark.usefixtures("only_torch")
def test_a_plain_run_searches_once(beside: bool, searches: list[type], whole: list[None]) -> None:
    model = make_net()
    optimizer = SGD(model.parameters(), lr=0.1, momentum=0.9)
    other = lr_scheduler.LambdaLR(optimizer, lambda n: 1.0) if beside else None
    scheduler = FreezeOut(optimizer, model, STEPS, **SETTINGS)
    train(model, optimizer, scheduler)
    assert scheduler.frozen == 2
    assert other is None or len(other.base_lrs) == len(optimizer.param_groups)
    assert searches == [LRScheduler]  # whose lists must fit the groups once these are split
    assert len(whole) == 1


@pytest.mark.usefixtures("only_torch")
def test_a_run_that_only_freezes_never_searches(searches: list[type]) -> None:
    model = make_net()
    optimizer = SGD(model.parameters(), lr=0.1)
    rates = lr_scheduler.LambdaLR(optimizer, lambda n: 1 / (n + 1))
    scheduler = FreezeOut(optimizer, model, STEPS, anneal=None, **SETTINGS)
    train(model, optimizer, scheduler, after=lambda n: rates.step())
    assert scheduler.frozen == 2
    assert searches == []


@pytest.mark.parametrize("given", ["outer", "inner"])
def test_wrappers_are_searched_for_twice(
    given: str, searches: list[type], whole: list[None]
) -> None:
    model = make_net()
    inner = SGD(model.parameters(), lr=0.1)
    outer = Lookahead(inner)
    scheduler = FreezeOut(outer if given == "outer" else inner, model, STEPS, **SETTINGS)
    assert searches == [Optimizer, LRScheduler]
    train(model, outer, scheduler, stop=STEPS // 2 - 1)
    assert (scheduler.frozen, len(searches)) == (0, 2)
    train(model, outer, scheduler, start=STEPS // 2 - 1)
    assert scheduler.frozen == 2
    assert searches == [Optimizer, LRScheduler, Optimizer]
    assert len(whole) == 1


@pytest.mark.usefixtures("only_torch")
def test_two_optimizers_search_once_for_each_split(searches: list[type], whole: list[None]) -> None:
    model = make_net()
    one, two = SGD(model[0].parameters(), lr=0.1), Adam(model[2:].parameters())
    first = FreezeOut(one, model, STEPS, **SETTINGS)
    second = FreezeOut(two, model, STEPS, together_with=first)
    for n in range(STEPS - 2):
        loss_of(model, n).backward()
        for optimizer, scheduler in ((one, first), (two, second)):
            optimizer.step()
            optimizer.zero_grad()
            scheduler.step()
    assert first.frozen == second.frozen == 2
    assert searches == [LRScheduler]  # the groups of the second alone are split
    assert len(whole) == 1


@pytest.mark.usefixtures("only_torch")
def test_what_no_optimizer_holds_is_searched_for_before_the_update_and_at_each_freeze(
    searches: list[type],
) -> None:
    model = make_net()
    optimizer = SGD(model[:3].parameters(), lr=0.1)
    head = Adam(model[4].parameters())
    scheduler = FreezeOut(optimizer, model, STEPS, **SETTINGS)
    train(model, optimizer, scheduler, after=lambda n: head.step())
    assert scheduler.frozen == 2
    assert searches == [LRScheduler] + [Optimizer] * 6  # once more without what is in circles
