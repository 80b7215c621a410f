"""Validation between a freeze and the next pass, also where flags are put back one by one."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from freezeout import Freezer, split_layers, unfreeze
from tests.contracts import differing, snapshot


class Aux(nn.Module):
    """Gives an auxiliary output beside its own while it trains."""

    def __init__(self) -> None:
        super().__init__()
        self.l, self.norm, self.aux = nn.Linear(8, 8), nn.BatchNorm1d(8), nn.Linear(8, 2)

    def forward(self, x: torch.Tensor) -> Any:
        y = F.relu(self.norm(self.l(x)))
        return (y, self.aux(y)) if self.training else y


class Named(Aux):
    """Gives its losses by name."""

    def forward(self, x: torch.Tensor) -> Any:
        y = F.relu(self.norm(self.l(x)))
        return {"y": y, "aux": self.aux(y)} if self.training else {"y": y}


class Net(nn.Module):
    """Takes what a part gives in each mode."""

    def __init__(self, kind: type[nn.Module]) -> None:
        super().__init__()
        self.a, self.b, self.c = kind(), nn.Linear(8, 8), nn.Linear(8, 2)

    def forward(self, x: torch.Tensor) -> Any:
        found = self.a(x)
        y, *more = (
            found.values() if isinstance(found, dict) else found if self.training else [found]
        )
        out = self.c(F.relu(self.b(y)))
        return out + more[0] if self.training else out


@contextmanager
def flags_one_by_one(model: nn.Module) -> Iterator[None]:
    modes = {name: module.training for name, module in model.named_modules()}
    model.eval()
    yield
    for name, module in model.named_modules():
        module.training = modes[name]


def made(kind: type[nn.Module], depth: int = 1) -> tuple[Any, Freezer]:
    torch.manual_seed(0)
    model = Net(kind).train()
    freezer = Freezer(split_layers(model, layers=["a", "b", "c"]), strict=True)
    freezer.set_depth(depth)
    return model, freezer


@pytest.mark.parametrize("kind", [Aux, Named])
@pytest.mark.parametrize("passes", [0, 1])  # before the validation
def test_the_trial_and_the_modes_survive_a_validation(passes: int, kind: type[nn.Module]) -> None:
    model, freezer = made(kind)
    x = torch.randn(4, 8)
    for _ in range(passes):
        model(x)
    for _ in range(2):
        with flags_one_by_one(model), torch.no_grad():
            assert not any(module.training for module in model.modules())
            model(x)
        before = snapshot(model)
        model(x).sum().backward()
        assert differing(before, snapshot(model)) == []
        assert model.a.training
        assert not model.a.norm.training
    assert freezer.verified
    freezer.unfreeze()
    assert all(module.training for module in model.modules())
    mean = model.a.norm.running_mean.clone()
    model(x)
    assert not torch.equal(mean, model.a.norm.running_mean)


def test_what_the_user_puts_into_evaluation_mode_stays_so() -> None:
    model, freezer = made(Aux, 0)
    model.a.norm.eval()
    freezer.set_depth(2)
    with flags_one_by_one(model):
        pass
    model.b.eval()
    with flags_one_by_one(model):
        pass
    freezer.unfreeze()
    off = [name for name, module in model.named_modules() if not module.training]
    assert off == ["a.norm", "b"]
    freezer.set_depth(2)
    model.train()
    freezer.unfreeze()
    assert all(module.training for module in model.modules())


def test_a_model_that_is_evaluated_at_last_stays_so() -> None:
    model, freezer = made(Aux)
    model.eval()
    freezer.unfreeze()
    assert not any(module.training for module in model.modules())


@pytest.mark.parametrize("how", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))])
def test_copies_hold_no_more_than_themselves(how: Any) -> None:
    model, _ = made(Aux)
    part = how(model.a)
    assert all(found is None for found in (m.__dict__["train"]._root for m in part.modules()))
    unfreeze(part)
    assert all(module.training for module in part.modules())
    whole = how(model)
    unfreeze(whole)
    assert all(module.training for module in whole.modules())
    assert not model.a.norm.training
