"""Parts with nothing to learn join those that have something."""

import pytest
import torch
from torch import nn

from freezeout import Freezer, split_layers


def with_kept(*kept):
    """Six layers, of which some require no gradient."""
    torch.manual_seed(0)
    model = nn.Sequential(*(nn.Linear(4, 4) for _ in range(6)))
    for i in kept:
        model[i].requires_grad_(False)
    return model


@pytest.mark.parametrize(
    ("kept", "names", "named"),
    [
        ((), "0 1 2 3 4 5", "0 1 2 3 4 5"),
        ((0, 1), "2 3 4 5", "0 1 2 3 4 5"),
        ((2, 4), "0 1 3 5", "0 1 2 3 4 5"),
        ((4, 5), "0 1 2 3", "0 1 2 3"),
        ((0, 3, 5), "1 2 4", "0 1 2 3 4"),
        ((0, 1, 2, 3, 4), "0 1 2 3 4 5", "0 1 2 3 4 5"),  # a head alone: one layer would be none
        ((1, 2, 3, 4, 5), "0 1 2 3 4 5", "0 1 2 3 4 5"),
        (range(6), "0 1 2 3 4 5", "0 1 2 3 4 5"),
    ],
)
def test_what_has_nothing_to_learn_joins_what_has(kept, names, named):
    model = with_kept(*kept)
    layers = split_layers(model)
    assert " ".join(layers.names) == names
    assert " ".join(split_layers(model, layers=[str(i) for i in range(6)]).names) == named
    assert [layer.index for layer in layers] == list(range(len(layers)))
    held = [name for layer in layers for name, _ in layer.parameters]
    assert sorted(held) == sorted(name for name, _ in model.named_parameters())
    assert {id(m) for layer in layers for m in layer.modules} == {id(m) for m in model}


def test_what_an_earlier_run_froze_still_has_something_to_learn():
    model = with_kept()
    Freezer(split_layers(model)).set_depth(3)
    assert split_layers(model).names == ("0", "1", "2", "3", "4", "5")


def tower_and_trunk():
    """A tower that is kept, with norms, before two blocks and a head that learn."""
    tower = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Dropout(), nn.Linear(4, 4))
    blocks = [nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.ReLU()) for _ in range(2)]
    return nn.ModuleDict(
        {"tower": tower.requires_grad_(False), "trunk": nn.Sequential(*blocks, nn.Linear(4, 2))}
    )


def to_inference(model, layers, index=0):
    chosen = {id(module) for module in layers.to_inference([layers[index]])}
    return [name for name, module in model.named_modules() if id(module) in chosen]


@pytest.mark.parametrize("layers", [None, ["tower", "trunk.0", "trunk.1", "trunk.2"]])
def test_the_modes_of_what_is_kept_are_its_owners(layers):
    model = tower_and_trunk()
    cut = split_layers(model, layers=layers)
    names = [name for i in range(len(cut)) for name in to_inference(model, cut, i)]
    assert "trunk.0.1" in names
    assert not any(name.startswith("tower") for name in names)
    held = {id(m) for layer in cut for m in layer.modules}
    assert {id(m) for m in model["tower"].modules()} <= held  # it has its layer all the same


def test_a_kept_part_that_learns_by_now_goes_with_its_layer():
    model = tower_and_trunk()
    cut = split_layers(model)
    model["tower"].requires_grad_(True)
    assert {"tower", "tower.1", "tower.2", "trunk.0.1"} <= set(to_inference(model, cut))
    Freezer(cut).set_depth(1)  # ours now, although it needs no gradient again
    assert {"tower", "tower.1", "tower.2", "trunk.0.1"} <= set(to_inference(model, cut))


def test_kept_parts_are_told_apart_one_by_one():
    model = tower_and_trunk()
    cut = split_layers(model)
    model["tower"][0].requires_grad_(True)
    names = to_inference(model, cut)
    assert {"tower.0", "tower.1", "trunk.0.1"} <= set(names)
    assert "tower.3" not in names


def test_a_norm_that_takes_the_place_of_a_kept_one_is_kept_too():
    model = tower_and_trunk()
    cut = split_layers(model)
    model["tower"] = nn.SyncBatchNorm.convert_sync_batchnorm(model["tower"])
    assert cut.refresh()
    names = to_inference(model, cut)
    assert "trunk.0.1" in names
    assert not any(name.startswith("tower") for name in names)


def test_what_is_frozen_by_hand_later_goes_with_its_layer():
    model = tower_and_trunk()
    cut = split_layers(model)
    model["trunk"][0].requires_grad_(False)
    assert "trunk.0.1" in to_inference(model, cut)
