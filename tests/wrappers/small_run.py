"""The small run that the tests of wrappers repeat: a network, its batches, and the oracle."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import nn

from freezeout import FreezeOut, Schedule

STEPS = 10
SCHEDULE = Schedule(t0=0.3, spacing="linear", scale_cap=2.0)
"""With four layers: they freeze after 3, 6 and 8 of 10 steps."""

BATCH = 8


def plain_net(norm: bool = False) -> nn.Sequential:
    """Four layers; without batch statistics a run in parts equals one in a whole."""
    torch.manual_seed(0)

    def block(n_in: int, n_out: int) -> nn.Module:
        middle = nn.BatchNorm1d(n_out) if norm else nn.LayerNorm(n_out)
        return nn.Sequential(nn.Linear(n_in, n_out), middle, nn.Tanh())

    return nn.Sequential(block(6, 8), block(8, 8), block(8, 8), nn.Linear(8, 3))


def batch(step: int, micro: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """The batch of all processes together."""
    generator = torch.Generator().manual_seed(100 * step + micro)
    x = torch.randn(BATCH, 6, generator=generator)
    return x, torch.randint(0, 3, (BATCH,), generator=generator)


def part(rank: int, whole: torch.Tensor) -> torch.Tensor:
    size = len(whole) // dist.get_world_size()
    return whole[rank * size : (rank + 1) * size]


def flat(tensors: Any) -> torch.Tensor:
    return torch.cat([t.detach().reshape(-1).clone() for t in tensors])


def gradients(model: nn.Module) -> dict[str, torch.Tensor | None]:
    return {n: None if p.grad is None else p.grad.clone() for n, p in model.named_parameters()}


class Counter:
    """A communication hook that averages, and counts the elements that it was given."""

    def __init__(self) -> None:
        self.now = 0

    def hook(self, state, bucket):  # type: ignore[no-untyped-def]  # PyTorch reads annotations
        self.now += bucket.buffer().numel()
        future = dist.all_reduce(bucket.buffer().div_(dist.get_world_size()), async_op=True)
        return future.get_future().then(lambda done: done.value()[0])


def single(micros: int = 1, steps: int = STEPS) -> dict[str, Any]:
    """The same run in one process: the oracle."""
    model = plain_net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    scheduler = FreezeOut(optimizer, model, STEPS, schedule=SCHEDULE)
    seen: dict[str, Any] = {"gradients": [], "weights": [], "depths": []}
    for step in range(steps):
        for micro in range(micros):
            x, y = batch(step, micro)
            (F.cross_entropy(model(x), y) / micros).backward()
        seen["gradients"].append(gradients(model))
        optimizer.step()
        optimizer.zero_grad()
        scheduler.step()
        seen["depths"].append(scheduler.frozen)
        seen["weights"].append(flat(model.parameters()))
    return seen
