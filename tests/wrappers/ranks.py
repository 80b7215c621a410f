"""Several processes that are joined by gloo, and run functions of the tests side by side."""

from __future__ import annotations

import datetime
import os
import tempfile
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as mp

START = 600.0
"""Seconds that a process may take to start; importing torch is slow on a busy machine."""


class RankError(AssertionError):
    """A function failed in some process; the text has every process's traceback."""


class Ranks:
    """Joined processes. Use `joined`, which ends them."""

    def __init__(self, size: int, folder: Path) -> None:
        context = mp.get_context("spawn")
        self._pipes: list[Connection] = []
        self._processes = []
        for rank in range(size):
            here, there = context.Pipe()
            process = context.Process(
                target=_serve, args=(rank, size, str(folder / "store"), there), daemon=True
            )
            process.start()
            there.close()
            self._pipes.append(here)
            self._processes.append(process)
        self._collect(START)

    def run(self, function: Callable[..., Any], *args: Any, timeout: float = 600.0) -> list[Any]:
        """What `function` returns in each process, rank 0 first; it must be importable by name."""
        for pipe in self._pipes:
            pipe.send((function, args))
        return self._collect(timeout)

    def close(self) -> None:
        for process in self._processes:
            process.kill()
            process.join()

    def _collect(self, timeout: float) -> list[Any]:
        answers = []
        for rank, pipe in enumerate(self._pipes):
            if not pipe.poll(timeout):
                self.close()
                raise RankError(f"rank {rank} gave no answer within {timeout} s")
            answers.append(pipe.recv())
        failed = [f"rank {rank}:\n{text}" for rank, (ok, text) in enumerate(answers) if not ok]
        if failed:
            raise RankError("\n".join(failed))
        return [value for _, value in answers]


@contextmanager
def joined(size: int) -> Iterator[Ranks]:
    with tempfile.TemporaryDirectory() as folder:
        ranks = Ranks(size, Path(folder))
        try:
            yield ranks
        finally:
            ranks.close()


def _serve(rank: int, size: int, store: str, pipe: Connection) -> None:
    torch.set_num_threads(1)
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    dist.init_process_group(
        "gloo",
        init_method=f"file://{store}",
        rank=rank,
        world_size=size,
        timeout=datetime.timedelta(seconds=500),
    )
    pipe.send((True, None))
    while True:
        function, args = pipe.recv()
        try:
            answer: tuple[bool, Any] = (True, function(rank, *args))
        except BaseException:
            answer = (False, traceback.format_exc())
        pipe.send(answer)
