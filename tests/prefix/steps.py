"""Steps that the tests of captured models repeat."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import nn

from tests.layers.test_networks import NETWORKS
from tests.prefix.dictionary import Dictionary
from tests.prefix.twins import Twins


def network(name: str, depth: int, source: Dictionary | None = None) -> Twins:
    found = NETWORKS[name]
    cut = max(found.cuts, key=lambda cut: cut.how == "example")
    return Twins(found.model, lambda m: found.split(cut, m, example=True), depth, source)


def step(both: Twins, name: str, n: int, **settings: Any) -> None:
    both.plain.load_state_dict(copy.deepcopy(both.captured.state_dict()))
    torch.manual_seed(n)
    both.agree(lambda model: NETWORKS[name].loss(model, n), **settings)


def blocks(count: int = 4) -> nn.Sequential:
    torch.manual_seed(0)
    made = [nn.Sequential(nn.Linear(6, 6), nn.ReLU(), nn.Dropout(0.1)) for _ in range(count)]
    return nn.Sequential(*made, nn.Linear(6, 3))
