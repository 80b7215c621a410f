"""Many runs on one machine: a bounded number of processes, each with cores and threads of its own.

Runs come in teams. The runs of a team share a slot and take turns there, a hundredth of a run at a
time, each in a process of its own, so that whatever the machine does in the meantime hits all of
them alike; idle ones wait and cost memory only. A team of one is a run by itself.
"""

from __future__ import annotations

import json
import os
import queue
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

from freezeout.experiments.job import Job, record_failure
from freezeout.training.signals import StopSignals

__all__ = ["Event", "Pool", "Task", "Worker", "available_cores", "slot_cores"]

_POLL = 0.2  # seconds between looks at the clock and for Ctrl-C


@dataclass(frozen=True)
class Task:
    """Something to do in a process of its own.

    Attributes:
        job: The run.
        do: Whether to bring it to its end or to measure its step.
    """

    job: Job
    do: Literal["run", "measure"] = "run"


EventKind: TypeAlias = Literal["begin", "turn", "done", "failed", "interrupted", "retry"]


@dataclass(frozen=True)
class Event:
    """Something that happened to a task.

    Attributes:
        task: Which one.
        kind: What happened.
        step: Optimizer steps done, where known.
        total: Length of the run in optimizer steps, where known.
        error: Latest test error in percent, where known.
        reason: Why it failed.
    """

    task: Task
    kind: EventKind
    step: int = 0
    total: int = 0
    error: float | None = None
    reason: str = ""


class Pool:
    """Runs teams of tasks in at most so many slots at a time.

    Args:
        processes: Slots, at least 1. In each at most one process works at a time.
        threads: CPU threads of a process, at least 1. Where there are enough cores, each slot is
            pinned to cores of its own.
        logs: Folder for what the processes print.
        tell: Told of everything that happens, from several threads, one call at a time.
        retries: How often a process that died is started again, to go on from its last checkpoint.

    Raises:
        ValueError: If a number is outside its range.
    """

    def __init__(
        self,
        processes: int,
        threads: int,
        logs: Path,
        tell: Callable[[Event], None],
        *,
        retries: int = 1,
    ) -> None:
        for name, value, least in (
            ("processes", processes, 1),
            ("threads", threads, 1),
            ("retries", retries, 0),
        ):
            if value < least:
                raise ValueError(f"{name} must be at least {least}, got {value}. Give more.")
        self._cores = slot_cores(processes, threads)
        self._threads = threads
        self._logs = logs
        self._tell_outside = tell
        self._retries = retries
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._teams: queue.SimpleQueue[Sequence[Task]] = queue.SimpleQueue()
        self._broken: BaseException | None = None
        self._alive: set[Worker] = set()

    def run(self, teams: Sequence[Sequence[Task]], *, deadline: float | None = None) -> bool:
        """Does all tasks; returns when they are done, failed, or stopped.

        Args:
            teams: The teams, in the order in which they begin.
            deadline: When to stop, as `time.monotonic` has it: runs then save and end.

        Returns:
            Whether every task was brought to its end (or failed); false if it was stopped.

        Raises:
            KeyboardInterrupt: After a second ``SIGINT``; the first one, like ``SIGTERM``, lets all
                runs save.
        """
        for team in teams:
            self._teams.put(team)
        self._logs.mkdir(parents=True, exist_ok=True)
        slots = [
            threading.Thread(target=self._slot, args=(cores,), daemon=True)
            for cores in self._cores[: max(1, len(teams))]
        ]
        for slot in slots:
            slot.start()
        try:
            with StopSignals(self._stop):
                while any(slot.is_alive() for slot in slots):
                    time.sleep(_POLL)
                    if deadline is not None and time.monotonic() > deadline:
                        self._stop.set()
        except BaseException:  # a second signal: at once, and no process is left behind
            for worker in list(self._alive):
                worker.kill()
            raise
        if self._broken is not None:
            raise self._broken
        return not self._stop.is_set()

    def _slot(self, cores: Sequence[int] | None) -> None:
        try:
            while not self._stop.is_set():
                try:
                    team = self._teams.get_nowait()
                except queue.Empty:
                    return
                self._team(team, cores)
        except BaseException as error:
            self._broken = error
            self._stop.set()

    def _team(self, team: Sequence[Task], cores: Sequence[int] | None) -> None:
        """Starts the processes of a team and gives each its turns.

        Whoever is furthest behind has the next ones. For long runs that is each in turn; a run of
        fewer steps than turns goes several turns in one step, and so waits for the others.
        """
        working = [Worker(task, cores, self._threads, self._logs) for task in team]
        team_workers = tuple(working)
        self._alive.update(team_workers)
        try:
            for worker in working:
                self._tell(Event(worker.task, "begin"))
            while working:
                stop = self._stop.is_set()
                if stop:
                    for worker in working:  # so that they save side by side
                        worker.cut()
                behind = min(worker.reached for worker in working)
                for worker in list(working):
                    if (stop or worker.reached == behind) and not self._turn(worker, stop):
                        working.remove(worker)
        finally:
            for worker in working:
                worker.kill()
            self._alive.difference_update(team_workers)

    def _turn(self, worker: Worker, stop: bool) -> bool:
        """One turn of a process; false if it has ended for good."""
        message = worker.stop() if stop else worker.turn(self._stop)
        if message is None:
            return self._died(worker)
        if message["event"] == "turn":
            step, total = message["step"], message["total"]
            worker.reached = message["turn"]
            self._tell(Event(worker.task, "turn", step, total, message["error"]))
            return True
        worker.wait()
        outcome, reason = message["outcome"], message.get("reason", "")
        self._tell(Event(worker.task, outcome, error=message.get("error"), reason=reason))
        return False

    def _died(self, worker: Worker) -> bool:
        code = worker.wait()
        if self._stop.is_set():
            self._tell(Event(worker.task, "interrupted"))
            return False
        reason = worker.end_words(code)
        if worker.task.do == "run" and worker.starts <= self._retries:
            self._tell(Event(worker.task, "retry", reason=reason))
            worker.start()
            return True
        record_failure(worker.task.job, reason)
        self._tell(Event(worker.task, "failed", reason=reason))
        return False

    def _tell(self, event: Event) -> None:
        with self._lock:
            self._tell_outside(event)


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
        """Starts the process; it does not begin to work before its first turn."""
        self.starts += 1
        names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "freezeout.experiments.worker"],
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
        """Lets it work until the end of a turn; returns what it says, ``None`` if it died."""
        if self._fresh:
            self._fresh = False
            said = self._say(json.dumps({"do": self.task.do, "job": self.task.job.to_dict()}))
        else:
            said = self._say("go")
        return self._answer(stop) if said else None

    def stop(self) -> dict[str, Any] | None:
        """Makes it save and end, wherever it is, and returns its last word."""
        self.cut()
        while True:
            message = self._read()
            if message is None or message["event"] == "end":
                return message

    def kill(self) -> None:
        """Ends it at once."""
        self._process.kill()
        self._process.wait()

    def wait(self) -> int:
        """Waits for its end and closes its streams."""
        code = self._process.wait()
        with suppress(OSError):
            self._stdin.close()
        self._stdout.close()
        return code

    def end_words(self, code: int) -> str:
        """What there is to say of a process that died."""
        words = f"signal {-code}" if code < 0 else f"exit code {code}"
        return f"its process ended with {words}; see {self.log}"

    def _answer(self, stop: threading.Event) -> dict[str, Any] | None:
        """What it says next. A stop that comes meanwhile is passed on at once."""
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
        """Cuts the line, upon which it saves and ends; a measurement has nothing to save."""
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


def available_cores() -> list[int]:
    """The cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


def slot_cores(processes: int, threads: int) -> list[list[int] | None]:
    """For each slot the cores it is pinned to; ``None`` where there are too few to go round."""
    cores = available_cores()
    if not hasattr(os, "sched_setaffinity") or processes * threads > len(cores):
        return [None] * processes
    return [cores[slot * threads : (slot + 1) * threads] for slot in range(processes)]
