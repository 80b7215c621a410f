"""One small training run for every row of the table: networks, batches, ways to do an update."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeAlias

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from tests.contracts import SparseNet

STEPS = 32
"""Length of a run. Four layers freeze after 8, 16 and 24 updates."""

FREEZES: dict[str, Any] = {"t0": 0.25, "spacing": "linear", "scale_cap": 2.0}
"""How all runs freeze; the rates of early layers are at most doubled."""

Update: TypeAlias = Callable[[nn.Module, Any, torch.Tensor, torch.Tensor], None]


def mlp() -> nn.Module:
    """Four layers of matrices and vectors."""
    return nn.Sequential(
        nn.Linear(6, 8),
        nn.Tanh(),
        nn.Linear(8, 8),
        nn.Tanh(),
        nn.Linear(8, 8),
        nn.Tanh(),
        nn.Linear(8, 3),
    )


def matrices() -> nn.Module:
    """The same without vectors."""
    net = mlp()
    for module in net.modules():
        if isinstance(module, nn.Linear):
            module.bias = None
    return net


def half() -> nn.Module:
    """The same in half precision."""
    return mlp().to(torch.bfloat16)


NETS: dict[str, Callable[[], nn.Module]] = {
    "mlp": mlp,
    "matrices": matrices,
    "half": half,
    "sparse": SparseNet,
}


def make_net(kind: str = "mlp", *, seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return NETS[kind]()


def make_batch(kind: str, n: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The batch of update `n`; the same for every run."""
    g = torch.Generator().manual_seed(100 + n)
    if kind == "sparse":
        x = torch.randint(0, 7, (16, 5), generator=g)
        return x, x[:, 0] % 3
    x = torch.randn((8, 6), generator=g)
    y = (x[:, 0] > 0).long() + (x[:, 1] > 0).long()
    return x.to(torch.bfloat16 if kind == "half" else x.dtype), y


def loss_of(model: nn.Module, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    return F.cross_entropy(model(x).float(), y)


def plain(model: nn.Module, optimizer: Any, x: torch.Tensor, y: torch.Tensor) -> None:
    """Backward pass, step, gradients away."""
    loss_of(model, x, y).backward()
    optimizer.step()
    optimizer.zero_grad()


def by_closure(model: nn.Module, optimizer: Any, x: torch.Tensor, y: torch.Tensor) -> None:
    """Gradients first, then a step that computes them again."""

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        loss = loss_of(model, x, y)
        loss.backward()
        return loss

    closure()
    optimizer.step(closure)
    optimizer.zero_grad()


def second_order(model: nn.Module, optimizer: Any, x: torch.Tensor, y: torch.Tensor) -> None:
    """A backward pass that can itself be differentiated."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Using backward\\(\\) with create_graph=True")
        loss_of(model, x, y).backward(create_graph=True)
    optimizer.step()
    optimizer.zero_grad()


def two_steps(model: nn.Module, optimizer: Any, x: torch.Tensor, y: torch.Tensor) -> None:
    """Up to where the loss is largest nearby, then the real step; ``step`` is never called."""
    loss_of(model, x, y).backward()
    optimizer.first_step(zero_grad=True)
    loss_of(model, x, y).backward()
    optimizer.second_step(zero_grad=True)


def train(
    model: nn.Module,
    optimizer: Any,
    scheduler: Any,
    *,
    net: str = "mlp",
    update: Update = plain,
    counted: bool = True,
    start: int = 0,
    stop: int = STEPS,
    look: Callable[[int], None] | None = None,
) -> None:
    """Do the updates from `start` to `stop`; `look` is told how many are done.

    Where the scheduler cannot count them (not `counted`), it is told, too.
    """
    for n in range(start, stop):
        torch.manual_seed(500 + n)
        np.random.seed(500 + n)  # some draw from there
        update(model, optimizer, *make_batch(net, n))
        scheduler.step(*() if counted else (n + 1,))
        if look is not None:
            look(n + 1)


@contextmanager
def what_is_said(ignore: tuple[str, ...] = ()) -> Iterator[list[str]]:
    """Collect the warnings of a block, without those that contain one of `ignore`."""
    said: list[str] = []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield said
    said += [str(w.message) for w in caught if not any(part in str(w.message) for part in ignore)]
