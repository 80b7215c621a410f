"""No update reaches a frozen parameter, whatever an optimizer does with what has no gradient."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.optim import SGD

from freezeout import FreezeOut, Freezer, MovementError, MovementWarning, split_layers
from freezeout.freezing.step_guard import guard_of
from tests.contracts import bits
from tests.freezing.optimizers import (
    SETTINGS,
    STEPS,
    DecayAll,
    DecayRemembered,
    Lists,
    LookaheadInLists,
    Stateful,
    ZeroFilling,
    bits_at_the_freeze,
    copies,
    loss_of,
    make_net,
    moved,
    train,
)


class ZeroFillingLists(Lists):
    """Make zeros of missing gradients, decay everything, and keep a list beside the groups."""

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        super().step(closure)
        for group, base in zip(self.param_groups, self.base_lrs, strict=True):
            for p in group["params"]:
                p.mul_(1 - 0.01 * base)


CASES = {
    ZeroFilling: "makes zeros of missing gradients",
    DecayAll: "moves what has no gradient",
    Stateful: "makes state for what has no gradient",
    ZeroFillingLists: "moves what has no gradient",
}


def members(optimizer: torch.optim.Optimizer) -> list[tuple[int, list[int]]]:
    return [(id(group), [id(p) for p in group["params"]]) for group in optimizer.param_groups]


@pytest.mark.parametrize("anneal", ["cosine", None])
@pytest.mark.parametrize("kind", CASES)
def test_frozen_parameters_are_kept_away_from_optimizers_that_touch_them(
    kind: Any, anneal: Any
) -> None:
    model = make_net()
    optimizer = kind(model.parameters(), lr=0.02)
    scheduler = FreezeOut(optimizer, model, STEPS, anneal=anneal, **SETTINGS)
    at = bits_at_the_freeze(scheduler)
    before, groups = copies(model[4].parameters()), members(optimizer)
    with pytest.warns(MovementWarning) as caught:
        train(model, optimizer, scheduler)
    assert len(caught) == 1
    said = str(caught[0].message)
    assert said.startswith(f"a step of {kind.__name__} reached frozen parameters ('0.weight'")
    if anneal is not None or kind is not ZeroFilling:
        assert CASES[kind].split()[-1] in said
    assert (scheduler.frozen, moved(model, at)) == (2, [])
    assert all(p.grad is None and p not in optimizer.state for p in model[:3].parameters())
    assert members(optimizer) == groups
    assert not any(map(torch.equal, before, model[4].parameters()))


def test_ordinary_optimizers_are_tried_once_and_then_left_alone() -> None:
    model = make_net()
    optimizer = SGD(model.parameters(), lr=0.1, momentum=0.9)
    scheduler = FreezeOut(optimizer, model, STEPS, **SETTINGS)
    train(model, optimizer, scheduler, stop=20)
    guard = guard_of(optimizer)
    assert scheduler.frozen == 1
    assert (len(guard._trial), guard._copies) == (2, {})  # the next step is the trial
    train(model, optimizer, scheduler, start=20, stop=21)
    assert (guard._trial, guard._copies, guard.hides) == ({}, {}, False)


def test_a_skipped_step_is_no_trial() -> None:
    model = make_net()
    optimizer = ZeroFilling(model.parameters())
    freezer = Freezer(split_layers(model), optimizer)
    freezer.set_depth(1)
    optimizer.found_inf = torch.ones(())  # type: ignore[attr-defined]
    kept = copies(model[0].parameters())
    optimizer.step()  # says that it was skipped, so that nothing is concluded from it
    with torch.no_grad():
        for p, old in zip(model[0].parameters(), kept, strict=True):
            p.copy_(old)
    del optimizer.found_inf  # type: ignore[attr-defined]
    with pytest.warns(MovementWarning, match="a step of ZeroFilling reached"):
        optimizer.step()
    assert all(map(torch.equal, kept, model[0].parameters()))


@pytest.mark.parametrize("through", ["wrapper", "memory"])
def test_what_cannot_be_kept_away_is_put_back_after_every_update(through: str) -> None:
    model = make_net()
    optimizer: Any = DecayRemembered(model.parameters(), lr=0.1)
    if through == "wrapper":
        optimizer = LookaheadInLists(SGD(model.parameters(), lr=0.1), every=7)
    scheduler = FreezeOut(optimizer, model, STEPS, **SETTINGS)
    at = bits_at_the_freeze(scheduler)
    seen: list[str] = []
    with pytest.warns(MovementWarning):
        train(model, optimizer, scheduler, after=lambda n: seen.extend(moved(model, at)))
    assert seen == []
    assert scheduler.frozen == 2
    assert guard_of(scheduler.optimizer).pins


def test_strict_raises_and_leaves_everything_in_place() -> None:
    model = make_net()
    optimizer = ZeroFilling(model.parameters())
    scheduler = FreezeOut(optimizer, model, STEPS, strict=True, anneal=None, **SETTINGS)
    at, groups = bits_at_the_freeze(scheduler), members(optimizer)
    with pytest.raises(MovementError, match="a step of ZeroFilling reached frozen parameters"):
        train(model, optimizer, scheduler)
    assert scheduler.frozen == 1
    assert moved(model, at) == []
    assert members(optimizer) == groups


def test_groups_come_back_after_a_step_that_failed() -> None:
    model = make_net()
    optimizer = ZeroFilling(model.parameters())
    scheduler = FreezeOut(optimizer, model, STEPS, **SETTINGS)
    groups = members(optimizer)
    with pytest.warns(MovementWarning):
        train(model, optimizer, scheduler, stop=25)

    def fail(*_: Any) -> None:
        assert len(optimizer.param_groups) == 2  # the frozen group is out of sight
        raise RuntimeError("a hook of the user")

    handle = optimizer.register_step_pre_hook(fail)
    for come_back in (optimizer.state_dict, scheduler.step, lambda: None):
        with pytest.raises(RuntimeError, match="of the user"):
            optimizer.step()
        come_back()
        if come_back is optimizer.state_dict or come_back == scheduler.step:
            assert members(optimizer) == groups
    handle.remove()
    train(model, optimizer, scheduler, start=25)
    assert (scheduler.frozen, members(optimizer)) == (2, groups)


def test_gradients_that_others_fill_in_are_dropped() -> None:
    model = make_net()
    optimizer = SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=0.1)
    scheduler = FreezeOut(optimizer, model, STEPS, anneal=None, **SETTINGS)
    at = bits_at_the_freeze(scheduler)
    for n in range(STEPS - 2):
        loss_of(model, n).backward()
        for p in model.parameters():  # as some exchanges of gradients do
            p.grad = torch.zeros_like(p) if p.grad is None else p.grad
        optimizer.step()
        optimizer.zero_grad()
        scheduler.step()
    assert (scheduler.frozen, moved(model, at)) == (2, [])
    assert not any(p in optimizer.state for p in model[:3].parameters())
    assert model[4].weight in optimizer.state


def test_what_learns_again_is_seen_again() -> None:
    model = make_net()
    optimizer = ZeroFilling(model.parameters())
    freezer = Freezer(split_layers(model), optimizer)
    freezer.set_depth(2)
    with pytest.warns(MovementWarning):
        train(model, optimizer, stop=2)
    kept = copies(model[:3].parameters())
    train(model, optimizer, stop=2)
    assert all(map(torch.equal, kept, model[:3].parameters()))
    freezer.set_depth(1)
    train(model, optimizer, stop=2)
    assert all(map(torch.equal, kept[:2], model[0].parameters()))
    assert not any(map(torch.equal, kept[2:], model[2].parameters()))


def test_the_optimizer_outlives_the_freezer_and_stays_away() -> None:
    model = make_net()
    optimizer = DecayAll(model.parameters(), lr=0.1)
    freezer = Freezer(split_layers(model), optimizer)
    freezer.set_depth(1)
    with pytest.warns(MovementWarning):
        train(model, optimizer, stop=2)
    del freezer
    kept = copies(model.parameters())
    train(model, optimizer, stop=2)
    assert all(map(torch.equal, kept[:2], model[0].parameters()))
    assert not any(map(torch.equal, kept[2:], list(model.parameters())[2:]))


def test_a_model_that_moves_to_another_type_during_the_trial() -> None:
    model = make_net()
    outer = LookaheadInLists(SGD(model.parameters(), lr=0.1), every=7)
    scheduler = FreezeOut(outer, model, STEPS, **SETTINGS)
    train(model, outer, scheduler, stop=20)
    loss_of(model, 20).backward()
    outer.step()
    model.to(torch.float64)
    scheduler.freezer.after_update()
    assert scheduler.frozen == 1
    assert model[0].weight.dtype is torch.float64
    assert guard_of(outer.optimizer)._trial


@pytest.mark.parametrize("kind", [DecayAll, DecayRemembered, Stateful])
def test_a_step_within_a_step_counts_once(kind: Any) -> None:
    SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.1)  # its class runs hooks from now on
    model = make_net()
    optimizer = kind(model.parameters(), lr=0.1)
    scheduler = FreezeOut(optimizer, model, STEPS, **SETTINGS)
    train(model, optimizer, scheduler, stop=5)
    assert scheduler.progress == 5 / STEPS
    assert scheduler.frozen == 0


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
@pytest.mark.parametrize("kind", [DecayAll, DecayRemembered, ZeroFillingLists])
@pytest.mark.parametrize("looks", [False, True])
def test_a_first_step_that_is_interrupted_leaves_nothing_moved(
    kind: Any, error: type[BaseException], looks: bool
) -> None:
    class Interrupted(kind):  # type: ignore[misc]
        breaks = False

        def step(self, closure: Any = None) -> None:
            super().step(closure)
            if self.breaks:
                self.breaks = False
                raise error

    model = make_net()
    optimizer = Interrupted(model.parameters(), lr=0.02)
    freezer = Freezer(split_layers(model), optimizer)
    train(model, optimizer, stop=3)
    freezer.set_depth(1)
    frozen, learning = bits(model[0].weight), bits(model[2].weight)
    optimizer.breaks = True
    with pytest.raises(error):
        train(model, optimizer, stop=1)
    assert not torch.equal(frozen, bits(model[0].weight))
    if looks:
        freezer.look()
        assert torch.equal(frozen, bits(model[0].weight))
    with pytest.warns(MovementWarning, match="a step of Interrupted reached frozen") as caught:
        train(model, optimizer, stop=5)
    assert len(caught) == 1
    assert torch.equal(frozen, bits(model[0].weight))
    assert not torch.equal(learning, bits(model[2].weight))
