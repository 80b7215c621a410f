"""What the processes of `ranks` do in the tests of wrappers in uncommon company."""

from __future__ import annotations

import gc
import warnings
import weakref
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import nn
from torch.distributed.fsdp import fully_shard
from torch.nn.parallel import DistributedDataParallel

from freezeout import FreezeOut, Freezer, split_layers, unfreeze
from freezeout.errors import DistributedError
from freezeout.wrappers import ddp as reducer_module
from tests.wrappers.small_run import SCHEDULE, STEPS, batch, flat, gradients, part, plain_net


def whole(parameters: Any) -> torch.Tensor:
    """The values of parameters of which each process may hold a part."""
    return flat(p.full_tensor() if hasattr(p, "full_tensor") else p for p in parameters)


def two_fits(rank: int, second: str) -> tuple[list[float], list[bool]]:
    """After a fit with groups that stay gathered: how far the next one is from that of a twin."""
    model, twin = plain_net(), plain_net()
    for layer in model:
        fully_shard(layer)
    fully_shard(model)
    held = list(model.parameters())
    far = []
    scheduler = None
    for fit in range(2):
        optimizer = torch.optim.SGD(held, lr=0.1)
        alone = torch.optim.SGD(twin.parameters(), lr=0.1)
        if fit and second == "unfreeze":
            unfreeze(model)
        if fit and second == "a new freezer":
            Freezer(split_layers(model))
        elif not (fit and second == "unfreeze"):
            scheduler = FreezeOut(optimizer, model, STEPS, schedule=SCHEDULE)
            scheduler.freezer.follow(keep_unsharded=not fit)
            other = FreezeOut(alone, twin, STEPS, schedule=SCHEDULE)
        if fit and second != "FreezeOut":
            unfreeze(twin)
        for step in range(STEPS):
            x, y = batch(step)
            F.cross_entropy(model(part(rank, x)), part(rank, y)).backward()
            F.cross_entropy(twin(x), y).backward()
            for made in (optimizer, alone):
                made.step()
                made.zero_grad()
            if not (fit and second != "FreezeOut"):
                scheduler.step()
                other.step()
        far.append(float((whole(held) - whole(twin.parameters())).abs().max()))
    return far, [p.requires_grad for p in held]


def replicated_and_kept(rank: int) -> int:
    from torch.distributed._composable.replicate_with_fsdp import replicate

    model = plain_net()
    for layer in model:
        replicate(layer)
    replicate(model)
    freezer = Freezer(split_layers(model))
    freezer.follow(keep_unsharded=True)
    freezer.set_depth(2)
    x, y = batch(0)
    F.cross_entropy(model(part(rank, x)), part(rank, y)).backward()
    return freezer.depth


def a_leftover_on_one_rank(rank: int) -> list[float]:
    """The first wrapper is garbage in a cycle, which rank 1 has collected and rank 0 has not."""
    model = plain_net(norm=True)
    gc.collect()
    gc.disable()
    try:
        old = DistributedDataParallel(model)
        cycle: list[Any] = [old]
        cycle.append(cycle)
        del old, cycle
        if rank:
            gc.collect()
        wrapper = DistributedDataParallel(model)
        freezer = Freezer(split_layers(model))
        x, y = batch(0)
        F.cross_entropy(wrapper(part(rank, x)), part(rank, y)).backward()
        model.zero_grad()
        freezer.set_depth(1)
    finally:
        gc.enable()
    F.cross_entropy(wrapper(part(rank, x)), part(rank, y)).backward()
    mine = flat([*model[0].buffers(), *(p.grad for p in model[1:].parameters())])
    others = [torch.empty_like(mine) for _ in range(dist.get_world_size())]
    dist.all_gather(others, mine)
    return [float((mine - other).abs().max()) for other in others]


def buffers_that_one_rank_would_not_send(rank: int) -> tuple[str, int]:
    model = nn.Sequential(*plain_net(norm=True), nn.Linear(3, 3))  # of names of its own
    wrapper = DistributedDataParallel(model)
    if rank:
        setattr(wrapper, reducer_module._broadcast_option(), False)
    freezer = Freezer(split_layers(model))
    freezer.follow(timeout=60.0)
    try:
        freezer.set_depth(1)
    except DistributedError as error:
        return str(error), freezer.depth
    return "", freezer.depth


def static_and_accumulating(rank: int, view: bool) -> list[float]:
    """From the second step on two micro-batches, of which the first is within ``no_sync``."""
    model, twin = plain_net(), plain_net()
    wrapper = DistributedDataParallel(model, static_graph=True, gradient_as_bucket_view=view)
    freezer, other = Freezer(split_layers(model)), Freezer(split_layers(twin))
    far = []
    for step in range(8):
        depth = (0, 0, 0, 1, 1, 2, 0, 0)[step]
        freezer.set_depth(depth)
        other.set_depth(depth)
        for micro in range(2) if step else (1,):
            x, y = batch(step, micro)
            if micro:
                F.cross_entropy(wrapper(part(rank, x)), part(rank, y)).backward()
            else:
                with wrapper.no_sync():
                    F.cross_entropy(wrapper(part(rank, x)), part(rank, y)).backward()
                assert not wrapper._forward_hooks or step in (3, 5, 6)
            F.cross_entropy(twin(x), y).backward()
        assert wrapper.require_backward_grad_sync
        expected = gradients(twin)
        assert all((g is None) is (expected[n] is None) for n, g in gradients(model).items())
        own = [g for g in gradients(model).values() if g is not None]
        far.append(float((flat(own) - flat(g for g in expected.values() if g is not None)).norm()))
        for net in (model, twin):
            net.zero_grad()
    return far


def all_of_a_part_frozen(rank: int) -> list[tuple[int, int, bool]]:
    """A wrapper around the body alone that cannot follow in place, and freezes whole."""
    body, head = plain_net()[:3], nn.Linear(8, 3)
    model = nn.Sequential(body, head)
    made = [DistributedDataParallel(body)]
    known = reducer_module._PRIVATE
    reducer_module._PRIVATE = (*known, "_something_newer")
    seen = []
    try:
        freezer = Freezer(split_layers(model))
        freezer.follow(replace=made.append)
        for depth in (1, 3, 0):
            freezer.set_depth(depth)
            x, y = (part(rank, whole) for whole in batch(depth))
            F.cross_entropy(head(made[-1](x)), y).backward()
            same = True
            for p in body.parameters():
                if p.grad is not None:
                    others = [torch.empty_like(p.grad) for _ in range(dist.get_world_size())]
                    dist.all_gather(others, p.grad)
                    same &= all(torch.equal(p.grad, other) for other in others)
            model.zero_grad()
            seen.append((freezer.depth, len(made), same))
    finally:
        reducer_module._PRIVATE = known
    return seen


class Towers(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.left = plain_net(norm=True)
        self.right = plain_net(norm=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.left(x) + self.right(x)


def two_freezers_in_one_wrapper(rank: int) -> list[int]:
    """Buffers that are broadcast while each freezes its own tower."""
    model = Towers()
    wrapper = DistributedDataParallel(model)
    freezers = [Freezer(split_layers(tower)) for tower in (model.left, model.right)]
    counts = []
    for left, right in [(0, 0), (1, 0), (1, 1), (2, 1), (3, 3), (0, 3)]:
        freezers[0].set_depth(left)
        freezers[1].set_depth(right)
        counts.append(len(wrapper.modules_buffers))
    return counts


class Shared(nn.Module):
    """Two layers with one counter between them, which training moves by what it sees."""

    def __init__(self, scale: torch.Tensor) -> None:
        super().__init__()
        self.linear = nn.Linear(6, 6)
        self.register_buffer("scale", scale)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.training:
            self.scale.add_(x.detach().mean())
        return self.linear(x)


def a_buffer_that_frozen_and_live_layers_share(rank: int) -> list[float]:
    scale = torch.zeros(())
    model = nn.Sequential(Shared(scale), Shared(scale), nn.Linear(6, 3))
    wrapper = DistributedDataParallel(model)
    Freezer(split_layers(model)).set_depth(1)
    for step in range(3):
        x, y = (part(rank, whole) for whole in batch(step))
        F.cross_entropy(wrapper(x), y).backward()
    with torch.no_grad():
        wrapper.eval()(x)  # the broadcast comes at the beginning of a pass
    wrapper._sync_buffers()
    others = [torch.empty(()) for _ in range(dist.get_world_size())]
    dist.all_gather(others, scale)
    return [float(other) for other in others]


def refused_and_let_go(rank: int) -> bool:
    """Whether a wrapper lives on after a freeze that it could not follow."""
    model = plain_net()
    wrapper = DistributedDataParallel(model)
    freezer = Freezer(split_layers(model))
    known = reducer_module._PRIVATE
    reducer_module._PRIVATE = (*known, "_something_newer")
    try:
        with warnings.catch_warnings():
            freezer.set_depth(1)
    except DistributedError:
        pass
    finally:
        reducer_module._PRIVATE = known
    alive = weakref.ref(wrapper)
    del wrapper
    gc.collect()
    return alive() is not None
