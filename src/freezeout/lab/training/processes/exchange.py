"""What the processes of a run exchange: gradients, and at the start the weights of rank 0."""

from __future__ import annotations

import hashlib
import inspect
import warnings
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from freezeout.errors import RunError
from freezeout.lab.training.processes.processes import Processes
from freezeout.lab.training.processes.synced_norm import other_buffers, synchronise

__all__ = [
    "check_alike",
    "draw_apart",
    "random_states",
    "restore_random",
    "share_buffers",
    "spread",
]


def spread(
    model: nn.Module, device: torch.device, *, unused: bool, same_bits: bool
) -> DistributedDataParallel:
    """Wrap a model so that it adds up the gradients of all processes in every backward pass.

    Gradients are added, not averaged: each process divides its loss by the images of the whole
    batch, so that the sum is the gradient of the mean loss also where parts differ in size. Every
    process begins with the weights and buffers of rank 0. BatchNorm uses the whole batch; buffers
    of another kind follow those of rank 0 from step to step.

    Args:
        model: On its device.
        device: That device.
        unused: Whether some parameters may be without a gradient, which costs a look at the graph.
        same_bits: Add in the order of ranks. The order of the usual exchange depends on how
            gradients are packed, which a resumed run does again, so that with three processes and
            more its last bits would be others.
    """
    synchronise(model)
    # Those of a synchronised BatchNorm are the same everywhere already. The name of this choice
    # changed in PyTorch 2.13.
    known = inspect.signature(DistributedDataParallel).parameters
    choice = "forward_sync_buffers" if "forward_sync_buffers" in known else "broadcast_buffers"
    options: dict[str, Any] = {choice: bool(other_buffers(model))}
    # A custom network may leave parameters out in one step and not in another.
    warnings.filterwarnings("ignore", message="find_unused_parameters=True was specified")
    wrapper = DistributedDataParallel(
        model,
        device_ids=[device] if device.type == "cuda" else None,
        find_unused_parameters=unused,
        gradient_as_bucket_view=True,
        **options,
    )
    in_order = same_bits and dist.get_world_size() > 2
    add = _sum_in_order if in_order else _sum
    wrapper.register_comm_hook(None, lambda state, bucket: add(bucket))
    return wrapper


def check_alike(model: nn.Module, name: str, processes: Processes) -> None:
    """Raise `RunError`, in every process, if a model differs in shape between them."""
    own = [(n, tuple(p.shape), str(p.dtype)) for n, p in model.named_parameters()]
    found = processes.gather_objects(own)
    for rank, other in enumerate(found):
        if other != found[0]:
            raise RunError(
                f"{name} makes another network in process {rank} than in process 0. It must not "
                "depend on the process it runs in."
            )


def share_buffers(model: nn.Module) -> None:
    """Give every process rank 0's buffers, as far as they may differ, before a test."""
    for buffer in other_buffers(model):
        sent = buffer.contiguous()
        dist.broadcast(sent, 0)
        if sent is not buffer:
            buffer.copy_(sent)


def _sum(bucket: Any) -> torch.futures.Future[torch.Tensor]:
    work = dist.all_reduce(bucket.buffer(), async_op=True)
    added: torch.futures.Future[torch.Tensor] = work.get_future().then(lambda f: f.value()[0])
    return added


def _sum_in_order(bucket: Any) -> torch.futures.Future[torch.Tensor]:
    """Add up one share of all gradients in each process, then give all shares to all."""
    values, size = bucket.buffer(), dist.get_world_size()
    share = -(-values.numel() // size)
    padded = values.new_zeros(size * share)
    padded[: values.numel()] = values
    parts = torch.empty_like(padded)
    dist.all_to_all_single(parts, padded)
    total, *rest = parts.view(size, share).unbind()
    for part in rest:
        total += part
    dist.all_gather(list(padded.view(size, share).unbind()), total)
    values.copy_(padded[: values.numel()])
    done: torch.futures.Future[torch.Tensor] = torch.futures.Future(
        devices=[values.device] if values.is_cuda else []
    )
    done.set_result(values)
    return done


def draw_apart(seed: int, processes: Processes, step: int = 0) -> None:
    """Give every process but rank 0 its own random numbers, for dropout and the like."""
    if not processes.main:
        text = f"process {processes.rank} {seed} {step}"
        digest = hashlib.blake2b(text.encode(), digest_size=8).digest()
        torch.manual_seed(int.from_bytes(digest, "big") >> 1)


def random_states(
    device: torch.device, processes: Processes
) -> list[tuple[torch.Tensor, torch.Tensor | None]]:
    """Return the states of torch's generators in all processes, on the CPU and on the GPU."""
    on_gpu = torch.cuda.get_rng_state(device) if device.type == "cuda" else None
    return processes.gather_objects((torch.get_rng_state(), on_gpu))


def restore_random(
    states: list[tuple[torch.Tensor, torch.Tensor | None]],
    device: torch.device,
    processes: Processes,
    *,
    seed: int,
    step: int,
) -> None:
    """Put back what `random_states` returned; a process that was not there seeds its own."""
    if processes.rank >= len(states):
        draw_apart(seed, processes, step)
        return
    on_cpu, on_gpu = states[processes.rank]
    torch.set_rng_state(on_cpu)
    if on_gpu is not None and device.type == "cuda":
        torch.cuda.set_rng_state(on_gpu, device)
