"""Parts that write to their parameters while they train: what is frozen does not move."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from freezeout import Freezer, PrefixError, split_layers
from tests.contracts import differing, snapshot


class Codes(nn.Module):
    """Moves a codebook, which needs no gradient, towards what it sees while it trains."""

    def __init__(self) -> None:
        super().__init__()
        self.code = nn.Parameter(torch.randn(8), requires_grad=False)
        self.linear = nn.Linear(8, 8)

    def move(self, x: torch.Tensor) -> None:
        self.code.lerp_(x.mean(0), 0.1)

    def forward(self, x: torch.Tensor) -> Any:
        if self.training:
            with torch.no_grad():
                self.move(x)
        return self.linear(x + self.code)


class ByData(Codes):
    """Does so past the version counter."""

    def move(self, x: torch.Tensor) -> None:
        self.code.data.lerp_(x.mean(0), 0.1)


class Replaced(Codes):
    """Puts a new parameter in the place of the old one."""

    def move(self, x: torch.Tensor) -> None:
        self.code = nn.Parameter(self.code.lerp(x.mean(0), 0.1), requires_grad=False)


class OfAnother(Codes):
    """Does so with a parameter of a part that lies deeper, which learns by gradients too."""

    def move(self, x: torch.Tensor) -> None:
        self.linear.bias.lerp_(x.mean(0), 0.1)


KINDS = [Codes, ByData, Replaced, OfAnother]


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("known", [True, False])
def test_a_frozen_codebook_stands_still_through_the_trial(known: bool, kind: type[Codes]) -> None:
    torch.manual_seed(0)
    model: Any = nn.Sequential(nn.Linear(8, 8), kind(), nn.Linear(8, 8), nn.Linear(8, 2)).train()
    freezer = Freezer(split_layers(model, layers=["0", "1", "2", "3"]), strict=True)
    if known:
        freezer.look_ahead()
    before = snapshot(model)
    model(torch.randn(4, 8))
    assert differing(before, snapshot(model))  # it moves while it learns
    freezer.set_depth(2)
    before, code = snapshot(model), model[1].code
    for _ in range(2):
        model(torch.randn(4, 8)).sum().backward()
    assert differing(before, snapshot(model)) == []
    assert model[1].code is code
    assert model[2].weight.grad is not None
    freezer.look()
    freezer.unfreeze()
    model(torch.randn(4, 8))
    assert differing(before, snapshot(model))


class CodesAndLoss(Codes):
    """Returns a loss too while it trains, so that it would have to keep its flag."""

    def forward(self, x: torch.Tensor) -> Any:
        found = super().forward(x)
        return (found, found.mean()) if self.training else found


def test_a_part_that_needs_its_flag_and_writes_to_a_parameter_is_refused() -> None:
    model: Any = nn.ModuleList([CodesAndLoss(), nn.Linear(8, 8), nn.Linear(8, 2)]).train()
    freezer = Freezer(split_layers(model, layers=["0", "1", "2"]), strict=True)
    freezer.set_depth(1)
    with pytest.raises(PrefixError, match="also changes its parameter 'code' in training mode"):
        model[0](torch.randn(4, 8))
