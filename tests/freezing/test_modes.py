"""Flags and modes of frozen layers, and that they come back."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from freezeout import Freezer, split_layers
from tests.contracts import differing, flags, make_net, modes, snapshot
from tests.freezing.steps import expected_flags, expected_modes, make


@pytest.mark.parametrize("depth", [0, 1, 2, 3])
def test_exactly_the_first_layers_freeze(depth: int) -> None:
    model, freezer = make(depth)
    assert freezer.depth == depth
    assert flags(model) == expected_flags(model, depth)
    assert modes(model) == expected_modes(model, depth)
    before = snapshot(make_net())
    assert differing(snapshot(model), before) == []
    freezer.unfreeze()
    assert freezer.depth == 0
    assert all(flags(model).values())
    assert all(modes(model).values())


def test_inference_mode_survives_every_call_of_train_and_eval() -> None:
    model, freezer = make(2)
    for call in (
        lambda: model.train(),
        lambda: model.eval().train(),
        lambda: model.blocks.train(),
        lambda: model.blocks[0].train(),
        lambda: model.blocks[0].norm.train(True),
        lambda: model.blocks[1].drop.train(),
    ):
        call()
        assert modes(model) == expected_modes(model, 2)
    assert model.train() is model
    assert model.blocks[0].train() is model.blocks[0]
    model.eval()
    assert not any(modes(model).values())
    freezer.unfreeze()
    assert not any(modes(model).values())
    freezer.set_depth(2)
    model.train()
    freezer.unfreeze()
    assert all(modes(model).values())
    with pytest.raises(ValueError, match="boolean"):
        make(1)[0].blocks[0].train("yes")


def test_modes_set_by_hand_come_back() -> None:
    model = make_net()
    model.blocks[0].norm.eval()
    freezer = Freezer(split_layers(model))
    freezer.set_depth(2)
    model.blocks[1].norm.eval()
    freezer.unfreeze()
    off = [name for name, training in modes(model).items() if not training]
    assert off == ["blocks.0.norm", "blocks.1.norm"]


class FixedNorm(nn.Module):
    """A block that keeps its normalisation in evaluation mode, as detection backbones do."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 4)
        self.norm = nn.BatchNorm1d(4)
        self.calls: list[bool] = []

    def train(self, mode: bool = True) -> FixedNorm:
        self.calls.append(mode)
        super().train(mode)
        self.norm.eval()
        return self

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(self.norm(self.linear(x)))


class Stubborn(nn.Linear):
    """Writes the flag of itself directly, whatever it is asked."""

    def train(self, mode: bool = True) -> Stubborn:
        self.training = True
        return self


def test_a_custom_train_method_is_still_called_and_has_its_way_after_unfreezing() -> None:
    model = nn.Sequential(FixedNorm(), FixedNorm(), nn.Linear(4, 2)).train()
    freezer = Freezer(split_layers(model, layers=["0", "1", "2"]))
    freezer.set_depth(1)
    model[0].calls.clear()
    model.eval()
    model.train()
    assert model[0].calls == [False, True]
    frozen = [name for name in modes(model) if name.startswith("0")]
    assert not any(modes(model)[name] for name in frozen)
    freezer.unfreeze()
    assert modes(model)["0"]
    assert modes(model)["0.linear"]
    assert not modes(model)["0.norm"]
    assert modes(model) == modes(nn.Sequential(FixedNorm(), FixedNorm(), nn.Linear(4, 2)).train())


def test_a_train_method_that_writes_flags_itself_does_not_thaw() -> None:
    model = nn.Sequential(Stubborn(4, 4), nn.Linear(4, 2))
    freezer = Freezer(split_layers(model))
    freezer.set_depth(1)
    model.train()
    assert [m.training for m in model] == [False, True]
    model.eval()
    assert [m.training for m in model] == [False, False]
    freezer.unfreeze()
    assert [m.training for m in model] == [True, False]


class Deaf(nn.Linear):
    """Keeps its mode, whatever it is asked."""

    def train(self, mode: bool = True) -> Deaf:
        return self


def test_a_train_method_that_does_nothing_finds_its_mode_again() -> None:
    model = nn.Sequential(Deaf(4, 4), nn.Linear(4, 2))
    freezer = Freezer(split_layers(model))
    freezer.set_depth(1)
    model.eval()
    model.train()
    assert [m.training for m in model] == [False, True]
    freezer.unfreeze()
    assert [m.training for m in model] == [True, True]


def test_a_train_attribute_of_the_instance_is_put_back() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 2))
    calls = []

    def own(mode: bool = True) -> nn.Module:
        calls.append(mode)
        return nn.Module.train(model[0], mode)

    model[0].__dict__["train"] = own
    freezer = Freezer(split_layers(model))
    freezer.set_depth(1)
    model.train()
    assert calls == [True]
    assert not model[0].training
    freezer.unfreeze()
    assert model[0].__dict__["train"] is own
    assert model[0].training
    assert "train" not in model[1].__dict__


def test_parameters_frozen_by_design_stay_so() -> None:
    model = make_net()
    model.blocks[0].norm.weight.requires_grad_(False)
    model.blocks[1].requires_grad_(False)
    before = flags(model)
    freezer = Freezer(split_layers(model))
    freezer.set_depth(2)
    assert [name for name, flag in flags(model).items() if flag] == ["head.weight", "head.bias"]
    freezer.unfreeze()
    assert flags(model) == before
    assert not all(before.values())


def test_flags_switched_while_frozen_are_the_users() -> None:
    model, freezer = make(1)
    model.requires_grad_(True)
    freezer.set_depth(0)
    assert all(flags(model).values())
    freezer.set_depth(1)
    model.requires_grad_(False)
    freezer.set_depth(0)
    assert not any(flags(model).values())


def test_refreezing_after_unfreezing_knows_new_designs() -> None:
    model, freezer = make(1)
    freezer.unfreeze()
    model.blocks[0].conv.requires_grad_(False)
    freezer.set_depth(1)
    freezer.unfreeze()
    assert [name for name, flag in flags(model).items() if not flag] == ["blocks.0.conv.weight"]


@pytest.mark.parametrize("depth", [4, -1])
def test_a_depth_out_of_range_is_refused_and_changes_nothing(depth: int) -> None:
    model, freezer = make(1)
    with pytest.raises(ValueError, match=rf"depth must lie in 0 to 3, got {depth}\."):
        freezer.set_depth(depth)
    assert freezer.depth == 1
    assert flags(model) == expected_flags(model, 1)


@pytest.mark.parametrize("depth", [1.0, True, "1", None])
def test_a_depth_must_be_a_whole_number(depth: Any) -> None:
    with pytest.raises(TypeError, match="whole number from 0 to 3"):
        make()[1].set_depth(depth)


class CustomDropout(nn.Module):
    """Functional dropout and a running buffer on a container that is opened."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(4, 4), nn.Linear(4, 4)
        self.drop = nn.Dropout()
        self.register_buffer("seen", torch.zeros(()))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.training:
            self.seen += 1
        return nn.functional.dropout(self.b(self.drop(self.a(x))), 0.5, self.training)


@pytest.mark.parametrize("example", [None, torch.ones(2, 4)])
def test_a_container_freezes_with_the_last_layer_in_it(example: torch.Tensor | None) -> None:
    model = nn.Sequential()
    model.add_module("enc", CustomDropout())
    model.add_module("head", nn.Linear(4, 1))
    layers = split_layers(model, example=example)
    assert layers.names == ("enc.a", "enc.b", "head")
    freezer = Freezer(layers)
    freezer.set_depth(1)
    model.train()
    assert model.enc.training
    model(torch.ones(2, 4))
    assert model.enc.seen == 1
    freezer.set_depth(2)
    model.train()
    first, second = model.enc(torch.ones(64, 4)), model.enc(torch.ones(64, 4))
    assert torch.equal(first, second)
    assert model.enc.seen == 1
    freezer.unfreeze()
    assert model.enc.training
