"""Models that are changed while they are trained, and a few steps of training."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from freezeout import FreezeOut

STEPS = 40


class Convolved(nn.Sequential):
    """Three blocks of a convolution and a norm, and a head."""

    def __init__(self) -> None:
        torch.manual_seed(0)
        blocks = [
            nn.Sequential(nn.Conv1d(2, 2, 3, padding=1, bias=False), nn.BatchNorm1d(2), nn.ReLU())
            for _ in range(3)
        ]
        super().__init__(*blocks, nn.Flatten(), nn.Linear(16, 2))


def linear_net() -> Any:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 2)
    )


def train(
    model: nn.Module,
    scheduler: FreezeOut | None,
    optimizer: torch.optim.Optimizer,
    steps: int,
    *,
    seed: int = 0,
    shape: tuple[int, ...] = (8, 8),
    after: Callable[[int], None] | None = None,
) -> None:
    """Train for some steps on random rows, in training mode as loops do."""
    torch.manual_seed(seed)
    for step in range(steps):
        model.train()
        x = torch.randn(shape)
        F.cross_entropy(model(x), (x.flatten(1).sum(1) > 0).long()).backward()
        optimizer.step()
        optimizer.zero_grad()
        if scheduler is not None:
            scheduler.step()
        if after is not None:
            after(step)


def start(model: nn.Module, *, lr: float = 0.1, **options: Any) -> tuple[Any, Any]:
    """Return an optimizer and a scheduler that freezes half-way, layer after layer."""
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=lr)
    settings: dict[str, Any] = {"t0": 0.5, "spacing": "linear", **options}
    return optimizer, FreezeOut(optimizer, model, STEPS, **settings)


def learning(model: nn.Module) -> list[str]:
    """Return the names of the parameters that require a gradient."""
    return [name for name, p in model.named_parameters() if p.requires_grad]
