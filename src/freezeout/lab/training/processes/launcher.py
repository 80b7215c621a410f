"""One of the processes that ``torchrun`` starts: how it joins the others, and how all end as one.

Whatever goes wrong in one process ends all of them, with one line from rank 0 and the same exit
code. The first process that fails leaves word in the store that the launcher keeps for all, and
ends. That breaks its connections, which frees the others from whatever they wait for; they read its
word and end with it.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import traceback
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import timedelta
from types import FrameType
from typing import TYPE_CHECKING, NoReturn

import torch
import torch.distributed as dist
from torch.distributed.rendezvous import rendezvous

from freezeout.errors import RunError
from freezeout.lab.training.processes.end import End
from freezeout.lab.training.signals import Interrupted

if TYPE_CHECKING:
    from freezeout.lab.training.processes.processes import Processes

__all__ = ["Launcher"]

_PATIENCE = timedelta(seconds=10)  # for rank 0 to say what went wrong
_LINGER = timedelta(seconds=3)
_ARRIVAL = timedelta(minutes=10)  # of all processes, at the beginning
_MOST = 1 << 16  # processes


class Launcher:
    """Join the processes that a launcher has started.

    Args:
        environ: The environment, with ``RANK``, ``LOCAL_RANK``, ``WORLD_SIZE``, ``MASTER_ADDR`` and
            ``MASTER_PORT``.

    Raises:
        RunError: If something of that is missing, or the others cannot be reached.
    """

    def __init__(self, environ: Mapping[str, str]) -> None:
        names = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
        missing = [name for name in names if not environ.get(name)]
        if missing:
            raise RunError(
                f"WORLD_SIZE is {environ.get('WORLD_SIZE')}, as a launcher of several processes "
                f"sets it, but nothing set {', '.join(missing)}. Start them with torchrun, or "
                "unset WORLD_SIZE."
            )
        try:
            self._rank, self._size, self._local = (
                int(environ[name]) for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK")
            )
        except ValueError as error:
            raise RunError(f"RANK and LOCAL_RANK must be whole numbers: {error}.") from error
        if not (0 <= self._rank < self._size and self._local >= 0):
            raise RunError(
                f"RANK must lie in 0 to {self._size - 1} (WORLD_SIZE - 1) and LOCAL_RANK be at "
                f"least 0, got {self._rank} and {self._local}. Start all processes with torchrun."
            )
        if self._size > _MOST:
            raise RunError(
                f"WORLD_SIZE must be at most {_MOST:,}, got {self._size}. It is the number of "
                "processes; torchrun sets it."
            )
        port = environ["MASTER_PORT"]
        if not (
            port.isdecimal() and len(port) < 6 and 0 < int(port) < 2**16
        ):  # at 0 each would wait at its own
            raise RunError(
                f"MASTER_PORT must be a port from 1 to 65535, got {port!r}. All processes meet "
                "there; torchrun chooses one by itself."
            )
        self._joined = False
        start = f"freezeout/{environ.get('TORCHELASTIC_RESTART_COUNT', '0')}"
        self._word, self._said = f"{start}/word", f"{start}/said"
        self._heard = [f"{start}/heard/{rank}" for rank in range(self._size)]
        self._keeps_store = environ.get("TORCHELASTIC_USE_AGENT_STORE") != str(True)
        try:
            self._store, _, _ = next(rendezvous("env://", timeout=_ARRIVAL))
        except (RuntimeError, ValueError, dist.DistError) as error:
            raise RunError(
                f"process {self._rank} of {self._size} cannot reach the store of the launcher at "
                f"{environ['MASTER_ADDR']}:{environ['MASTER_PORT']}. Start all with torchrun."
            ) from error

    def join(self) -> Processes:
        """Return the processes once all are there: gloo on the host, NCCL between GPUs."""
        from freezeout.lab.training.processes.processes import Processes

        if not self._joined:
            on_gpu = torch.cuda.is_available() and dist.is_nccl_available()
            dist.init_process_group(
                "cpu:gloo,cuda:nccl" if on_gpu else "gloo",
                store=self._store,
                rank=self._rank,
                world_size=self._size,
            )
            self._joined = True
        return Processes(self._rank, self._size, self._local)

    def run(self, attempt: Callable[[Launcher], End]) -> int:
        """Make an attempt in this process, and end as all processes end.

        Args:
            attempt: What to do; it gets this launcher, to join the others.

        Returns:
            The exit code, where this process has not joined the others. Otherwise it ends here.
        """
        with suppress(ValueError):  # not in the main thread
            for number in (signal.SIGINT, signal.SIGTERM):
                signal.signal(number, _interrupt)  # to end with a word, not without
        try:
            end = attempt(self)
        except Exception as error:  # a defect, with a traceback to report
            end = End(1, error=error)
        if end.code == 0:
            if self._joined:
                dist.destroy_process_group()
                _leave(0)
            return 0
        return self._fail(end)

    def _fail(self, end: End) -> int:
        for number in (signal.SIGINT, signal.SIGTERM):  # the launcher ends all if one has ended
            with suppress(ValueError):
                signal.signal(number, signal.SIG_IGN)
        lost = end.error is not None and _is_lost(end.error)
        if lost:
            end = End(2, f"freezeout: error: {_lost_words(self._size)}")
        who, code, line = self._first_word(end)
        if who == self._rank and code == 1 and end.error is not None:
            traceback.print_exception(end.error)
        with suppress(RuntimeError, dist.DistError):  # rank 0 kept the store, spoke, and is gone
            self._say(line, wait=who == self._rank and (lost or not self._joined))
        if self._joined:
            _leave(code)  # connections break now; an orderly end would wait, or abort on them
        return code

    def _first_word(self, end: End) -> tuple[int, int, str]:
        """Return who failed first, with which code and line."""
        own = json.dumps([self._rank, end.code, end.line])
        try:
            rank, code, line = json.loads(self._store.compare_set(self._word, "", own))
        except (RuntimeError, ValueError, dist.DistError):
            return self._rank, end.code, end.line
        return rank, code, line

    def _say(self, line: str, *, wait: bool) -> None:
        """Print the line of the process that failed first; rank 0 does it for all.

        Another process that failed first just ends, which frees rank 0 from waiting for it. It
        waits for rank 0 where that is on its way by itself, and speaks where rank 0 is silent.
        """
        if self._rank == 0:
            if line:
                print(line, file=sys.stderr, flush=True)
            self._store.set(self._said, "1")
            if self._keeps_store and not self._joined:  # it must not go before others have heard
                self._store.wait(self._heard[1:], _LINGER)
            return
        try:
            if wait:
                self._store.wait([self._said], _PATIENCE)
        except (RuntimeError, dist.DistError):
            self._store.check([self._said])  # fails where it is the store that is gone
            print(line, file=sys.stderr, flush=True)
        self._store.set(self._heard[self._rank], "1")


def _leave(code: int) -> NoReturn:
    """End the process without Python's clean-up: a thread of gloo may abort during it."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise Interrupted(number)


def _is_lost(error: BaseException) -> bool:
    """Return whether an error tells that a connection to another process broke."""
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, dist.DistError) or (type(seen) is RuntimeError and "gloo" in str(seen)):
            return True
        seen = seen.__cause__ or seen.__context__
    return False


def _lost_words(size: int) -> str:
    return (
        f"one of the {size} processes is gone without a word (killed, out of memory, or its "
        "machine failed). What was saved before is untouched: start it again with --resume and the "
        "folder of the run."
    )
