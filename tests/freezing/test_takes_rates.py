"""Optimizers that take no rates by layer freeze, and are refused such rates."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from freezeout import FreezeOut
from freezeout.reference import RateOnly
from tests.contracts import bits
from tests.scheduler.loops import STEPS, loss_of, make_net


class FirstGroupsRate(torch.optim.Optimizer):
    """Multiplies its own estimate by the rate of the first group, as D-Adaptation does."""

    def __init__(self, params: Any, lr: float = 1.0, d: Any = 0.01) -> None:
        super().__init__(params, {"lr": lr, "d": d, "growth_rate": float("inf")})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:
        first = self.param_groups[0]
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is not None:
                    p.add_(p.grad, alpha=-float(first["d"] * first["lr"]))


class OwnGroups(torch.optim.SGD):
    """Steps through groups that it copied, or sorted, when it was made."""

    def __init__(self, params: Any, lr: float = 0.1, copies: bool = True) -> None:
        super().__init__(params, lr=lr)
        groups = self.param_groups
        self.own: list[Any] = [dict(g) for g in groups] if copies else list(groups)

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:
        for group in self.own:
            for p in group["params"]:
                if p.grad is not None:
                    p.add_(p.grad, alpha=-group["lr"])


@pytest.mark.parametrize("estimate", [0.01, torch.tensor(0.01)])
@pytest.mark.parametrize("kind", [FreezeOut, RateOnly])
def test_rates_by_layer_are_refused(kind: Any, estimate: Any) -> None:
    model = make_net()
    optimizer = FirstGroupsRate(model.parameters(), d=estimate)
    with pytest.raises(ValueError, match=r"FirstGroupsRate finds one rate .* Give anneal=None"):
        kind(optimizer, model, STEPS)
    assert len(optimizer.param_groups) == 1
    assert all(p.requires_grad for p in model.parameters())


@pytest.mark.parametrize("copies", [True, False])
def test_groups_of_its_own_are_refused_rates_by_layer(copies: bool) -> None:
    model = make_net()
    optimizer = OwnGroups(model.parameters(), copies=copies)
    with pytest.raises(ValueError, match=r"OwnGroups keeps parameter groups of its own \(own\)"):
        FreezeOut(optimizer, model, STEPS)
    assert len(optimizer.param_groups) == 1


@pytest.mark.parametrize("kind", [FirstGroupsRate, OwnGroups])
def test_layers_freeze_and_the_others_learn_without_annealing(kind: Any) -> None:
    model = make_net()
    optimizer = kind(model.parameters())
    scheduler = FreezeOut(optimizer, model, STEPS, t0=0.3, spacing="linear", anneal=None)
    before: dict[nn.Parameter, torch.Tensor] = {}
    for n in range(STEPS - 1):
        loss_of(model, n).backward()
        optimizer.step()
        optimizer.zero_grad()
        still = [p for layer in scheduler.layers[: scheduler.frozen] for _, p in layer.parameters]
        for p in model.parameters():
            moved = not torch.equal(before.get(p, bits(p + 1)), bits(p))
            assert moved is all(p is not q for q in still)
            before[p] = bits(p)
        scheduler.step()
    assert scheduler.frozen == len(scheduler.layers) - 1


def test_lists_of_anything_else_are_not_taken_for_groups() -> None:
    model = make_net()
    optimizer = OwnGroups(model.parameters())
    optimizer.own = [{"name": "all"}]
    assert len(FreezeOut(optimizer, model, STEPS).get_last_lr()) > 1


def test_a_setting_of_that_name_alone_is_not_taken_for_an_estimate() -> None:
    model = make_net()
    optimizer = torch.optim.Adafactor(model.parameters(), lr=0.1)
    assert "d" in optimizer.param_groups[0]  # where it clips
    assert len(FreezeOut(optimizer, model, STEPS).get_last_lr()) > 1
