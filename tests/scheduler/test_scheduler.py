"""Making a `FreezeOut`: refusals, tied weights, listeners, words."""

from __future__ import annotations

import copy
import pickle
import warnings
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from freezeout import (
    FreezeEvent,
    FreezeOut,
    FreezeOutError,
    Freezer,
    FrozenPrefixWarning,
    PrefixError,
    split_layers,
    unfreeze,
)
from tests.contracts import STEPS, flags, make_net, train
from tests.scheduler.steps import LINEAR, set_up, update

# Refusals at construction


def test_wrappers_are_looked_through() -> None:
    model = make_net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    scheduler = FreezeOut(optimizer, torch.compile(model, backend="eager"), STEPS)
    assert scheduler.layers.model is model
    FreezeOut(optimizer, nn.DataParallel(model), STEPS, layers=split_layers(model))


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"total_steps": 90.0}, TypeError, "total_steps must be a whole number"),
        ({"total_steps": 0}, ValueError, "total_steps must be at least 1, got 0"),
        ({"t0": 1.5}, ValueError, r"t0 must lie in \(0, 1\], got 1\.5"),
        ({"spacing": "quartic"}, ValueError, "spacing must be one of"),
        ({"anneal": "cos"}, ValueError, "anneal must be 'cosine'"),
        ({"times": (0.5, 1.0)}, ValueError, "2 freeze times, but the model was cut into 4"),
        ({"warmup_steps": 8}, ValueError, "warmup_steps must not exceed 7"),
        ({"schedule": LINEAR, "t0": 0.5}, TypeError, "got t0 beside it"),
        ({"schedule": LINEAR, "anneal": None}, TypeError, "got anneal beside it"),
        ({"schedule": {"t0": 0.5}}, TypeError, "must be a freezeout.Schedule"),
        ({"optimizer": "SGD"}, TypeError, "optimizer must be a torch.optim.Optimizer, got str"),
        ({"model": "net"}, TypeError, "model must be a torch.nn.Module, got str"),
        ({"layers": split_layers(make_net())}, ValueError, "cut from another ConvNet"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_refusals_leave_everything_as_it_was(
    options: dict[str, Any], error: type[Exception], message: str
) -> None:
    model = make_net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    group = dict(optimizer.param_groups[0])
    earlier = Freezer(split_layers(model))
    earlier.set_depth(1)
    before = flags(model)
    with pytest.raises(error, match=message):
        FreezeOut(**{"optimizer": optimizer, "model": model, "total_steps": STEPS} | options)
    assert optimizer.param_groups == [group]
    assert flags(model) == before
    assert "step" not in vars(optimizer)  # nor wrapped


def test_an_optimizer_of_another_model_is_refused() -> None:
    optimizer = torch.optim.SGD(make_net().parameters(), lr=0.1)
    with pytest.raises(ValueError, match="holds no parameter of the ConvNet given as model"):
        FreezeOut(optimizer, make_net(), STEPS)
    assert len(optimizer.param_groups) == 1


# Tied weights


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.embed = nn.Embedding(5, 4)
        self.middle = nn.Linear(4, 4)
        self.head = nn.Linear(4, 5, bias=False)
        self.head.weight = self.embed.weight

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(torch.tanh(self.middle(self.embed(x))))


def test_tied_embeddings_are_announced_at_construction() -> None:
    model = Tied()
    names = ["embed", "middle", "head"]
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    tokens = torch.tensor([[1, 2]])
    with pytest.warns(FrozenPrefixWarning, match="tied weight 'embed.weight' = 'head.weight'") as w:
        scheduler = FreezeOut(optimizer, model, STEPS, schedule=LINEAR, example=tokens)
    assert [warning.filename for warning in w] == [__file__]
    assert scheduler.layers.names[-1] == names[-1]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FrozenPrefixWarning)  # the check of the boundary repeats it
        for _ in range(STEPS):
            model(tokens).square().sum().backward()
            optimizer.step()
            optimizer.zero_grad()
            scheduler.step()
    assert scheduler.frozen == len(scheduler.layers) - 1
    assert model.embed.weight.requires_grad  # learns with its last user
    unfreeze(model)
    FreezeOut(torch.optim.SGD(model.parameters(), lr=0.1), model, STEPS, t0=1.0)  # nothing to say


def test_strict_is_passed_on_and_layers_may_be_named() -> None:
    model = make_net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    names = ["blocks.1", "blocks.0", "blocks.2", "head"]
    scheduler = FreezeOut(optimizer, model, STEPS, schedule=LINEAR, layers=names, strict=True)
    assert scheduler.layers.names == tuple(names)
    scheduler.step(4)
    with pytest.raises(PrefixError, match=r"'blocks\.1'\) is frozen"):
        update(model, optimizer)


# Listeners and words


def test_listeners_hear_of_every_freeze_with_its_step() -> None:
    model, optimizer, scheduler = set_up()
    told: list[FreezeEvent] = []
    remove = scheduler.freezer.add_listener(told.append)
    train(model, optimizer, [scheduler], stop=8)
    assert told == [
        FreezeEvent(True, 0, "blocks.0", 4),
        FreezeEvent(True, 1, "blocks.1", 7),
    ]
    remove()
    train(model, optimizer, [scheduler], start=8)
    assert len(told) == 2
    assert scheduler.frozen == 3


def test_printing_shows_the_plan() -> None:
    scheduler = set_up()[2]
    lines = str(scheduler).splitlines()
    assert lines[0].split() == ["layer", "name", "parameters", "freezes", "at"]
    assert [line.split()[-1] for line in lines[1:]] == ["0.3000", "0.5333", "0.7667", "never"]
    assert scheduler.table() == str(scheduler)


def test_a_group_added_afterwards_is_refused() -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    scheduler = FreezeOut(optimizer, model, 10)
    optimizer.add_param_group({"params": [nn.Parameter(torch.zeros(2))]})
    with pytest.raises(FreezeOutError, match="has 3 parameter groups, but FreezeOut split it into"):
        scheduler.step(1)


def test_it_cannot_be_copied_or_pickled_and_says_what_to_do() -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2))
    scheduler = FreezeOut(torch.optim.SGD(model.parameters(), lr=0.1), model, 10)
    for attempt in (copy.deepcopy, pickle.dumps):
        with pytest.raises(TypeError, match=r"cannot be copied or pickled.*Save state_dict\(\)"):
            attempt(scheduler)


def test_numpy_numbers_are_numbers() -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    scheduler = FreezeOut(
        optimizer, model, np.int64(10), t0=np.float32(0.5), warmup_steps=np.int8(1)
    )
    state = scheduler.state_dict()
    assert type(state["total_steps"]) is int
    assert type(state["schedule"]["t0"]) is float
    assert type(state["schedule"]["warmup_steps"]) is int
    with pytest.raises(TypeError, match=r"times must be a sequence of numbers"):
        FreezeOut(optimizer, model, 10, times=0.5)  # type: ignore[arg-type]
