"""What the processes of `ranks` do in the tests of data parallelism."""

from __future__ import annotations

import copy
import datetime
import gc
import warnings
from contextlib import nullcontext
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import nn
from torch.distributed.algorithms.join import Join
from torch.nn.parallel import DistributedDataParallel

from freezeout import (
    CostError,
    FreezeOut,
    Freezer,
    measure_costs,
    split_layers,
    unfreeze,
    wrappers,
)
from freezeout.errors import DistributedError
from freezeout.wrappers import ddp as reducer_module
from tests.wrappers.small_run import (
    SCHEDULE,
    STEPS,
    Counter,
    batch,
    flat,
    gradients,
    part,
    plain_net,
)


def run_ddp(rank: int, how: str, options: dict[str, Any], micros: int = 1) -> dict[str, Any]:
    """A run under DistributedDataParallel; `how` the scheduler comes to know of the wrapper."""
    model = plain_net()
    holder = nn.ModuleDict({"net": model, "tail": nn.Linear(1, 1).requires_grad_(False)})
    if how == "inside another":
        holder.forward = lambda x: model(x)  # type: ignore[method-assign]
        wrapped: nn.Module = DistributedDataParallel(holder, **options)
    elif how == "a subclass, not told":
        kind = type("Custom", (DistributedDataParallel,), {})
        wrapped = kind(model, **options)
    else:
        wrapped = DistributedDataParallel(model, **options)
    counter = Counter()
    wrapper = wrapped
    wrapper.register_comm_hook(None, counter.hook)  # type: ignore[operator]
    if how == "compiled":
        wrapped = torch.compile(wrapped, backend="aot_eager")
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    given = model if "not told" in how or how == "inside another" else wrapped
    scheduler = FreezeOut(optimizer, given, STEPS, schedule=SCHEDULE)
    seen: dict[str, Any] = {"gradients": [], "weights": [], "reduced": [], "said": [], "depths": []}
    for step in range(STEPS):
        counter.now = 0
        for micro in range(micros):
            last = micro == micros - 1
            x, y = (part(rank, whole) for whole in batch(step, micro))
            with nullcontext() if last else wrapper.no_sync():  # type: ignore[operator]
                (F.cross_entropy(wrapped(x), y) / micros).backward()
        seen["said"].append(wrappers.reduced_elements(wrapper))
        seen["reduced"].append(counter.now)
        seen["gradients"].append(gradients(model))
        optimizer.step()
        optimizer.zero_grad(set_to_none=step % 2 == 0)
        scheduler.step()
        seen["depths"].append(scheduler.frozen)
        seen["weights"].append(flat(model.parameters()))
    del wrapped, wrapper, scheduler
    gc.collect()
    return seen


def unwrapped_again(rank: int) -> dict[str, Any]:
    """Freezes, unfreezes, freezes: gradients and exchange follow each time."""
    model = plain_net()
    wrapper = DistributedDataParallel(model, static_graph=True)
    twin = copy.deepcopy(model)
    counter = Counter()
    wrapper.register_comm_hook(None, counter.hook)
    freezer = Freezer(split_layers(model))
    modes = Freezer(split_layers(twin))
    reduced, worst = [], 0.0
    for step, depth in enumerate((0, 2, 1, 0, 3)):
        freezer.set_depth(depth)
        modes.set_depth(depth)
        for again in range(2):
            counter.now = 0
            x, y = batch(step, again)
            F.cross_entropy(wrapper(part(rank, x)), part(rank, y)).backward()
            F.cross_entropy(twin(x), y).backward()
            ours, theirs = gradients(model), gradients(twin)
            assert {n: g is None for n, g in ours.items()} == {
                n: g is None for n, g in theirs.items()
            }
            worst = max(
                [worst]
                + [float((ours[n] - g).abs().max()) for n, g in theirs.items() if g is not None]
            )
            reduced.append(counter.now)
            model.zero_grad()
            twin.zero_grad()
    static = wrapper._get_ddp_logging_data()["static_graph"]  # of the reducer that it has now
    return {"reduced": reduced, "worst": worst, "static": bool(int(static))}


def with_buffers(rank: int, sync: bool) -> dict[str, Any]:
    """BatchNorm's buffers: what is broadcast, and whether frozen ones agree."""
    model = plain_net(norm=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        wrapper = DistributedDataParallel(model, **{reducer_module._broadcast_option(): sync})
    sent: list[int] = []
    inner = wrapper._distributed_broadcast_coalesced

    def count(tensors: Any, *args: Any, **kwargs: Any) -> None:
        sent[-1] += len(tensors)
        inner(tensors, *args, **kwargs)

    wrapper._distributed_broadcast_coalesced = count  # type: ignore[method-assign]
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    scheduler = FreezeOut(optimizer, model, STEPS, schedule=SCHEDULE)
    agree, ignored = [], []
    for step in range(STEPS):
        sent.append(0)
        x, y = (part(rank, whole) for whole in batch(step))
        F.cross_entropy(wrapper(x), y).backward()
        optimizer.step()
        optimizer.zero_grad()
        scheduler.step()
        frozen = model[: scheduler.frozen]
        mine = flat([*frozen.buffers(), torch.zeros(1)])
        others = [torch.empty_like(mine) for _ in range(dist.get_world_size())]
        dist.all_gather(others, mine)
        agree.append(all(torch.equal(mine, other) for other in others))
    scheduler.freezer.unfreeze()
    sent.append(0)
    wrapper(part(rank, batch(0)[0]))
    ignored = sorted(wrapper.parameters_to_ignore)
    return {"sent": sent, "agree": agree, "ignored": ignored}


def power(rank: int) -> dict[str, Any]:
    """PowerSGD keeps state for each bucket; buckets change at a freeze."""
    from torch.distributed.algorithms.ddp_comm_hooks import powerSGD_hook as power_sgd

    model = plain_net()
    wrapper = DistributedDataParallel(model)
    state = power_sgd.PowerSGDState(None, 1, start_powerSGD_iter=2, min_compression_rate=0.5)
    wrapper.register_comm_hook(state, power_sgd.powerSGD_hook)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    scheduler = FreezeOut(optimizer, wrapper, STEPS, schedule=SCHEDULE)
    kept, iterations = [], []
    for step in range(STEPS):
        x, y = (part(rank, whole) for whole in batch(step))
        F.cross_entropy(wrapper(x), y).backward()
        optimizer.step()
        optimizer.zero_grad()
        scheduler.step()
        kept.append(sum(t.numel() for t in state.error_dict.values()))
        iterations.append(state.iter)
    return {"kept": kept, "iterations": iterations, "weights": flat(model.parameters())}


def replaced(rank: int, tell: bool) -> dict[str, Any]:
    """A PyTorch whose reducer cannot be made again in place: a new wrapper after each freeze."""
    model = plain_net(norm=True)
    current = DistributedDataParallel(model, gradient_as_bucket_view=True, bucket_cap_mb=1)
    current.train()
    counter = Counter()
    current.register_comm_hook(None, counter.hook)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    scheduler = FreezeOut(optimizer, model, STEPS, schedule=SCHEDULE)
    made = [current]
    if tell:
        scheduler.freezer.follow(replace=made.append)
    known = reducer_module._PRIVATE
    reducer_module._PRIVATE = (*known, "_something_newer")  # type: ignore[assignment]
    reduced, same = [], []
    try:
        for step in range(STEPS):
            counter.now = 0
            x, y = (part(rank, whole) for whole in batch(step))
            F.cross_entropy(made[-1](x), y).backward()
            optimizer.step()
            optimizer.zero_grad()
            try:
                scheduler.step()
            except DistributedError as error:
                return {"error": str(error), "depth": scheduler.frozen, "step": step}
            reduced.append(counter.now)
            mine = flat(model.parameters())
            others = [torch.empty_like(mine) for _ in range(dist.get_world_size())]
            dist.all_gather(others, mine)
            same.append(all(torch.equal(mine, other) for other in others))
    finally:
        reducer_module._PRIVATE = known
    last = made[-1]
    return {
        "reduced": reduced,
        "same": same,
        "made": len(made),
        "options": (last.gradient_as_bucket_view, last.bucket_bytes_cap, last.training),
        "buffers": len(last.modules_buffers),
        "attribute": "_ddp_params_and_buffers_to_ignore" in model.__dict__,
    }


def refuses_hooks_of_its_own(rank: int) -> list[str]:
    from torch.nn.parallel.distributed import _MixedPrecision

    said = []
    model = plain_net()
    wrapper = DistributedDataParallel(
        model, mixed_precision=_MixedPrecision(param_dtype=torch.bfloat16)
    )
    freezer = Freezer(split_layers(model))
    for act in (lambda: freezer.set_depth(1), lambda: wrappers.rewrap(wrapper)):
        try:
            act()
        except DistributedError as error:
            said.append(str(error))
    assert freezer.depth == 0
    return said


def disagree(rank: int, late: bool) -> dict[str, Any]:
    """One rank wants something else, or does not come at all."""
    # After a disagreement about a model nothing can be agreed on again: take one of other names.
    model = (
        nn.Sequential(*plain_net(), nn.Identity(), nn.Linear(3, 3))
        if late
        else nn.Sequential(*plain_net(), nn.Linear(3, 3))
    )
    wrapper = DistributedDataParallel(model)
    freezer = Freezer(split_layers(model))
    freezer.follow(timeout=1.0 if late else 60.0)
    said = ""
    if late and rank == 1:
        dist.barrier()  # the other has given up
    try:
        freezer.set_depth(2 if rank and not late else 1, step=7)
    except DistributedError as error:
        said = str(error)
    if late and rank == 0:
        dist.barrier()
    dist.barrier()
    flags = [p.requires_grad for p in wrapper.parameters()]
    return {"said": said, "depth": freezer.depth, "live": all(flags)}


def made_after_a_resume(rank: int) -> dict[str, Any]:
    """The model is wrapped only after the frozen layers were restored."""
    model = plain_net(norm=True)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    scheduler = FreezeOut(optimizer, model, STEPS, schedule=SCHEDULE)
    state = scheduler.state_dict() | {"last_epoch": 6}
    scheduler.load_state_dict(state)
    wrapper = DistributedDataParallel(model)
    before = wrappers.reduced_elements(wrapper)
    sent = []
    for step in range(6, 9):
        x, y = (part(rank, whole) for whole in batch(step))
        F.cross_entropy(wrapper(x), y).backward()
        sent.append(len(wrapper.modules_buffers))
        optimizer.step()
        optimizer.zero_grad()
        scheduler.step()
    again = unfreeze_and_count(model, wrapper)
    return {"before": before, "sent": sent, "after": again}


def unfreeze_and_count(model: nn.Module, wrapper: DistributedDataParallel) -> int:
    counter = Counter()
    unfreeze(model)  # as a new Freezer would
    rewrapped = wrappers.rewrap(wrapper)
    rewrapped.register_comm_hook(None, counter.hook)
    rewrapped(torch.zeros(4, 6)).sum().backward()
    model.zero_grad()
    return counter.now


def late_first(rank: int) -> str:
    """Rank 0 comes when the other has given up: it must not go on alone."""
    model = nn.Sequential(*plain_net(), nn.Tanh(), nn.Tanh(), nn.Linear(3, 3))
    wrapper = DistributedDataParallel(model)
    freezer = Freezer(split_layers(wrapper.module))
    freezer.follow(timeout=0.5)
    if rank == 0:
        dist.barrier()  # the other has given up
    said = ""
    try:
        freezer.set_depth(1)
    except DistributedError as error:
        said = str(error)
    if rank == 1:
        dist.barrier()
    return said or f"froze {freezer.depth}"


class Halves(nn.Module):
    """A body and a head, either of which may be wrapped by itself."""

    def __init__(self) -> None:
        super().__init__()
        net = plain_net()
        self.body = net[:3]
        self.head = net[3]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.body(x))


def in_parts(rank: int, when: str) -> dict[str, Any]:
    """The wrapper is around a part of the model, made before or after the scheduler."""
    model = Halves()
    counter = Counter()

    def wrap() -> DistributedDataParallel:
        body = DistributedDataParallel(model.body)
        body.register_comm_hook(None, counter.hook)
        model.body = body
        return body

    body = wrap() if when == "before" else None
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    scheduler = FreezeOut(optimizer, model, STEPS, schedule=SCHEDULE)
    body = wrap() if body is None else body
    seen: dict[str, Any] = {"weights": [], "reduced": [], "depths": []}
    for step in range(STEPS):
        counter.now = 0
        x, y = (part(rank, whole) for whole in batch(step))
        F.cross_entropy(model(x), y).backward()
        for p in model.head.parameters():  # the other part is averaged by hand
            dist.all_reduce(p.grad)
            p.grad /= dist.get_world_size()
        optimizer.step()
        optimizer.zero_grad()
        scheduler.step()
        seen["reduced"].append(counter.now)
        seen["depths"].append(scheduler.frozen)
        seen["weights"].append(flat(model.parameters()))
    scheduler.freezer.unfreeze()
    counter.now = 0
    model(part(rank, batch(0)[0])).sum().backward()
    seen["unfrozen"] = counter.now
    return seen


def joined_with_a_frozen_body(rank: int) -> dict[str, Any]:
    """One rank has more batches than the other, and the wrapped part is frozen as a whole."""
    # A group of its own, whose waiting is short: what fails here must not reach other tests.
    group = dist.new_group(timeout=datetime.timedelta(seconds=30))
    model = Halves()
    model.body = DistributedDataParallel(model.body, process_group=group)
    freezer = Freezer(split_layers(model))
    for step in range(2):
        model(part(rank, batch(step)[0])).sum().backward()
    freezer.set_depth(3)
    assert wrappers.reduced_elements(model.body) == 0
    forwards = 0
    with Join([model.body]):
        for step in range(1 + rank):
            model(part(rank, batch(step)[0])).sum().backward()
            forwards += 1
    after = torch.full((1,), 1.0 + 2.0 * rank)
    dist.all_reduce(after, group=group)
    return {"batches": 1 + rank, "forwards": forwards, "after": float(after) / 2}


def uneven(rank: int) -> dict[str, Any]:
    """Rank 0 runs out of data; the other comes to a freeze alone."""
    group = dist.new_group(timeout=datetime.timedelta(seconds=10))
    model = nn.Sequential(*plain_net(), nn.Linear(3, 4), nn.Linear(4, 3))
    wrapper = DistributedDataParallel(model, process_group=group)
    freezer = Freezer(split_layers(model))
    freezer.follow(timeout=1.0)
    said = ""
    try:
        with Join([wrapper]):
            for step in range(1 + rank):
                wrapper(part(rank, batch(step)[0])).sum().backward()
            if rank == 1:
                freezer.set_depth(1)
    except DistributedError as error:
        said = str(error)
    except RuntimeError:
        assert rank == 0  # waited for exchanges that do not come any more
    return {"said": said, "depth": freezer.depth}


def second_wrapper(rank: int, frozen_heap: bool) -> dict[str, Any]:
    """A second wrapper around the same model is the one that is used."""
    model = plain_net()
    first = DistributedDataParallel(model)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    scheduler = FreezeOut(optimizer, first, STEPS, schedule=SCHEDULE)
    second = wrappers.rewrap(first)
    counter = Counter()
    second.register_comm_hook(None, counter.hook)
    if frozen_heap:
        gc.freeze()  # hides what is there from the collector's search
    seen: dict[str, Any] = {"weights": [], "reduced": []}
    try:
        for step in range(STEPS):
            counter.now = 0
            x, y = (part(rank, whole) for whole in batch(step))
            F.cross_entropy(second(x), y).backward()
            optimizer.step()
            optimizer.zero_grad()
            scheduler.step()
            seen["reduced"].append(counter.now)
            seen["weights"].append(flat(model.parameters()))
        seen["hidden"] = gc.get_freeze_count() > 0
    finally:
        gc.unfreeze()
    return seen


def of_some_ranks(rank: int) -> dict[str, Any]:
    """Each rank trains a network of its own, in a group of one, and freezes when it likes."""
    groups = [dist.new_group([r]) for r in range(dist.get_world_size())]
    model = plain_net()
    wrapper = DistributedDataParallel(model, process_group=groups[rank])
    freezer = Freezer(split_layers(model))
    freezer.follow(timeout=60.0)
    for depth in range(1, 2 + rank):
        freezer.set_depth(depth)
        wrapper(batch(0)[0]).sum().backward()
    return {"depth": freezer.depth, "reduced": wrappers.reduced_elements(wrapper)}


def costs_of_a_wrapped_model(rank: int) -> str:
    model = plain_net()
    wrapper = DistributedDataParallel(model)
    try:
        measure_costs(model, batch(0)[0])
    except CostError as error:
        return str(error)
    finally:
        del wrapper
    return ""
