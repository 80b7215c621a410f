"""Saving and loading the state of `FreezeOut`."""

from __future__ import annotations

import copy
import itertools
from typing import Any

import pytest
import torch
from torch import nn
from torch.optim import lr_scheduler

from freezeout import CheckpointError, FreezeEvent, FreezeOut
from tests.contracts import differing, flags, modes, snapshot, train
from tests.scheduler.steps import LINEAR, group_rates, momentum, set_up


def test_the_state_is_plain_and_loading_restores_everything() -> None:
    model, optimizer, scheduler = set_up()
    scheduler.step(8)
    state = scheduler.state_dict()
    assert state["last_epoch"] == 8
    kept = copy.deepcopy(state)
    other, its_optimizer, fresh = set_up()
    told: list[FreezeEvent] = []
    fresh.freezer.add_listener(told.append)
    fresh.load_state_dict(state)
    assert state == kept
    assert [(e.frozen, e.index, e.step) for e in told] == [(True, 0, 8), (True, 1, 8)]
    assert fresh.state_dict() == state
    assert fresh.last_epoch == 8
    assert group_rates(its_optimizer) == group_rates(optimizer) == fresh.get_last_lr()
    assert flags(other) == flags(model)
    assert modes(other) == modes(model)
    scheduler.step(2)
    fresh.load_state_dict(scheduler.state_dict())
    assert fresh.frozen == 0
    assert all(flags(other).values())


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
def test_the_order_of_loading_does_not_matter(order: tuple[int, ...]) -> None:
    whole = set_up(momentum)
    train(*whole[:2], [whole[2]])
    parts = set_up(momentum)
    train(*parts[:2], [parts[2]], stop=5)
    states = [copy.deepcopy(part.state_dict()) for part in parts]
    fresh = set_up(momentum)
    train(*fresh[:2], [fresh[2]], stop=9)  # further on than what is loaded
    for i in order:
        fresh[i].load_state_dict(states[i])
    assert fresh[2].frozen == 1
    train(*fresh[:2], [fresh[2]], start=5)
    assert differing(snapshot(fresh[0]), snapshot(whole[0])) == []


OTHERS: dict[str, tuple[dict[str, Any], str]] = {
    "t0": ({"t0": 0.5, "spacing": "linear"}, r"t0=0\.3 there but t0=0\.5 here"),
    "spacing": ({"t0": 0.3}, "spacing='linear' there but spacing='cubic' here"),
    "scaled": ({"t0": 0.3, "spacing": "linear", "scaled": False}, "scaled=True there"),
    "anneal": ({"t0": 0.3, "spacing": "linear", "anneal": "linear"}, "anneal='cosine' there"),
    "warm-up": ({"t0": 0.3, "spacing": "linear", "warmup_steps": 1}, "warmup_steps=0 there"),
    "layers": (
        {"schedule": LINEAR, "layers": ["blocks.0", ("blocks.1", "blocks.2"), "head"]},
        "4 layers there but 3 here",
    ),
}


@pytest.mark.parametrize("name", OTHERS)
def test_a_state_of_other_settings_is_refused_and_nothing_changes(name: str) -> None:
    _, _, scheduler = set_up()
    scheduler.step(8)
    options, message = OTHERS[name]
    model, optimizer, other = set_up(**options)
    _refuses(model, optimizer, other, scheduler.state_dict(), message)


def test_a_state_of_another_length_or_rate_is_refused_and_nothing_changes() -> None:
    model, optimizer, scheduler = set_up()
    state = scheduler.state_dict() | {"last_epoch": 8}
    _refuses(model, optimizer, scheduler, state | {"total_steps": 13}, "total_steps=13 there but")
    for lrs, message in {
        (0.1, 0.1, 0.2, 0.3): r"settings: base_lrs\[2\]=0\.2 there but base_lrs\[2\]=0\.1 here\.",
        (0.1, 0.1, 0.2): r"settings: 3 base_lrs there but 4 here\.",
    }.items():
        _refuses(model, optimizer, scheduler, state | {"base_lrs": [*lrs]}, message)
    _refuses(
        model, optimizer, scheduler, state | {"base_lrs": None}, "no base_lrs there but 4 here"
    )
    renamed = state | {"layers": ["blocks.0", "blocks.one", "blocks.2", "head"]}
    message = r"settings: layers\[1\]='blocks.one' there but layers\[1\]='blocks.1' here\."
    _refuses(model, optimizer, scheduler, renamed, message)
    scheduler.load_state_dict(state)
    assert scheduler.frozen == 2


def test_a_state_of_another_kind_of_scheduler_is_refused_and_nothing_changes() -> None:
    model, optimizer, scheduler = set_up()
    cosine = lr_scheduler.CosineAnnealingLR(torch.optim.SGD(model.parameters(), lr=0.1), T_max=3)
    _refuses(model, optimizer, scheduler, cosine.state_dict(), "not that of a FreezeOut scheduler")
    _refuses(model, optimizer, scheduler, {}, "has no base_lrs, last_epoch, layers")


def _refuses(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    scheduler: FreezeOut,
    state: dict[str, Any],
    message: str,
) -> None:
    def now() -> Any:
        return scheduler.state_dict(), group_rates(optimizer), flags(model), modes(model)

    before = now()
    with pytest.raises(CheckpointError, match=message):
        scheduler.load_state_dict(state)
    assert now() == before
    assert scheduler.last_epoch == 0


@pytest.mark.parametrize(
    "damage",
    [{"last_epoch": -3}, {"last_epoch": "7"}, {"last_epoch": True}, {"schedule": None}, None],
)
def test_a_damaged_state_is_refused_and_nothing_changes(damage: dict[str, Any] | None) -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2))
    scheduler = FreezeOut(torch.optim.SGD(model.parameters(), lr=0.1), model, 10)
    scheduler.step(8)
    before = scheduler.state_dict(), scheduler.get_last_lr(), scheduler.frozen
    state: Any = 3 if damage is None else {**scheduler.state_dict(), **damage}
    with pytest.raises(CheckpointError):
        scheduler.load_state_dict(state)
    assert (scheduler.state_dict(), scheduler.get_last_lr(), scheduler.frozen) == before
