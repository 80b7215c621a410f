"""Optimizers inside optimizers: counted, released, or refused in words."""

from __future__ import annotations

import gc
from typing import Any

import pytest
import torch
from torch.optim import SGD, Adam, Optimizer

from freezeout import FreezeOut
from freezeout.freezing import unwrap_optimizer
from freezeout.freezing.holders import holders_of, keeps_tensors, other_holders
from tests.freezing.optimizers import (
    SETTINGS,
    STEPS,
    Lookahead,
    LookaheadInLists,
    Private,
    TwoSteps,
    bits_at_the_freeze,
    loss_of,
    make_net,
    moved,
    train,
)


class Hidden(Optimizer):
    """Hold the optimizer that steps under a name that nobody knows."""

    def __init__(self, inner: Optimizer) -> None:
        self.engine = inner
        self.param_groups, self.state = inner.param_groups, inner.state
        self.defaults = inner.defaults

    def zero_grad(self, set_to_none: bool = True) -> None:
        self.engine.zero_grad(set_to_none)

    def step(self, closure: Any = None) -> Any:  # type: ignore[override]
        return self.engine.step()


class Handmade(Optimizer):
    """Step by itself, and never call what makes an optimizer."""

    def __init__(self, params: Any) -> None:
        self.param_groups = [{"params": list(params), "lr": 0.1}]
        self.state, self.defaults = {}, {}  # type: ignore[assignment]

    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        return None


@pytest.mark.parametrize("wrap", [Private, Hidden, Lookahead, lambda o: Private(Hidden(o))])
def test_updates_of_the_optimizer_inside_count(wrap: Any) -> None:
    model = make_net()
    inner = SGD(model.parameters(), lr=0.1, momentum=0.9)
    outer = wrap(inner)
    scheduler = FreezeOut(outer, model, STEPS, **SETTINGS)
    assert scheduler.optimizer is inner is unwrap_optimizer(outer)
    at = bits_at_the_freeze(scheduler)
    head = model[4].weight.detach().clone()
    train(model, outer, scheduler)
    assert scheduler.progress == (STEPS - 2) / STEPS
    assert (scheduler.frozen, moved(model, at)) == (2, [])
    assert not torch.equal(head, model[4].weight)


def test_two_step_optimizers_are_counted_at_their_base() -> None:
    model = make_net()
    optimizer = TwoSteps(model.parameters(), lr=0.1)
    scheduler = FreezeOut(optimizer, model, STEPS, **SETTINGS)
    at = bits_at_the_freeze(scheduler)
    for n in range(STEPS - 2):
        loss_of(model, n).backward()
        optimizer.first_step()
        optimizer.zero_grad()
        loss_of(model, n).backward()
        optimizer.second_step()
        optimizer.zero_grad()
        scheduler.step()
    assert scheduler.progress == (STEPS - 2) / STEPS
    assert (scheduler.frozen, moved(model, at)) == (2, [])
    assert not [p for p in model[:3].parameters() if p in optimizer.state]  # released, too
    assert model[4].weight in optimizer.state


def test_an_optimizer_that_nobody_made_is_refused_in_words() -> None:
    model = make_net()
    optimizer = Handmade(model.parameters())
    with pytest.raises(TypeError, match=r"Handmade did not call it.*Pass the optimizer inside it"):
        FreezeOut(optimizer, model, STEPS)
    assert len(optimizer.param_groups) == 1
    assert all(p.requires_grad for p in model.parameters())


def test_an_optimizer_of_other_parameters_is_no_wrapped_one() -> None:
    model, other = make_net(), make_net()
    optimizer = SGD(model.parameters(), lr=0.1)
    optimizer.optimizer = SGD(other.parameters(), lr=0.1)  # type: ignore[attr-defined]
    assert unwrap_optimizer(optimizer) is optimizer
    optimizer.optimizer = SGD(model.parameters(), lr=0.1)  # type: ignore[attr-defined]
    assert unwrap_optimizer(optimizer) is optimizer.optimizer  # type: ignore[attr-defined]


@pytest.mark.parametrize("kind", [Lookahead, LookaheadInLists])
@pytest.mark.parametrize("given", ["outer", "inner"])
def test_slow_weights_do_not_pull_frozen_layers(
    kind: type[Lookahead], given: str, recwarn: pytest.WarningsRecorder
) -> None:
    model = make_net()
    inner = SGD(model.parameters(), lr=0.1, momentum=0.9)
    outer = kind(inner, every=6)
    scheduler = FreezeOut(outer if given == "outer" else inner, model, STEPS, **SETTINGS)
    at = bits_at_the_freeze(scheduler)
    head = model[4].weight.detach().clone()
    train(model, outer, scheduler)
    assert scheduler.frozen == 2
    assert moved(model, at) == []
    assert not torch.equal(head, model[4].weight)
    said = [str(w.message) for w in recwarn]
    if kind is Lookahead:  # its state was released
        assert said == []
    else:
        assert len(said) == 1
        assert "after the step of SGD was done: '0.weight', '0.bias'. What stands" in said[0]


def test_wrappers_that_come_later_are_found_at_the_freeze() -> None:
    model = make_net()
    inner = SGD(model.parameters(), lr=0.1, momentum=0.9)
    scheduler = FreezeOut(inner, model, STEPS, **SETTINGS)
    outer = Lookahead(inner)
    at = bits_at_the_freeze(scheduler)
    train(model, outer, scheduler)
    assert outer in holders_of(inner)
    assert (scheduler.frozen, moved(model, at)) == (2, [])


def test_only_wrappers_with_tensors_of_their_own_are_watched_for_long() -> None:
    model = make_net()
    inner = SGD(model.parameters(), lr=0.1, momentum=0.9)
    private = Private(inner)
    FreezeOut(private, model, STEPS, **SETTINGS)
    train(model, private, stop=1)
    assert holders_of(inner) == [inner, private]
    assert not keeps_tensors(inner)  # the state is the optimizer's own
    outer = LookaheadInLists(inner)
    assert other_holders([inner], []) == []
    assert holders_of(inner) == [inner, private, outer]
    assert keeps_tensors(inner)


def test_leftovers_in_circles_hold_nothing() -> None:
    model = make_net()
    ours = SGD(model[4].parameters(), lr=0.1)
    kept = Adam(model[2].parameters(), lr=0.1)
    gone = Adam(model[0].parameters(), lr=0.1)
    gone.myself = gone  # type: ignore[attr-defined]
    gc.disable()
    try:
        del gone
        assert other_holders([ours], model.parameters()) == [kept]
    finally:
        gc.enable()


class Delegating(Optimizer):
    """Pass everything on to an optimizer that it does not have yet when its arguments are wrong."""

    def __init__(self, inner: Optimizer) -> None:
        self.check()
        self.engine = inner

    def check(self) -> None:
        raise ValueError("a wrong setting")

    def __getattr__(self, name: str) -> Any:
        return getattr(self.engine, name)


class NotSetUp(SGD):
    """Have properties that can be read later alone."""

    @property
    def base_optimizer(self) -> Any:
        raise RuntimeError("not set up yet")


class ByValue(SGD):
    """Compare by value, which takes the hash away."""

    def __eq__(self, other: object) -> bool:
        return isinstance(other, SGD) and self.defaults == other.defaults


class ByValueWithHash(ByValue):
    """Compare by value, and have a hash."""

    def __hash__(self) -> int:
        return 1


class Slots:
    """Have no room for a weak reference."""

    __slots__ = ("optimizer",)

    def __init__(self, optimizer: Optimizer) -> None:
        self.optimizer = optimizer


def runs(optimizer: Any, model: torch.nn.Module) -> None:
    scheduler = FreezeOut(optimizer, model, STEPS, **SETTINGS)
    at = bits_at_the_freeze(scheduler)
    train(model, getattr(optimizer, "optimizer", optimizer), scheduler)
    assert scheduler.frozen == 2
    assert moved(model, at) == []


def test_what_is_half_made_elsewhere_is_no_concern() -> None:
    with pytest.raises(ValueError, match="wrong setting") as kept:  # its frames keep it alive
        Delegating(SGD(make_net().parameters(), lr=0.1))
    model = make_net()
    runs(SGD(model.parameters(), lr=0.02), model)
    assert kept.value.__traceback__ is not None


def test_properties_that_raise_are_no_concern() -> None:
    other = NotSetUp(make_net().parameters(), lr=0.1)
    model = make_net()
    runs(SGD(model.parameters(), lr=0.02), model)
    [found] = other_holders([], other.param_groups[0]["params"])
    assert found is other


def test_wrappers_without_weak_references_are_looked_through() -> None:
    model = make_net()
    runs(Slots(SGD(model.parameters(), lr=0.02)), model)
    assert not model[0].weight.requires_grad


@pytest.mark.parametrize("kind", [ByValue, ByValueWithHash])
def test_optimizers_that_compare_by_value_are_refused_in_words(kind: Any) -> None:
    model = make_net()
    with pytest.raises(TypeError, match=f"equal to itself alone, but {kind.__name__} compares"):
        FreezeOut(kind(model.parameters(), lr=0.1), model, STEPS)


def test_another_optimizer_that_compares_by_value_is_found() -> None:
    model = make_net()
    other = ByValue(model[0].parameters(), lr=0.1)
    scheduler = FreezeOut(SGD(model[2:].parameters(), lr=0.02), model, STEPS, **SETTINGS)
    account = scheduler.freezer.account()
    assert account.names("held elsewhere") == ("0.weight", "0.bias")
    assert other_holders(scheduler.freezer.optimizers, model[0].parameters()) == [other]
