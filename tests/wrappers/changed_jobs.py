"""What the processes of `ranks` do in the tests of models that change behind a wrapper."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch.distributed.fsdp import fully_shard
from torch.nn.parallel import DistributedDataParallel

from freezeout import FreezeOut, Freezer, split_layers, unfreeze
from tests.contracts import differing, snapshot
from tests.freezing.surgery import Convolved, learning
from tests.freezing.test_surgery import with_other_norms
from tests.freezing.test_trial import NAMES, Net, Stage
from tests.wrappers.small_run import SCHEDULE, STEPS, batch, flat, part, plain_net


def norms_replaced(rank: int) -> dict[str, Any]:
    """Norms are converted between the cut and the wrapper, as trainers do."""
    model = Convolved()
    freezer = Freezer(split_layers(model), strict=True)
    with_other_norms(model, keep_parameters=False)
    wrapper = DistributedDataParallel(model)
    torch.manual_seed(rank)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    before: dict[str, torch.Tensor] = {}
    for step in range(6):
        if step == 2:
            freezer.set_depth(1)
            before = snapshot(model)
        wrapper.train()(torch.randn(4, 2, 8)).sum().backward()
        optimizer.step()
        optimizer.zero_grad()
    mine = flat(model[0].buffers())
    others = [torch.empty_like(mine) for _ in range(dist.get_world_size())]
    dist.all_gather(others, mine)
    return {
        "moved": differing(before, snapshot(model)),
        "agree": all(torch.equal(mine, other) for other in others),
        "ignored": sorted(wrapper.parameters_to_ignore),
        "verified": freezer.verified,
    }


def auxiliary_outputs(rank: int) -> dict[str, Any]:
    """Parts that return something else in evaluation mode keep their flag in every process."""
    torch.manual_seed(0)
    model = Net(Stage)
    wrapper = DistributedDataParallel(model, find_unused_parameters=True)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    scheduler = FreezeOut(optimizer, model, STEPS, schedule=SCHEDULE, layers=NAMES, strict=True)
    for step in range(STEPS):
        torch.manual_seed(10 * step + rank)
        wrapper.train()(torch.randn(4, 8)).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()
        scheduler.step()
    return {
        "frozen": scheduler.frozen,
        "kept": [stage.training for stage in model.stages],
        "norms": [stage.norm.training for stage in model.stages],
        "weights": flat(model.parameters()),
    }


def sharded_after_the_cut(rank: int, frozen_before: int) -> dict[str, Any]:
    """``fully_shard`` replaces every parameter by another one of the same name."""
    model = plain_net()
    freezer = Freezer(split_layers(model), strict=True)
    freezer.set_depth(frozen_before)
    for layer in model:
        fully_shard(layer)
    fully_shard(model)
    freezer.set_depth(2)
    x, y = (part(rank, whole) for whole in batch(0))
    F.cross_entropy(model(x), y).backward()
    seen = {"learning": learning(model), "verified": freezer.verified}
    with_gradient = [n for n, p in model.named_parameters() if p.grad is not None]
    freezer.set_depth(1)
    seen |= {"with_gradient": with_gradient, "later": learning(model)}
    unfreeze(model)
    return seen | {"in the end": len(learning(model)) == len(list(model.parameters()))}
