"""`FreezeOut` and its control `RateOnly` hold one contract: either stands in a training loop."""

from __future__ import annotations

import copy
import inspect
import pickle
import warnings
from typing import Any

import pytest
import torch
from torch import nn
from torch.optim.lr_scheduler import LambdaLR, LRScheduler

from freezeout import CheckpointError, FreezeOut, FreezeOutError, Schedule, split_layers
from freezeout.reference import RateOnly
from tests.scheduler.loops import LINEAR, STEPS, loss_of, make_net

KINDS = [FreezeOut, RateOnly]
both = pytest.mark.parametrize("kind", KINDS)


def set_up(kind: Any, **arguments: Any) -> tuple[nn.Module, torch.optim.Optimizer, Any]:
    model = make_net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    if "schedule" not in arguments and not arguments.keys() & {"t0", "anneal", "times"}:
        arguments["schedule"] = LINEAR
    return model, optimizer, kind(optimizer, model, STEPS, **arguments)


def train(
    model: nn.Module, optimizer: Any, scheduler: Any, start: int = 0, stop: int = STEPS
) -> None:
    for step in range(start, stop):
        model.train()
        loss_of(model, step).backward()
        optimizer.step()
        optimizer.zero_grad()
        scheduler.step()


def rates(optimizer: torch.optim.Optimizer) -> list[float]:
    return [group["lr"] for group in optimizer.param_groups]


def test_both_take_the_same_arguments() -> None:
    one, two = (inspect.signature(kind).parameters for kind in KINDS)
    assert list(one) == list(two)
    assert [p.kind for p in one.values()] == [p.kind for p in two.values()]
    assert [p.default for p in one.values()] == [p.default for p in two.values()]


def test_both_have_the_same_public_names() -> None:
    one, two = (set_up(kind)[2] for kind in KINDS)
    assert {n for n in dir(one) if n[0] != "_"} == {n for n in dir(two) if n[0] != "_"}
    assert str(one).splitlines()[1].endswith("0.3000")
    assert str(two).splitlines()[1].endswith("never")


@both
def test_it_is_an_ordinary_scheduler_with_these_attributes(kind: Any) -> None:
    model, optimizer, scheduler = set_up(kind)
    assert isinstance(scheduler, LRScheduler)
    assert scheduler.optimizer is optimizer
    assert scheduler.schedule == LINEAR
    assert scheduler.layers.model is model
    assert scheduler.freezer.layers is scheduler.layers
    assert scheduler.total_steps == STEPS
    assert len(scheduler.freeze_times) == len(scheduler.freeze_steps) == len(scheduler.layers) == 4
    for name in ("frozen", "progress"):
        with pytest.raises(AttributeError):
            setattr(scheduler, name, 1)
    train(model, optimizer, scheduler, stop=6)
    assert (scheduler.progress, scheduler.last_epoch) == (0.5, 6)
    assert scheduler.frozen == scheduler.depth_at(6)
    assert scheduler.get_last_lr() == rates(optimizer)


def test_rates_and_weights_are_the_same_but_only_one_freezes() -> None:
    parts = [set_up(kind) for kind in KINDS]
    for step in range(STEPS):
        for model, optimizer, scheduler in parts:
            train(model, optimizer, scheduler, step, step + 1)
        (one, by_one, freezeout), (two, by_two, control) = parts
        assert rates(by_one) == rates(by_two)
        assert freezeout.factors_at(step) == control.factors_at(step)
        for a, b in zip(one.parameters(), two.parameters(), strict=True):
            assert torch.equal(a, b)
        assert control.frozen == control.depth_at(step) == 0
        assert all(p.requires_grad for p in two.parameters())
    assert freezeout.frozen == 3
    assert freezeout.freeze_steps == LINEAR.freeze_steps(4, STEPS)
    assert control.freeze_steps == (None,) * 4
    assert control.freeze_times == (1.0,) * 4


@both
def test_settings_one_by_one_are_those_of_a_schedule(kind: Any) -> None:
    _, first, scheduler = set_up(kind, t0=0.3, spacing="linear", scale_cap=2.0)
    assert scheduler.schedule == LINEAR
    assert rates(first) == rates(set_up(kind)[1])
    with pytest.raises(TypeError, match="already holds all settings, got t0 beside it"):
        set_up(kind, schedule=LINEAR, t0=0.5)
    with pytest.raises(TypeError, match=f"{kind.__name__} takes no argument 'spaceing'"):
        set_up(kind, t0=0.5, spaceing="linear")


@both
def test_layers_are_cut_by_names_or_example_or_taken(kind: Any) -> None:
    assert set_up(kind, layers=["0", ("1", "2"), "3"])[2].layers.names == ("0", "1", "3")
    assert len(set_up(kind, example=torch.randn(2, 6))[2].layers) == 4
    with pytest.raises(ValueError, match="cut from another Sequential"):
        set_up(kind, layers=split_layers(make_net()))


@both
def test_only_real_updates_count(kind: Any) -> None:
    _, optimizer, scheduler = set_up(kind)
    for _ in range(5):
        scheduler.step()
    assert scheduler.progress == 0.0
    optimizer.step()
    assert scheduler.progress == 1 / STEPS
    scheduler.step(6)
    assert scheduler.last_epoch == 6
    for bad in (-1, 1.0, True):
        with pytest.raises((TypeError, ValueError), match="epoch must be"):
            scheduler.step(bad)


@both
def test_what_is_done_stays_in_inference_mode(kind: Any) -> None:
    model, optimizer, scheduler = set_up(kind)
    train(model, optimizer, scheduler, stop=5)
    model.train()
    loss_of(model, 5)
    done = LINEAR.factors(5, STEPS, 4).count(0.0)
    assert done == 1
    assert not any(m.training for m in scheduler.layers[0].modules)
    assert all(m.training for m in scheduler.layers[1].modules)


@both
def test_it_resumes_to_the_same_bits(kind: Any) -> None:
    whole, optimizer, scheduler = set_up(kind)
    train(whole, optimizer, scheduler)
    half, optimizer, scheduler = set_up(kind)
    train(half, optimizer, scheduler, stop=6)
    model, other, again = set_up(kind)
    again.load_state_dict(copy.deepcopy(scheduler.state_dict()))
    model.load_state_dict(half.state_dict())
    other.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    assert again.progress == 0.5
    train(model, other, again, start=6)
    for a, b in zip(model.parameters(), whole.parameters(), strict=True):
        assert torch.equal(a, b)


@both
def test_it_refuses_a_state_of_other_settings_or_of_the_other_kind(kind: Any) -> None:
    _, _, scheduler = set_up(kind)
    (other,) = {*KINDS} - {kind}
    name = kind.__name__
    with pytest.raises(
        CheckpointError, match=f"t0=0.5 there but t0=0.3 here.* Construct {name} as"
    ):
        scheduler.load_state_dict(
            set_up(kind, t0=0.5, spacing="linear", scale_cap=2.0)[2].state_dict()
        )
    with pytest.raises(CheckpointError, match=f"it is not that of a {name} scheduler"):
        scheduler.load_state_dict(set_up(other)[2].state_dict())
    assert scheduler.progress == 0.0


@both
def test_it_cannot_be_copied_and_no_group_may_come_later(kind: Any) -> None:
    _, optimizer, scheduler = set_up(kind)
    with pytest.raises(TypeError, match=f"a {kind.__name__} scheduler cannot be copied"):
        copy.deepcopy(scheduler)
    optimizer.add_param_group({"params": [nn.Parameter(torch.zeros(1))]})
    with pytest.raises(FreezeOutError, match=f"but {kind.__name__} split it into 4"):
        scheduler.step()


@both
def test_it_says_when_training_goes_on_too_long(kind: Any) -> None:
    _, _, scheduler = set_up(kind)
    with pytest.warns(UserWarning, match=f"update {STEPS + 1} is beyond total_steps={STEPS}"):
        scheduler.step(STEPS + 1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        scheduler.step(STEPS + 2)  # once is enough


@both
def test_another_scheduler_sets_the_rates_without_a_curve(kind: Any) -> None:
    schedule = Schedule(t0=0.3, spacing="linear", anneal=None)
    model, optimizer, scheduler = set_up(kind, schedule=schedule)
    theirs = LambdaLR(optimizer, lambda step: 1.0 - step / STEPS)
    before: list[torch.Tensor] = []
    for step in range(STEPS):
        if step == 4:
            assert schedule.freeze_steps(4, STEPS)[0] == 4
            before = [p.detach().clone() for _, p in scheduler.layers[0].parameters]
        model.train()
        loss_of(model, step).backward()
        optimizer.step()
        optimizer.zero_grad()
        theirs.step()
        scheduler.step()
        assert rates(optimizer)[-1] == pytest.approx(0.1 * (1.0 - (step + 1) / STEPS))
    after = [p for _, p in scheduler.layers[0].parameters]
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))


@both
def test_two_optimizers_go_together(kind: Any) -> None:
    model = make_net()
    weights = torch.optim.SGD([p for p in model.parameters() if p.ndim == 2], lr=0.1)
    others = torch.optim.AdamW([p for p in model.parameters() if p.ndim != 2], lr=0.02)
    first = kind(weights, model, STEPS, schedule=LINEAR)
    second = kind(others, model, STEPS, together_with=first)
    assert second.schedule == LINEAR
    assert second.layers is first.layers
    assert second.freezer is first.freezer
    for step in range(5):
        model.train()
        loss_of(model, step).backward()
        for optimizer, scheduler in ((weights, first), (others, second)):
            optimizer.step()
            scheduler.step()
        model.zero_grad()
    assert first.get_last_lr()[0] == second.get_last_lr()[0] == 0.0
    model.train()
    loss_of(model, 5)
    assert not any(m.training for m in first.layers[0].modules)
    with pytest.raises(ValueError, match="two optimizers of one model must freeze alike"):
        kind(torch.optim.SGD(model.parameters(), lr=0.1), model, STEPS, together_with=first, t0=0.9)
    (other,) = {*KINDS} - {kind}
    with pytest.raises(TypeError, match=f"together_with must be the {other.__name__}"):
        other(torch.optim.SGD(model.parameters(), lr=0.1), model, STEPS, together_with=first)


def test_a_model_under_a_control_can_be_copied_and_saved_whole():
    net = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    scheduler = RateOnly(optimizer, net, total_steps=10, t0=0.5, spacing="linear")
    scheduler.step(9)
    twin = pickle.loads(pickle.dumps(net))
    for model in (twin, copy.deepcopy(net)):
        model.train()
        model(torch.zeros(1, 4))
        assert model[0].training  # nobody holds it
    net.train()
    net(torch.zeros(1, 4))
    assert not net[0].training
