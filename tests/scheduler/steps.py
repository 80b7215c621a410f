"""A small model with its scheduler, and one update of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from freezeout import FreezeOut, Schedule
from tests.contracts import STEPS, make_batch, make_net

LINEAR = Schedule(t0=0.3, spacing="linear")  # of 12 steps the three blocks freeze at 4, 7 and 10


def set_up(
    optimizer: Callable[..., torch.optim.Optimizer] = torch.optim.SGD, **options: Any
) -> tuple[Any, torch.optim.Optimizer, FreezeOut]:
    model = make_net()
    made = optimizer(model.parameters(), lr=0.1)
    return model, made, FreezeOut(made, model, STEPS, **(options or {"schedule": LINEAR}))


def momentum(parameters: Any, lr: float = 0.1) -> torch.optim.SGD:
    return torch.optim.SGD(parameters, lr=lr, momentum=0.9, weight_decay=0.01)


def update(model: nn.Module, optimizer: torch.optim.Optimizer, n: int = 0) -> None:
    x, y = make_batch("conv", n)
    optimizer.zero_grad()
    F.cross_entropy(model(x), y).backward()
    optimizer.step()


def go_on(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    *schedulers: Any,
    start: int = 0,
    stop: int,
    before: Callable[[], None] = lambda: None,
) -> None:
    """Update and step; `before` is called before each update."""
    for n in range(start, stop):
        before()
        update(model, optimizer, n)
        for scheduler in schedulers:
            scheduler.step()


def group_rates(optimizer: torch.optim.Optimizer) -> list[float]:
    return [float(group["lr"]) for group in optimizer.param_groups]
