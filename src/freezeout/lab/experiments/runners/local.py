"""Many runs on one machine: a bounded number of processes, each with cores and threads of its own.

Runs come in teams. The runs of a team share a slot and take turns there, a hundredth of a run at a
time, each in a process of its own, so that whatever the machine does in the meantime hits all of
them alike; idle ones wait and cost memory only. A team of one is a run by itself.
"""

from __future__ import annotations

import os
import queue
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from freezeout.errors import check_whole
from freezeout.lab.experiments.job import record_failure
from freezeout.lab.experiments.runners.process import Worker
from freezeout.lab.experiments.runners.runner import Event, Runner, Task
from freezeout.lab.training import StopSignals

__all__ = ["Pool", "available_cores", "slot_cores"]

_POLL = 0.2  # seconds between looks at the clock and for Ctrl-C


class Pool(Runner):
    """Run teams of tasks in at most so many slots at a time.

    Args:
        processes: Slots, at least 1. In each at most one process works at a time.
        threads: CPU threads of a process, at least 1. Where there are enough cores, each slot is
            pinned to cores of its own.
        logs: Folder for what the processes print.
        tell: Told of everything that happens, from several threads, one call at a time.
        retries: How often a process that died is started again: a run goes on from its last
            checkpoint, a measurement begins again.

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
        check_whole("processes", processes, "Give 1 or more.", least=1)
        super().__init__(threads, logs, tell, retries=retries)
        self._cores = slot_cores(processes, threads)
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._teams: queue.SimpleQueue[Sequence[Task]] = queue.SimpleQueue()
        self._broken: BaseException | None = None
        self._alive: set[Worker] = set()

    def run(self, teams: Sequence[Sequence[Task]], *, deadline: float | None = None) -> bool:
        """Do all tasks, as `Runner.run` says."""
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
        """Start the processes of a team and give each its turns.

        The one that is furthest behind has the next one. For long runs that is each in turn; a run
        of fewer steps than turns goes several turns in one step, and so waits for the others.
        """
        working: list[Worker] = []
        team_workers: list[Worker] = []
        try:
            for task in team:
                worker = Worker(task, cores, self._threads, self._logs)
                working.append(worker)
                team_workers.append(worker)
                self._alive.add(worker)
            for worker in working:
                self._say(Event(worker.task, "begin"))
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
                worker.discard()
            self._alive.difference_update(team_workers)

    def _turn(self, worker: Worker, stop: bool) -> bool:
        """Give a process one turn; return false if it has ended for good."""
        message = worker.stop() if stop else worker.turn(self._stop)
        if message is None:
            return self._died(worker)
        if message["event"] == "turn":
            step, total = message["step"], message["total"]
            worker.reached = message["turn"]
            self._say(Event(worker.task, "turn", step, total, message["error"]))
            return True
        worker.wait()
        outcome, reason = message["outcome"], message.get("reason", "")
        if outcome == "interrupted" and not self._stop.is_set():
            return self._lost(worker, "its process was told to stop by somebody else")
        self._say(Event(worker.task, outcome, error=message.get("error"), reason=reason))
        return False

    def _died(self, worker: Worker) -> bool:
        return self._lost(worker, worker.end_words(worker.wait()))

    def _lost(self, worker: Worker, reason: str) -> bool:
        """Start a process again that ended before its work did; return false if not any more."""
        if self._stop.is_set():
            self._say(Event(worker.task, "interrupted"))
            return False
        if worker.starts <= self._retries:
            self._say(Event(worker.task, "retry", reason=reason))
            worker.start()
            return True
        record_failure(worker.task.job, reason)
        self._say(Event(worker.task, "failed", reason=reason))
        return False

    def _say(self, event: Event) -> None:
        """Tell of an event; slots do so one at a time."""
        with self._lock:
            self._tell(event)


def available_cores() -> list[int]:
    """Return the cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


def slot_cores(processes: int, threads: int) -> list[list[int] | None]:
    """Return for each slot the cores it is pinned to; ``None`` where there are too few."""
    cores = available_cores()
    if not hasattr(os, "sched_setaffinity") or processes * threads > len(cores):
        return [None] * processes
    return [cores[slot * threads : (slot + 1) * threads] for slot in range(processes)]
