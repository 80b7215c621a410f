"""What the processes of `ranks` do in the tests of captured models."""

from __future__ import annotations

import copy
from collections.abc import Iterable
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from torch.distributed.fsdp import fully_shard
from torch.nn.parallel import DistributedDataParallel

from freezeout import FreezeOut
from freezeout.prefix import Capture
from tests.prefix.dictionary import Dictionary
from tests.wrappers.small_run import SCHEDULE, STEPS, plain_net

Told = dict[str, Any]


def batch(rank: int, step: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Rank 1 meets one batch again and again, rank 0 none twice: they hit differently."""
    n = step if rank == 0 else 100
    generator = torch.Generator().manual_seed(n)
    width = plain_net()[0][0].in_features
    return torch.randn(4, width, generator=generator), torch.arange(4) % 3


def whole(tensor: torch.Tensor | None) -> torch.Tensor | None:
    full = getattr(tensor, "full_tensor", None)
    return tensor if full is None else full()


def train(
    rank: int, model: nn.Module, called: nn.Module, *, capture: bool, keep: bool | None = None
) -> Told:
    optimizer = torch.optim.SGD(called.parameters(), lr=0.1, momentum=0.9)
    scheduler = FreezeOut(optimizer, model, STEPS, schedule=SCHEDULE)
    scheduler.freezer.follow(keep_unsharded=keep)
    source = Dictionary()
    captured = Capture.of(scheduler.freezer, source) if capture else None
    seen: Told = {"losses": [], "gradients": [], "served": 0}
    for step in range(STEPS):
        x, y = batch(rank, step)
        loss = F.cross_entropy(called(x), y)
        loss.backward()
        seen["served"] += len(source.served)
        source.served = []
        seen["losses"].append(loss.detach())
        seen["gradients"].append(gradients(called.parameters()))
        optimizer.step()
        optimizer.zero_grad()
        scheduler.step()
    if captured is not None:
        seen["captured"], seen["plain"] = captured.captured, dict(captured.plain)
    return seen


def gradients(parameters: Iterable[nn.Parameter]) -> list[torch.Tensor | None]:
    full = [whole(p.grad) for p in parameters]
    return [None if g is None else g.detach().clone() for g in full]


def ddp(rank: int) -> tuple[Told, Told]:
    torch.manual_seed(0)
    net = plain_net()
    told = []
    for capture in (False, True):
        model = copy.deepcopy(net)
        called = DistributedDataParallel(model)
        told.append(train(rank, model, called, capture=capture))
    return told[0], told[1]


def fsdp(rank: int, keep: bool) -> tuple[Told, Told]:
    told = []
    for capture in (False, True):
        model = plain_net()
        for layer in model:
            fully_shard(layer)
        fully_shard(model)
        told.append(train(rank, model, model, capture=capture, keep=keep))
    return told[0], told[1]
