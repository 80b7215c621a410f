"""The process of one task, seen from the one that started it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from freezeout.errors import RunError
from freezeout.lab.experiments.runners.runner import Task

__all__ = ["Worker"]

_POLL = 0.2  # seconds between looks for a stop
_PROGRAM = (sys.executable, "-m", "freezeout.lab.experiments.runners.worker")
_END = 60.0  # seconds for a process that has said its last word to end


class Worker:
    """The process of one task, not yet at work.

    Args:
        task: What it is to do.
        cores: The cores that it may use; ``None``: all.
        threads: CPU threads.
        logs: Folder for what it prints.

    Attributes:
        task: What it is to do.
        starts: How often it has been started.
        reached: How many turns of its run are done, of a hundred; -1 before its first.
        log: The file of what it prints.

    Raises:
        RunError: If it cannot be started.
    """

    def __init__(self, task: Task, cores: Sequence[int] | None, threads: int, logs: Path) -> None:
        self.task = task
        self.starts = 0
        folder = task.job.folder
        names = (folder.parent.parent.name, folder.parent.name, folder.name)
        self.log = logs / f"{'--'.join(names[task.do == 'measure' :])}.log"
        self._cores = cores
        self._threads = str(threads)
        self.start()

    def start(self) -> None:
        """Start the process; it does not begin to work before its first turn.

        Raises:
            RunError: If the system starts none, or its log cannot be written.
        """
        self.starts += 1
        names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
        try:
            with self.log.open("ab") as log:
                self._process = subprocess.Popen(
                    _PROGRAM,
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=log,
                    env={**os.environ, **dict.fromkeys(names, self._threads)},
                    start_new_session=True,  # Ctrl-C is for us: we tell it to stop
                )
        except OSError as error:
            raise RunError(
                f"cannot start a process that prints into {self.log}: {error.strerror or error}. "
                "Free memory, end other processes, or fix permissions; the same command goes on."
            ) from error
        if self._cores is not None:
            with suppress(OSError):  # gone already
                os.sched_setaffinity(self._process.pid, self._cores)
        self._fresh = True
        self.reached = -1

    def turn(self, stop: threading.Event) -> dict[str, Any] | None:
        """Let it work until the end of a turn; return what it says, ``None`` if it died."""
        if self._fresh:
            self._fresh = False
            said = self._say(json.dumps({"do": self.task.do, "job": self.task.job.to_dict()}))
        else:
            said = self._say("go")
        return self._answer(stop) if said else None

    def stop(self) -> dict[str, Any] | None:
        """Make it save and end, wherever it is, and return its last message."""
        self.cut()
        while True:
            message = self._answer()
            if message is None or message["event"] == "end":
                return message

    def kill(self) -> None:
        """End it at once, and with it what it has started."""
        self._end_family()
        self._process.kill()
        self._process.wait()

    def discard(self) -> None:
        """End it at once, if it has not ended, and close its streams; nobody else may read them."""
        self.kill()
        with suppress(OSError):
            self._stdin.close()
        self._stdout.close()

    def wait(self) -> int:
        """Wait for its end, which is brought about if it does not come, and close its streams."""
        until = time.monotonic() + _END  # a thread of custom code may go on for ever
        while not self._is_dead() and time.monotonic() < until:
            time.sleep(_POLL / 10)
        self.discard()
        code: int = self._process.returncode
        return code

    def end_words(self, code: int) -> str:
        """Say how a process died."""
        words = f"signal {-code}" if code < 0 else f"exit code {code}"
        return f"its process ended with {words}; see {self.log}"

    def _answer(self, stop: threading.Event | None = None) -> dict[str, Any] | None:
        """Return what it says next. A stop that comes meanwhile is passed on at once."""
        done = threading.Event()

        def watch() -> None:
            while not done.wait(_POLL):
                if stop is not None and stop.is_set():
                    self.cut()
                if self._is_dead():  # what it has started would hold the line open
                    self._end_family()
                    return

        watcher = threading.Thread(target=watch, daemon=True)
        watcher.start()
        try:
            return self._read()
        finally:
            done.set()

    def cut(self) -> None:
        """Cut the line, which makes it save and end; a measurement has nothing to save."""
        with suppress(OSError):
            self._stdin.close()
        if self.task.do == "measure":
            self._process.kill()

    def _is_dead(self) -> bool:
        """Return whether it has ended; where possible its number stays taken, by what is left."""
        if not hasattr(os, "waitid"):
            return self._process.poll() is not None
        try:
            how = os.WEXITED | os.WNOHANG | os.WNOWAIT
            return os.waitid(os.P_PID, self._process.pid, how) is not None
        except ChildProcessError:  # it has been waited for
            return True

    def _end_family(self) -> None:
        """End the processes that it has started, such as those that load custom data."""
        if self._process.returncode is None and hasattr(os, "killpg"):
            with suppress(OSError):
                os.killpg(self._process.pid, signal.SIGTERM)

    def _say(self, line: str) -> bool:
        try:
            self._stdin.write(line.encode() + b"\n")
            self._stdin.flush()
        except (OSError, ValueError):  # it died, or the line has been cut
            return False
        return True

    def _read(self) -> dict[str, Any] | None:
        line = self._stdout.readline()
        if not line.endswith(b"\n"):
            return None
        message: dict[str, Any] = json.loads(line)
        return message

    @property
    def _stdin(self) -> Any:
        return self._process.stdin

    @property
    def _stdout(self) -> Any:
        return self._process.stdout
