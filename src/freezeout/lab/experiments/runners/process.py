"""The process of one task, seen from the one that started it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from freezeout.lab.experiments.runners.runner import Task

__all__ = ["Worker"]

_POLL = 0.2  # seconds between looks for a stop


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
        """Start the process; it does not begin to work before its first turn."""
        self.starts += 1
        names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "freezeout.lab.experiments.runners.worker"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                env={**os.environ, **dict.fromkeys(names, self._threads)},
                start_new_session=True,  # Ctrl-C is for us: we tell it to stop
            )
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
            message = self._read()
            if message is None or message["event"] == "end":
                return message

    def kill(self) -> None:
        """End it at once."""
        self._process.kill()
        self._process.wait()

    def wait(self) -> int:
        """Wait for its end and close its streams."""
        code = self._process.wait()
        with suppress(OSError):
            self._stdin.close()
        self._stdout.close()
        return code

    def end_words(self, code: int) -> str:
        """Say how a process died."""
        words = f"signal {-code}" if code < 0 else f"exit code {code}"
        return f"its process ended with {words}; see {self.log}"

    def _answer(self, stop: threading.Event) -> dict[str, Any] | None:
        """Return what it says next. A stop that comes meanwhile is passed on at once."""
        done = threading.Event()

        def watch() -> None:
            while not done.wait(_POLL):
                if stop.is_set():
                    self.cut()
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
