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
