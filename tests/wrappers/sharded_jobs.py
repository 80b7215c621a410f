"""What the processes of `ranks` do in the tests of sharded parameters and sharded optimizers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
import torch.nn.functional as F
from torch import nn
from torch.distributed.checkpoint.state_dict import get_state_dict, set_state_dict
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard
from torch.nn.parallel import DistributedDataParallel

from freezeout import CostError, FreezeOut, Freezer, PrefixError, measure_costs, split_layers
from tests.wrappers.small_run import SCHEDULE, STEPS, batch, flat, part, plain_net


class Traffic:
    """Counts what FSDP2 sends: gradient elements reduced, and gathers of parameters."""

    def __init__(self) -> None:
        self.reduced = 0
        self.gathers = 0
        for name in ("reduce_scatter_single", "reduce_scatter_tensor"):
            self._wrap(name, self._reduce)
        for name in ("all_gather_single", "all_gather_into_tensor"):
            self._wrap(name, self._gather)

    def clear(self) -> None:
        self.reduced = self.gathers = 0

    def close(self) -> None:
        for name in dir(self):
            if name.startswith("_true_"):
                setattr(dist, name.removeprefix("_true_"), getattr(self, name))

    def _wrap(self, name: str, count: Any) -> None:
        true = getattr(dist, name, None)
        if true is None:
            return
        setattr(self, f"_true_{name}", true)

        def counted(*args: Any, **kwargs: Any) -> Any:
            count(*args, **kwargs)
            return true(*args, **kwargs)

        setattr(dist, name, counted)

    def _reduce(self, *args: Any, **kwargs: Any) -> None:
        self.reduced += kwargs.get("input", args[1] if len(args) > 1 else None).numel()

    def _gather(self, *args: Any, **kwargs: Any) -> None:
        self.gathers += 1


def sharded(per_layer: bool = True, **options: Any) -> nn.Module:
    model = plain_net()
    if per_layer:
        for layer in model:
            fully_shard(layer, **options)
    fully_shard(model, **options)
    return model


def whole(tensor: torch.Tensor) -> torch.Tensor:
    full = getattr(tensor, "full_tensor", None)
    return tensor.detach() if full is None else full().detach()


def fsdp(rank: int, keep: bool, per_layer: bool) -> dict[str, Any]:
    model = sharded(per_layer)
    traffic = Traffic()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    scheduler = FreezeOut(optimizer, model, STEPS, schedule=SCHEDULE)
    scheduler.freezer.follow(keep_unsharded=keep)
    seen: dict[str, Any] = {
        k: [] for k in ("gradients", "weights", "reduced", "gathers", "depths", "held")
    }
    try:
        for step in range(STEPS):
            traffic.clear()
            x, y = (part(rank, both) for both in batch(step))
            F.cross_entropy(model(x), y).backward()
            seen["reduced"].append(traffic.reduced)
            seen["gathers"].append(traffic.gathers)
            seen["held"].append(sum(p.numel() for p in model.parameters() if type(p) is P))
            seen["gradients"].append(
                {n: None if p.grad is None else whole(p.grad).clone() for n, p in named(scheduler)}
            )
            optimizer.step()
            optimizer.zero_grad()
            scheduler.step()
            seen["depths"].append(scheduler.frozen)
            seen["weights"].append(flat([whole(p) for _, p in named(scheduler)]))
        seen["state"] = {n: whole(t).clone() for n, t in model.state_dict().items()}
        scheduler.freezer.unfreeze()
        seen["flags"] = [p.requires_grad for p in model.parameters()]
        traffic.clear()
        F.cross_entropy(model(part(rank, batch(0)[0])), part(rank, batch(0)[1])).backward()
        seen["unfrozen"] = traffic.reduced
    finally:
        traffic.close()
    return seen


def thawed_as_it_was(rank: int, after_forward: bool, after_backward: bool) -> dict[str, list[int]]:
    """Gathers in each step, before a freeze that keeps groups gathered and after it is undone."""
    model = sharded()
    for layer in model:
        layer.set_reshard_after_forward(after_forward, recurse=False)
        layer.set_reshard_after_backward(after_backward, recurse=False)
    traffic = Traffic()
    freezer = Freezer(split_layers(model))
    freezer.follow(keep_unsharded=True)
    gathers: dict[str, list[int]] = {"before": [], "frozen": [], "after": []}
    try:
        for when, depth in (("before", 0), ("frozen", 2), ("after", 0)):
            freezer.set_depth(depth)
            for step in range(3):
                traffic.clear()
                model(part(rank, batch(step)[0])).sum().backward()
                gathers[when].append(traffic.gathers)
    finally:
        traffic.close()
    return gathers


def out_of_order(rank: int) -> str:
    """A cut that is no prefix: the message names what the optimizer knows, not a gathered copy."""
    model = sharded()
    freezer = Freezer(split_layers(model, layers=["1", "0", "2", "3"]), strict=True)
    freezer.set_depth(1)
    try:
        model(part(rank, batch(0)[0]))
    except PrefixError as error:
        return str(error)
    return ""


P = nn.Parameter


def named(scheduler: FreezeOut) -> list[tuple[str, nn.Parameter]]:
    """The sharded parameters: while a group is gathered, its modules hold others."""
    return [pair for layer in scheduler.layers for pair in layer.parameters]


def thaw_in_bf16(rank: int, first: bool) -> dict[str, Any]:
    """Frozen before the first forward pass, unfrozen later, in mixed precision (pytorch#186998)."""
    policy = MixedPrecisionPolicy(param_dtype=torch.bfloat16, reduce_dtype=torch.float32)
    model = sharded(mp_policy=policy)
    freezer = Freezer(split_layers(model))
    x, y = (part(rank, both) for both in batch(0))
    if first:
        F.cross_entropy(model(x).float(), y).backward()
        model.zero_grad()
    freezer.set_depth(2)
    F.cross_entropy(model(x).float(), y).backward()
    model.zero_grad()
    freezer.unfreeze()
    F.cross_entropy(model(x).float(), y).backward()
    return {n: whole(p.grad) for n, p in model.named_parameters()}


def fsdp_disagree(rank: int) -> str:
    freezer = Freezer(split_layers(sharded()))
    try:
        freezer.set_depth(1 + rank)
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return ""


def costs_of_a_sharded_model(rank: int) -> str:
    model = sharded()
    try:
        measure_costs(model, batch(0)[0])
    except CostError as error:
        return str(error)
    return ""


def zero(rank: int, bucket_view: bool) -> dict[str, Any]:
    """ZeroRedundancyOptimizer under DDP, with a state that is kept by halves."""
    from torch.distributed.optim import ZeroRedundancyOptimizer  # its import warns

    model = plain_net()
    wrapper = DistributedDataParallel(model)
    optimizer = ZeroRedundancyOptimizer(
        model.parameters(),
        torch.optim.Adam,
        parameters_as_bucket_view=bucket_view,
        lr=0.05,
    )
    scheduler = FreezeOut(optimizer, wrapper, STEPS, schedule=SCHEDULE)
    held, rates, frozen_bits, before = [], [], [], {}
    for step in range(STEPS):
        x, y = (part(rank, both) for both in batch(step))
        F.cross_entropy(wrapper(x), y).backward()
        wanted = scheduler.get_last_lr()
        optimizer.step()
        rates.append([g["lr"] for g in optimizer.optim.param_groups] == wanted)
        optimizer.zero_grad()
        scheduler.step()
        held.append(len(optimizer.optim.state))
        for layer in scheduler.layers[: scheduler.frozen]:
            bits = flat(p for _, p in layer.parameters)
            frozen_bits.append(torch.equal(before.setdefault(layer.index, bits), bits))
    optimizer.consolidate_state_dict(to=0)
    saved = len(optimizer.state_dict()["state"]) if rank == 0 else 0
    return {
        "weights": flat(model.parameters()),
        "held": held,
        "frozen": all(frozen_bits) and bool(frozen_bits),
        "rates": rates,
        "saved": saved,
    }


def zero_refusals(rank: int) -> list[str]:
    from torch.distributed.optim import ZeroRedundancyOptimizer

    said = []
    model = plain_net()
    used = ZeroRedundancyOptimizer(model.parameters(), torch.optim.Adam, lr=0.05)
    model(torch.zeros(2, 6)).sum().backward()
    used.step()
    overlapping = ZeroRedundancyOptimizer(
        plain_net().parameters(), torch.optim.Adam, overlap_with_ddp=True, lr=0.05
    )
    for optimizer, net in ((used, model), (overlapping, None)):
        groups = list(optimizer.param_groups)
        try:
            target = net or _model_of(overlapping)
            FreezeOut(optimizer, target, STEPS, schedule=SCHEDULE)
        except Exception as error:
            said.append(f"{type(error).__name__}: {error}")
        assert optimizer.param_groups == groups
    return said


def _model_of(optimizer: Any) -> nn.Module:
    model = plain_net()
    for (name, _), p in zip(
        list(model.named_parameters()), optimizer.param_groups[0]["params"], strict=True
    ):
        path, _, local = name.rpartition(".")
        setattr(model.get_submodule(path), local, p)
    return model


def dcp_run(rank: int, folder: str, shard: bool) -> dict[str, Any]:
    """Saves with torch.distributed.checkpoint in mid-run, loads into fresh objects, goes on."""

    def build() -> tuple[nn.Module, Any, FreezeOut]:
        model = sharded() if shard else plain_net()
        optimizer = torch.optim.AdamW(model.parameters(), lr=0.05)
        return model, optimizer, FreezeOut(optimizer, model, STEPS, schedule=SCHEDULE)

    def go(model: nn.Module, optimizer: Any, scheduler: FreezeOut, start: int, stop: int) -> None:
        for step in range(start, stop):
            x, y = (part(rank, both) if shard else both for both in batch(step))
            F.cross_entropy(model(x), y).backward()
            optimizer.step()
            optimizer.zero_grad()
            scheduler.step()

    model, optimizer, scheduler = build()
    go(model, optimizer, scheduler, 0, 5)
    weights, state = get_state_dict(model, optimizer)
    everything = {"model": weights, "optimizer": state}
    dcp.save(everything, checkpoint_id=folder)
    progress = scheduler.state_dict()
    entries = len(optimizer.state)
    go(model, optimizer, scheduler, 5, STEPS)

    again = build()
    again[2].load_state_dict(progress)  # first: it freezes what was frozen
    weights, state = get_state_dict(again[0], again[1])
    everything = {"model": weights, "optimizer": state}
    dcp.load(everything, checkpoint_id=folder)
    set_state_dict(
        again[0],
        again[1],
        model_state_dict=everything["model"],
        optim_state_dict=everything["optimizer"],
    )
    loaded = len(again[1].state)
    go(*again, 5, STEPS)
    return {
        "frozen": (scheduler.frozen, again[2].frozen),
        "entries": (entries, loaded),
        "same": all(
            torch.equal(whole(a), whole(b))
            for a, b in zip(model.parameters(), again[0].parameters(), strict=True)
        ),
        "files": len(list(Path(folder).iterdir())),
    }
