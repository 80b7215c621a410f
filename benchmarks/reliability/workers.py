"""Processes of an experiment, forked from the one that drives it, so that they start at once."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any

from benchmarks.reliability.children import take_streams
from benchmarks.reliability.interruptions import Interruption, leave_alone

__all__ = ["STARTED", "ForkedWorker", "interrupt_worker", "start"]

STARTED = "started"
"""File in the folder of a case: the processes that an experiment started, one a line."""

_WORKER = "freezeout.lab.experiments.runners.worker"
_plans: dict[int, Interruption] = {}
_count = 0
_real = subprocess.Popen


def interrupt_worker(number: int, how: Interruption) -> None:
    """Let the n-th worker that this process starts, from 1 on, be interrupted."""
    _plans[number] = how


def start(arguments: Sequence[str], *rest: Any, **options: Any) -> Any:
    """Stand in for ``subprocess.Popen``: a worker is forked, all else is started as always."""
    if _WORKER not in arguments:
        return _real(arguments, *rest, **options)
    return ForkedWorker(options["stderr"], options.get("env") or {})


class ForkedWorker:
    """What ``subprocess.Popen`` would return for a worker.

    Args:
        log: File for its error stream.
        environment: Its environment.
    """

    def __init__(self, log: IO[bytes], environment: Mapping[str, str]) -> None:
        global _count
        _count += 1
        inward, outward = os.pipe(), os.pipe()
        self.returncode: int | None = None
        self.pid = os.fork()
        if self.pid == 0:
            _be(inward[0], outward[1], log.fileno(), environment, _plans.get(_count))
        os.close(inward[0])
        os.close(outward[1])
        self.stdin = os.fdopen(inward[1], "wb")
        self.stdout = os.fdopen(outward[0], "rb")
        with Path(STARTED).open("a") as file:
            file.write(f"{self.pid}\n")

    def poll(self) -> int | None:
        """Return its exit code, ``None`` while it runs."""
        return self._reap(os.WNOHANG)

    def wait(self, timeout: float | None = None) -> int:
        """Wait for its end."""
        code = self._reap(0)
        assert code is not None
        return code

    def kill(self) -> None:
        """Kill it."""
        self.send_signal(signal.SIGKILL)

    def terminate(self) -> None:
        """Ask it to end."""
        self.send_signal(signal.SIGTERM)

    def send_signal(self, number: int) -> None:
        """Send it a signal, unless it has ended."""
        if self.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def _reap(self, options: int) -> int | None:
        if self.returncode is None:
            with contextlib.suppress(ChildProcessError):
                pid, status = os.waitpid(self.pid, options)
                if pid:
                    self.returncode = os.waitstatus_to_exitcode(status)
        return self.returncode


def _be(
    inward: int, outward: int, log: int, environment: Mapping[str, str], how: Interruption | None
) -> None:
    """Be the worker; this never returns."""
    from freezeout.lab.experiments.runners import worker

    code = 1
    try:
        os.setsid()
        leave_alone()
        take_streams(inward, outward, log)
        os.environ.clear()
        os.environ.update(environment)
        if how is not None:
            how.install()
        code = worker.main()
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else 1
    except BaseException:
        traceback.print_exc()
    finally:
        with contextlib.suppress(BaseException):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)
