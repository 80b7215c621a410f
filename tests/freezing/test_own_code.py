"""Code that meets its first frozen layer: how it fails, and the line to write instead.

The page ``docs/frozen-parameters.md`` lists the same lines, and its examples are run, too.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch.optim import SGD

from freezeout import FreezeOut, MovementWarning
from tests.freezing.optimizers import (
    SETTINGS,
    STEPS,
    bits_at_the_freeze,
    copies,
    loss_of,
    make_net,
    moved,
    train,
)

Step = Callable[[nn.Sequential, SGD, int], None]


def clamp_all(model: nn.Sequential, optimizer: SGD, n: int) -> None:
    loss_of(model, n).backward()
    for p in model.parameters():
        p.grad.data.clamp_(-1, 1)  # type: ignore[union-attr]
    optimizer.step()


def clamp_what_is_there(model: nn.Sequential, optimizer: SGD, n: int) -> None:
    loss_of(model, n).backward()
    for p in model.parameters():
        if p.grad is not None:
            p.grad.data.clamp_(-1, 1)
    optimizer.step()


def gradients_of_all(model: nn.Sequential, optimizer: SGD, n: int) -> None:
    _by_hand(list(model.parameters()), loss_of(model, n), optimizer)


def gradients_of_what_learns(model: nn.Sequential, optimizer: SGD, n: int) -> None:
    _by_hand([p for p in model.parameters() if p.requires_grad], loss_of(model, n), optimizer)


def _by_hand(parameters: list[nn.Parameter], loss: torch.Tensor, optimizer: SGD) -> None:
    for p, gradient in zip(parameters, torch.autograd.grad(loss, parameters), strict=True):
        p.grad = gradient
    optimizer.step()


def hook_on_features(model: nn.Sequential, optimizer: SGD, n: int, *, ask: bool = False) -> None:
    class Reversed(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            if x.requires_grad or not ask:
                x.register_hook(torch.neg)
            return x

    loss_of(nn.Sequential(model[:2], Reversed(), model[2:]), n).backward()
    optimizer.step()


def hook_if_there_is_a_graph(model: nn.Sequential, optimizer: SGD, n: int) -> None:
    hook_on_features(model, optimizer, n, ask=True)


CASES: list[tuple[Step, Step, str]] = [
    (clamp_all, clamp_what_is_there, "has no attribute 'data'"),
    (gradients_of_all, gradients_of_what_learns, "does not require grad"),
    (hook_on_features, hook_if_there_is_a_graph, "cannot register a hook"),
]


@pytest.mark.parametrize(("bad", "good", "error"), CASES)
def test_a_step_by_hand(bad: Step, good: Step, error: str) -> None:
    assert run(good)[:2] == (2, STEPS - 2)
    with pytest.raises((AttributeError, RuntimeError), match=error):
        run(bad)


def run(step: Step) -> tuple[int, int, nn.Module]:
    model = make_net()
    optimizer = SGD(model.parameters(), lr=0.1, momentum=0.9)
    scheduler = FreezeOut(optimizer, model, STEPS, **SETTINGS)
    at, last = bits_at_the_freeze(scheduler), model[4].weight.detach().clone()
    for n in range(STEPS - 2):
        step(model, optimizer, n)
        optimizer.zero_grad()
        scheduler.step()
    assert moved(model, at) == []
    assert not torch.equal(last, model[4].weight)
    return scheduler.frozen, scheduler.last_epoch, model


@pytest.mark.parametrize("step", [clamp_what_is_there, gradients_of_what_learns])
def test_the_good_line_changes_nothing_where_nothing_is_frozen(step: Step) -> None:
    ends = []
    for kind in (step, clamp_all if step is clamp_what_is_there else gradients_of_all):
        model = make_net()
        optimizer = SGD(model.parameters(), lr=0.1)
        for n in range(5):
            kind(model, optimizer, n)
            optimizer.zero_grad()
        ends.append(copies(model.parameters()))
    assert all(map(torch.equal, *ends))


def averaged(by_name: bool) -> tuple[nn.Module, nn.Module]:
    """A run with an average of its weights, by name over all, or by position over what learns."""
    model, average = make_net(), make_net()
    optimizer = SGD(model.parameters(), lr=0.1)
    scheduler = FreezeOut(optimizer, model, STEPS, **SETTINGS)
    shadow = [p.data for p in average.parameters()]

    def follow(_: int) -> None:
        if by_name:
            now = dict(model.named_parameters())
            for name, p in average.named_parameters():
                p.data.lerp_(now[name].detach(), 0.5)
        else:
            learning = (p for p in model.parameters() if p.requires_grad)
            for kept, p in zip(shadow, learning, strict=False):
                kept.lerp_(p.detach(), 0.5)

    train(model, optimizer, scheduler, after=follow)
    return model, average


def test_an_average_by_name() -> None:
    model, average = averaged(by_name=True)
    assert [p.shape for p in average.parameters()] == [p.shape for p in model.parameters()]
    assert torch.allclose(average[0].weight, model[0].weight, atol=1e-4)
    with pytest.raises(RuntimeError, match="must match the size"):
        averaged(by_name=False)


@pytest.mark.parametrize("skip", [True, False])
def test_an_average_that_is_written_back(skip: bool, recwarn: pytest.WarningsRecorder) -> None:
    model, average = make_net(), make_net()
    nn.init.zeros_(average[0].weight)
    optimizer = SGD(model.parameters(), lr=0.1)
    scheduler = FreezeOut(optimizer, model, STEPS, **SETTINGS)
    at = bits_at_the_freeze(scheduler)

    def write_back(n: int) -> None:
        if n == 25:
            with torch.no_grad():
                for p, kept in zip(model.parameters(), average.parameters(), strict=True):
                    if p.requires_grad or not skip:
                        p.copy_(kept)

    train(model, optimizer, scheduler, after=write_back)
    said: list[Any] = [w for w in recwarn if w.category is MovementWarning]
    if skip:
        assert (said, moved(model, at)) == ([], [])
    else:
        assert "moved: '0.weight'" in str(said[0].message)
        assert "Let it skip what requires no gradient" in str(said[0].message)
