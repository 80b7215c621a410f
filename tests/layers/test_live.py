"""Which layer a new module or parameter belongs to."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from freezeout import split_layers
from freezeout.layers import Layers


class Net(nn.Module):
    """An embedding, three blocks in a container with a parameter of its own, and a head."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(5, 4)
        self.body = nn.Module()
        self.body.blocks = nn.ModuleList(
            nn.Sequential(nn.Linear(4, 4), nn.LayerNorm(4)) for _ in range(3)
        )
        self.body.position = nn.Parameter(torch.zeros(4))
        self.head = nn.Linear(4, 5, bias=False)


def cut() -> tuple[Any, Layers]:
    model = Net()
    names = ["embed", "body.blocks.*", "head"]
    return model, split_layers(model, layers=names)


def held(layers: Layers) -> list[list[str]]:
    return [[name for name, _ in layer.parameters] for layer in layers]


def test_nothing_new() -> None:
    model, layers = cut()
    before = list(layers)
    assert not layers.refresh()
    model.train()
    model.half()
    assert not layers.refresh()
    assert list(layers) == before


def test_every_part_stays_in_exactly_one_layer() -> None:
    model, layers = cut()
    model.body.blocks[1] = nn.Sequential(model.body.blocks[1], nn.Linear(4, 4))
    model.body.blocks[0][1] = nn.LayerNorm(4)
    model.extra = nn.Linear(4, 4)
    assert layers.refresh()
    names = [name for own in held(layers) for name in own]
    assert sorted(names) == sorted(name for name, _ in model.named_parameters())
    modules = [id(m) for layer in layers for m in layer.modules]
    assert len(modules) == len(set(modules))
    assert set(modules) == {id(m) for m in model.modules() if m is not model}
    assert not layers.refresh()


def test_new_parts_take_the_place_of_old_ones_or_the_layer_around_them() -> None:
    model, layers = cut()
    names = layers.names
    model.body.blocks[1] = nn.Sequential(model.body.blocks[1], nn.Linear(4, 4))
    model.body.blocks[0][1] = nn.LayerNorm(4)
    model.body.blocks[2].register_parameter("scale", nn.Parameter(torch.ones(4)))
    layers.refresh()
    assert layers.names == names
    assert layers.index_of(model.body.blocks[1][0][0].weight) == 2
    assert layers.index_of(model.body.blocks[1][1].weight) == 2
    assert layers.index_of(model.body.blocks[0][1].weight) == 1
    assert layers.index_of(model.body.blocks[2].scale) == 3
    assert layers.index_of(model.body.position) == 1


def test_what_is_gone_is_forgotten_and_what_moved_is_known() -> None:
    model, layers = cut()
    gone = model.body.blocks[0][1]
    model.body.blocks[0][1] = nn.Identity()
    model.trunk = model.body  # under a new name
    del model.body
    layers.refresh()
    assert layers.index_of(gone.weight) is None
    assert gone not in layers[1].modules
    assert layers.index_of(model.trunk.position) == 1
    assert held(layers)[3][0] == "trunk.blocks.2.0.weight"


def test_blocks_that_are_taken_out_shift_no_other() -> None:
    model, layers = cut()
    first, third = model.body.blocks[0][0].weight, model.body.blocks[2][0].weight
    del model.body.blocks[1]
    layers.refresh()
    assert layers.index_of(first) == 1
    assert layers.index_of(third) == 3
    assert layers[2].parameters == ()


def test_a_weight_that_is_tied_later_belongs_to_its_last_user() -> None:
    model, layers = cut()
    model.head.weight = model.embed.weight
    layers.refresh()
    assert layers.index_of(model.embed.weight) == 4
    assert held(layers)[0] == []


def test_a_new_weight_that_is_tied_belongs_to_its_last_user() -> None:
    """As after the vocabulary was made larger."""
    model, layers = cut()
    model.embed = nn.Embedding(7, 4)
    model.head = nn.Linear(4, 7, bias=False)
    model.head.weight = model.embed.weight
    layers.refresh()
    assert layers.index_of(model.embed.weight) == 4
    assert model.embed in layers[0].modules
    model.body.blocks[0][0].weight = model.body.blocks[1][0].weight = nn.Parameter(torch.eye(4))
    layers.refresh()
    assert layers.index_of(model.body.blocks[0][0].weight) == 2


def test_a_new_container_freezes_with_the_last_layer_in_it() -> None:
    model, layers = cut()
    model.both = nn.Sequential(model.body.blocks[0], model.body.blocks[1])
    layers.refresh()
    assert model.both in layers[2].modules
    assert model.body.blocks[0] in layers[1].modules


def test_parameters_that_stand_in_for_others_are_no_change() -> None:
    model, layers = cut()
    share = model.head.weight
    model.head.weight = nn.Parameter(torch.zeros(5, 4))
    assert not layers.refresh({id(model.head.weight): share})
    assert layers.index_of(share) == 4
    assert layers.refresh()
    assert layers.index_of(share) is None


def test_a_norm_that_moves_is_known_by_its_parameters() -> None:
    model, layers = cut()
    new = nn.LayerNorm(4)
    new.weight, new.bias = model.body.blocks[0][1].weight, model.body.blocks[0][1].bias
    model.body.blocks[0][1] = nn.Identity()
    model.body.blocks[2].append(new)
    layers.refresh()
    assert new in layers[1].modules
    assert model.body.blocks[0][1] in layers[1].modules


def test_a_new_parameter_of_a_container_has_the_place_of_the_old() -> None:
    model, layers = cut()
    model.body.position = nn.Parameter(torch.ones(4))
    model.body.other = nn.Parameter(torch.ones(4))
    layers.refresh()
    assert layers.index_of(model.body.position) == 1
    assert layers.index_of(model.body.other) == 3  # as the container itself
