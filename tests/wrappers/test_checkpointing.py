"""Activation checkpointing beside freezing."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.checkpoint import checkpoint

from freezeout import FreezeOut, FreezeOutError, Freezer, FrozenPrefixWarning, split_layers
from tests.contracts import hooks, make_batch
from tests.scheduler.loops import LINEAR, STEPS, loss_of, make_net


class Blocks(nn.Module):
    """Runs its blocks in some way of the caller's, and counts how often each one runs."""

    def __init__(self, call: Callable[..., Any]) -> None:
        super().__init__()
        net = make_net()
        self.blocks = nn.ModuleList(net[:-1])
        self.head = net[-1]
        self._call = call
        self.ran = [0, 0, 0]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for i, block in enumerate(self.blocks):

            def run(x: torch.Tensor, i: int = i, block: nn.Module = block) -> torch.Tensor:
                self.ran[i] += 1
                return block(x)

            x = self._call(run, x)
        return self.head(x)


def test_frozen_blocks_are_not_computed_again() -> None:
    model = Blocks(lambda run, x: checkpoint(run, x, use_reentrant=False))
    freezer = Freezer(split_layers(model), strict=True)
    for depth, ran in ((0, [2, 2, 2]), (1, [1, 2, 2]), (3, [1, 1, 1])):
        freezer.set_depth(depth)
        model.ran = [0, 0, 0]
        loss_of(model, depth).backward()
        assert model.ran == ran
        assert freezer.verified
        assert all((p.grad is not None) is p.requires_grad for p in model.parameters())
        model.zero_grad()


@pytest.mark.filterwarnings("ignore:None of the inputs have requires_grad")
def test_reentrant_checkpointing_is_refused_in_the_first_step() -> None:
    # What it is refused for: behind a frozen layer no block gets a gradient, without an error.
    model = Blocks(lambda run, x: checkpoint(run, x, use_reentrant=True))
    model.blocks[0].requires_grad_(False)
    loss_of(model, 0).backward()
    assert model.blocks[2][0].weight.grad is None
    assert model.head.weight.grad is not None

    model = Blocks(lambda run, x: checkpoint(run, x, use_reentrant=True))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    FreezeOut(optimizer, model, STEPS, schedule=LINEAR)
    with torch.no_grad():
        model(make_batch("matrix", 0)[0])  # an evaluation before says nothing yet
    with pytest.raises(FreezeOutError) as refused:
        loss_of(model, 0)
    assert str(refused.value) == (
        "Sequential runs under activation checkpointing with use_reentrant=True. Behind frozen "
        "layers that kind gives no gradient to any block, without an error. Use "
        "use_reentrant=False (transformers: gradient_checkpointing_kwargs={'use_reentrant': "
        "False})."
    )
    assert hooks(model) == 0


@pytest.mark.filterwarnings("ignore:None of the inputs have requires_grad")
def test_it_is_not_refused_where_nothing_freezes() -> None:
    model = Blocks(lambda run, x: checkpoint(run, x, use_reentrant=True))
    FreezeOut(torch.optim.SGD(model.parameters(), lr=0.1), model, STEPS, t0=1.0)
    assert hooks(model) == 0
    loss_of(model, 0)


@pytest.mark.filterwarnings("ignore:None of the inputs have requires_grad")
@pytest.mark.parametrize(
    "how", ["in parts", "a dry run", "later", "a compiled head", "compiled blocks"]
)
def test_what_the_first_pass_does_not_show_is_refused_after_a_freeze(how: str) -> None:
    on = how != "later"
    model = Blocks(lambda run, x: checkpoint(run, x, use_reentrant=True) if on else run(x))
    if how == "a compiled head":
        model.head.compile(backend="eager")
    if how == "compiled blocks":
        for block in model.blocks:
            block.compile(backend="eager")
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    scheduler = FreezeOut(optimizer, model, STEPS, schedule=LINEAR)
    if how == "a dry run":
        loss_of(model.eval(), 0)
        model.train()
    x, y = make_batch("matrix", 0)

    def forward() -> torch.Tensor:
        return Blocks.forward(model, x) if how == "in parts" else model(x)

    if how in ("in parts", "later"):  # here only the freeze brings it to light
        F.cross_entropy(forward(), y).backward()
        optimizer.step()
        scheduler.step(4)
        assert scheduler.frozen == 1
        on = True
    with pytest.raises(FreezeOutError, match=r"use_reentrant=True\. Behind frozen layers"):
        forward()
    assert hooks(model) == (2 if how == "in parts" else 0)  # still waiting for its own forward


def test_a_failed_first_pass_leaves_no_more_hooks_than_one() -> None:
    model = make_net()
    FreezeOut(torch.optim.SGD(model.parameters(), lr=0.1), model, STEPS, schedule=LINEAR)
    found = []
    for _ in range(3):
        with pytest.raises(RuntimeError, match="mat1 and mat2"):
            model(torch.ones(2, 5))
        found.append(hooks(model))
    assert found[0] == found[2]
    loss_of(model, 0)
    assert hooks(model) == 0


def test_scripted_parts_are_no_obstacle() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it is deprecated, with another category in each version
        scripted = torch.jit.script(nn.Sequential(nn.Linear(6, 6), nn.Tanh()))
    model = nn.Sequential(nn.Linear(6, 6), nn.Tanh(), nn.Linear(6, 6), nn.Linear(6, 3))
    holder = nn.ModuleDict({"first": model, "spare": scripted})
    holder.forward = lambda x: model(x)  # type: ignore[method-assign]
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    scheduler = FreezeOut(
        optimizer,
        holder,
        STEPS,
        schedule=LINEAR,
        layers=["first.0", "first.2", ("first.3", "spare")],
    )
    loss_of(holder, 0).backward()
    assert hooks(holder) == 0
    assert scheduler.frozen == 0


def test_the_first_look_takes_its_hooks_away() -> None:
    model = make_net()
    FreezeOut(torch.optim.SGD(model.parameters(), lr=0.1), model, STEPS, schedule=LINEAR)
    assert hooks(model) == 2
    with torch.no_grad():
        model(make_batch("matrix", 0)[0])
    assert hooks(model) == 2
    loss_of(model, 0).backward()
    assert hooks(model) == 0


def test_blocks_under_no_grad_are_the_model_s_own_affair() -> None:
    """A teacher, or features that are not learnt: not checkpointing."""

    def call(run: Callable[..., Any], x: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            return run(x)

    model = Blocks(call)
    FreezeOut(torch.optim.SGD(model.parameters(), lr=0.1), model, STEPS, schedule=LINEAR)
    loss_of(model, 0).backward()
    assert hooks(model) == 0


def test_inputs_that_are_made_to_require_gradients_are_named() -> None:
    model = make_net()
    model[0].register_forward_hook(lambda module, args, output: output.requires_grad_(True))
    freezer = Freezer(split_layers(model))
    freezer.set_depth(2)
    with pytest.warns(FrozenPrefixWarning, match=r"enable_input_require_grads\(\) sets it"):
        loss_of(model, 0)
    assert not freezer.verified
