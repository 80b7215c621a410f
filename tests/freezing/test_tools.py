"""PyTorch's tools that look at a whole model, right after a freeze and before training."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from freezeout import FreezeOut, Freezer, split_layers, unfreeze
from tests.contracts import differing, flags, hooks, make_batch, make_net, snapshot
from tests.freezing.surgery import linear_net

pytestmark = [
    pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:.*is deprecated. Please:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:.*is not supported in Python 3.14:DeprecationWarning"),
]


def normed_net() -> nn.Module:
    torch.manual_seed(0)
    blocks = (nn.Sequential(nn.Linear(8, 8), nn.BatchNorm1d(8), nn.Dropout()) for _ in range(3))
    return nn.Sequential(*blocks, nn.Linear(8, 2))


def before_training(model: nn.Module) -> Freezer:
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    return FreezeOut(optimizer, model, 10, t0=0.5).freezer


def right_after_a_freeze(model: nn.Module) -> Freezer:
    freezer = Freezer(split_layers(model))
    freezer.set_depth(1)
    return freezer


MOMENTS = [before_training, right_after_a_freeze]


@pytest.mark.parametrize("make", [linear_net, normed_net])
@pytest.mark.parametrize("moment", MOMENTS)
def test_scripting(moment: Callable[..., Freezer], make: Callable[[], nn.Module]) -> None:
    model = make()
    freezer = moment(model)
    assert hooks(model) > 0
    scripted = torch.jit.script(model)
    x = torch.randn(4, 8)
    assert torch.equal(scripted.eval()(x), model.eval()(x))
    model.train()(x).sum().backward()
    assert freezer.verified == (freezer.depth == 0)  # the check is given up, and that is said
    frozen = [name for name, p in model.named_parameters() if p.grad is None]
    assert bool(frozen) == (freezer.depth > 0)
    freezer.set_depth(2)
    model(x).sum().backward()
    assert freezer.verified
    freezer.unfreeze()
    assert all(flags(model).values())


def test_scripting_a_part_takes_the_hooks_off_that_part() -> None:
    model = normed_net()
    freezer = right_after_a_freeze(model)
    torch.jit.script(model[1])
    model(torch.randn(4, 8)).sum().backward()
    assert freezer.verified
    assert hooks(model) == 0
    assert "__prepare_scriptable__" not in {key for m in model.modules() for key in vars(m)}


@pytest.mark.parametrize("moment", MOMENTS)
def test_tracing_does_not_count_as_a_pass(moment: Callable[..., Freezer]) -> None:
    model = normed_net().eval()
    freezer = moment(model)
    verified, x = freezer.verified, torch.randn(4, 8)
    expected = model(x) if freezer.depth == 0 else None
    for tool in (
        lambda: torch.jit.trace(model, x, check_trace=False),
        lambda: torch.fx.symbolic_trace(model),
        lambda: torch.export.export(model, (x,)).module(check_guards=False),
    ):
        made = tool()
        assert freezer.verified == verified
        with torch.no_grad():
            output = made(x)
        if expected is not None:
            torch.testing.assert_close(output, expected)
    model.train()(x).sum().backward()
    assert freezer.verified
    assert hooks(model) == 0


def test_a_symbolic_pass_over_parts_does_not_count_either() -> None:
    model: Any = make_net()
    freezer = Freezer(split_layers(model))
    freezer.set_depth(1)
    watched = hooks(model)
    for _ in range(2):
        torch.fx.symbolic_trace(model)
    assert not freezer.verified
    assert hooks(model) == watched
    model(make_batch("conv", 0)[0]).sum().backward()
    assert freezer.verified


@pytest.mark.parametrize("moment", MOMENTS)
def test_a_shallow_copy_runs(moment: Callable[..., Freezer]) -> None:
    model = normed_net()
    moment(model)
    twin = copy.copy(model)
    x = torch.randn(4, 8)
    twin(x)
    assert torch.equal(twin.eval()(x), model.eval()(x))
    unfreeze(twin)  # which has the same parts
    assert all(flags(model).values())


def test_copies_of_a_watched_model_have_no_hooks_that_act() -> None:
    model = normed_net()
    freezer = right_after_a_freeze(model)
    twin: Any = copy.deepcopy(model)
    twin(torch.randn(4, 8)).sum().backward()
    assert not freezer.verified
    torch.jit.script(twin)
    unfreeze(twin)
    assert hooks(twin) == 0
    assert hooks(model) > 0


def test_a_part_that_is_scripted_freezes_and_is_not_looked_at() -> None:
    model = normed_net()
    model[0] = torch.jit.script(model[0])
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    freezer = FreezeOut(optimizer, model, 10, t0=0.5, layers=["0", "1", "2", "3"]).freezer
    model(torch.randn(8, 8)).sum().backward()
    freezer.set_depth(1)
    before = snapshot(model)
    model.zero_grad()
    model.train()(torch.randn(8, 8)).sum().backward()
    changed = differing(before, snapshot(model))
    assert changed == [f"{i}.1.{name}" for i in (1, 2) for name in BUFFERS]
    assert [p.grad is None for p in model.parameters()] == [True] * 4 + [False] * 10
    assert not freezer.verified
    freezer.unfreeze()
    model.train()(torch.randn(8, 8))
    assert "0.1.running_mean" in differing(before, snapshot(model))
    assert all(flags(model).values())


BUFFERS = ["running_mean", "running_var", "num_batches_tracked"]
