"""Listeners, copies, saving and loading, and a second `Freezer` on one model."""

from __future__ import annotations

import copy
import io
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from freezeout import FreezeEvent, Freezer, FrozenPrefixWarning, split_layers, unfreeze
from tests.contracts import differing, flags, hooks, make_net, modes, snapshot
from tests.freezing.steps import backward, expected_flags, expected_modes, make

# Listeners


def test_listeners_are_told_of_every_change_in_order() -> None:
    _, freezer = make()
    told: list[FreezeEvent] = []
    also: list[FreezeEvent] = []
    remove = freezer.add_listener(told.append)
    freezer.add_listener(also.append)
    freezer.set_depth(2, step=7)
    freezer.set_depth(2, step=8)
    freezer.set_depth(1, step=9)
    freezer.unfreeze()
    assert told == [
        FreezeEvent(True, 0, "blocks.0", 7),
        FreezeEvent(True, 1, "blocks.1", 7),
        FreezeEvent(False, 1, "blocks.1", 9),
        FreezeEvent(False, 0, "blocks.0", None),
    ]
    remove()
    remove()
    freezer.set_depth(1)
    assert len(told) == 4
    assert also == [*told, FreezeEvent(True, 0, "blocks.0", None)]


def test_listeners_see_the_layer_already_changed() -> None:
    model, freezer = make()
    seen = []
    freezer.add_listener(lambda e: seen.append((freezer.depth, model.blocks[e.index].training)))
    freezer.set_depth(2)
    freezer.set_depth(1)
    assert seen == [(1, False), (2, False), (1, True)]


def test_a_listener_may_remove_itself() -> None:
    _, freezer = make()
    seen = []

    def once(event: FreezeEvent) -> None:
        seen.append(event.index)
        remove()

    remove = freezer.add_listener(once)
    others: list[int] = []
    freezer.add_listener(lambda event: others.append(event.index))
    freezer.set_depth(2)
    assert seen == [0]
    assert others == [0, 1]


@settings(max_examples=60)
@given(st.lists(st.one_of(st.integers(0, 3), st.sampled_from(["train", "eval"])), max_size=8))
def test_where_one_ends_does_not_depend_on_the_way(path: list[int | str]) -> None:
    model, freezer = make()
    events: list[FreezeEvent] = []
    freezer.add_listener(events.append)
    depth, mode, expected = 0, True, []
    for n, move in enumerate(path):
        if isinstance(move, str):
            mode = move == "train"
            model.train(mode)
            continue
        freezer.set_depth(move, step=n)
        told = len(events)
        freezer.set_depth(move, step=n)
        assert len(events) == told
        expected += [(True, i) for i in range(depth, move)]
        expected += [(False, i) for i in reversed(range(move, depth))]
        depth = move
    assert [(e.frozen, e.index) for e in events] == expected
    assert flags(model) == expected_flags(model, depth)
    assert modes(model) == expected_modes(model, depth, mode)
    backward(model)
    assert hooks(model) == 0
    freezer.unfreeze()
    assert all(flags(model).values())
    assert set(modes(model).values()) == {mode}
    traces = {key for m in model.modules() for key in m.__dict__ if "freezeout" in key}
    assert traces == set()
    assert all("train" not in m.__dict__ for m in model.modules())


# Copies, saving and loading


def through_a_file(model: nn.Module) -> nn.Module:
    file = io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    loaded: nn.Module = torch.load(file, weights_only=False)
    return loaded


@pytest.mark.parametrize("pending", [True, False])
@pytest.mark.parametrize("duplicate", [copy.deepcopy, through_a_file])
def test_a_copy_is_frozen_and_independent(
    duplicate: Callable[[nn.Module], nn.Module], pending: bool
) -> None:
    model = make_net()
    optimizer = torch.optim.Adam(model.parameters())
    freezer = Freezer(split_layers(model), optimizer)
    freezer.set_depth(2)
    if not pending:
        backward(model)
    twin: Any = duplicate(model)
    assert differing(snapshot(model), snapshot(twin)) == []
    twin.train()
    assert flags(twin) == expected_flags(model, 2)
    assert modes(twin) == expected_modes(model, 2)
    backward(twin)
    assert freezer.verified is not pending
    assert twin.blocks[0].train.__dict__["module"] is twin.blocks[0]

    unfreeze(twin)
    assert all(flags(twin).values())
    assert all(modes(twin).values())
    assert hooks(twin) == 0
    assert flags(model) == expected_flags(model, 2)
    assert modes(model) == expected_modes(model, 2)

    freezer.unfreeze()
    Freezer(split_layers(twin)).set_depth(1)
    assert flags(twin) == expected_flags(twin, 1)
    assert all(flags(model).values())


@pytest.mark.parametrize("pending", [True, False])
def test_neither_freezer_nor_optimizer_are_dragged_into_a_pickle(pending: bool) -> None:
    model = make_net()
    freezer = Freezer(split_layers(model), torch.optim.Adam(model.parameters()))
    freezer.add_listener(lambda event: None)  # would not pickle
    freezer.set_depth(2)
    if not pending:
        backward(model)
    data = pickle.dumps(model)
    assert b"torch.optim" not in data
    assert b"Freezer" not in data
    assert (b"freezeout.freezing.hooks" in data) is pending
    assert b"StayInEval" in data


def test_the_models_state_has_the_usual_keys_and_loads_strictly() -> None:
    model, _ = make(2)
    assert list(model.state_dict()) == list(make_net().state_dict())
    other, _ = make()
    torch.manual_seed(3)
    other.blocks[0].conv.reset_parameters()
    assert differing(snapshot(other), snapshot(model)) == ["blocks.0.conv.weight"]
    assert not any(model.load_state_dict(other.state_dict(), strict=True))
    assert differing(snapshot(other), snapshot(model)) == []
    assert flags(model) == expected_flags(model, 2)
    assert not any(other.load_state_dict(model.state_dict(), strict=True))
    assert all(flags(other).values())
    assert all(modes(other).values())


def test_a_new_freezer_starts_from_nothing_frozen() -> None:
    model, _ = make(3)
    with pytest.warns(FrozenPrefixWarning, match="frozen learn again: 'blocks.0.conv.weight'") as w:
        again = Freezer(split_layers(model))
    assert len(w) == 1
    assert again.depth == 0
    assert all(flags(model).values())
    assert all(modes(model).values())


def test_a_pending_check_of_an_earlier_freezer_is_forgotten() -> None:
    model, _ = make(2, strict=True)
    assert hooks(model) > 0
    unfreeze(model)
    Freezer(split_layers(model))
    assert hooks(model) == 0
    backward(model)
    assert model.blocks[0].conv.weight.grad is not None


def test_unfreeze_leaves_other_models_alone() -> None:
    model = make_net()
    model.blocks[0].requires_grad_(False)
    model.blocks[1].eval()
    model.head.register_forward_hook(lambda *args: None)
    before = (flags(model), modes(model), hooks(model))
    unfreeze(model)
    assert (flags(model), modes(model), hooks(model)) == before
    assert before[2] == 1


def test_averages_of_weights_keep_averaging() -> None:
    model, freezer = make()
    average = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.5))
    average.update_parameters(model)
    with torch.no_grad():
        for p in model.parameters():
            p += 1.0
    freezer.set_depth(2)
    for _ in range(40):
        average.update_parameters(model)
    for p, q in zip(model.parameters(), average.module.parameters(), strict=True):
        assert torch.allclose(p, q, atol=1e-5)
        assert q.requires_grad
    assert all(modes(average).values())

    late = AveragedModel(model)
    assert modes(late.module.train()) == expected_modes(model, 2)
    unfreeze(late)
    assert all(modes(late).values())
    assert modes(model) == expected_modes(model, 2)
