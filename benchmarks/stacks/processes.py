"""Several processes that train together, and the one that started them."""

from __future__ import annotations

import datetime
import os
import socket
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any, TypeAlias

import torch
import torch.distributed as dist
import torch.multiprocessing as mp

__all__ = ["Job", "Place", "run_joined", "slowest"]

Job: TypeAlias = Callable[..., Any]

TIMEOUT = datetime.timedelta(seconds=300)
"""Of a collective operation; longer than anything that one process does alone."""


class Place:
    """Where the processes run: how many, on what, joined by which backend.

    Args:
        device: ``"cpu"`` (gloo) or ``"cuda"`` (NCCL, a GPU each).
        processes: How many; with ``"cuda"`` at most as many as there are GPUs.
    """

    def __init__(self, device: str, processes: int = 2) -> None:
        gpus = torch.cuda.device_count() if device == "cuda" else processes
        self.device = device
        self.processes = max(1, min(processes, gpus))
        self.backend = "nccl" if device == "cuda" else "gloo"


def run_joined(place: Place, job: Job, *args: Any) -> Any:
    """Run ``job(device, *args)`` in every process alike; return what it returns in process 0.

    Args:
        place: Where.
        job: Importable by name, as processes are started afresh. What it returns is pickled.
        args: Passed on.

    Raises:
        RuntimeError: If it failed in some process; the text has the traceback of the first.
    """
    context = mp.get_context("spawn")
    port = _free_port()
    pipes: list[Connection] = []
    processes = []
    try:
        for rank in range(place.processes):
            here, there = context.Pipe(duplex=False)
            process = context.Process(
                target=_serve, args=(rank, place, port, there, job, args), daemon=True
            )
            process.start()
            there.close()
            pipes.append(here)
            processes.append(process)
        return _collect(pipes)
    finally:
        for process in processes:
            process.kill()
            process.join()


def _free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def _collect(pipes: list[Connection]) -> Any:
    """Return the answer of process 0, once all have answered; the first failure ends it."""
    waiting = dict(enumerate(pipes))
    answers: dict[int, Any] = {}
    while waiting:
        for rank, pipe in list(waiting.items()):
            if not pipe.poll(0.1):
                continue
            try:
                good, value = pipe.recv()
            except EOFError:
                raise RuntimeError(f"process {rank} ended without an answer.") from None
            if not good:
                raise RuntimeError(f"process {rank} failed:\n{value}")
            answers[rank] = value
            del waiting[rank]
    return answers[0]


def _serve(
    rank: int, place: Place, port: int, pipe: Connection, job: Job, args: tuple[Any, ...]
) -> None:
    torch.set_num_threads(1)
    device = torch.device(f"cuda:{rank}" if place.device == "cuda" else place.device)
    if device.type == "cuda":
        torch.cuda.set_device(device)
    else:
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    try:
        dist.init_process_group(
            place.backend,
            init_method=f"tcp://127.0.0.1:{port}",
            rank=rank,
            world_size=place.processes,
            timeout=TIMEOUT,
        )
        answer: tuple[bool, Any] = (True, job(device, *args))
    except BaseException:
        answer = (False, traceback.format_exc())
    pipe.send(answer)
    pipe.close()


def slowest(seconds: list[float]) -> list[float]:
    """Return for each timing the longest over processes, which all took it at the same time."""
    everyone: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(everyone, seconds)
    return [max(values) for values in zip(*everyone, strict=True)]
