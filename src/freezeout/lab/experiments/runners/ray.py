"""Many runs on the machines of a Ray cluster.

Every run is a task of Ray. The task starts the same process that `Pool` starts and stays beside it
until it has ended, so that a run computes the same here and there. If the task dies, the process
saves and ends, or is killed with it: either way the run can go on from its last checkpoint. What
the machines tell each other goes through files, because they share the folder of the experiment
anyway: while a run goes on, its task notes beside the logs how far it is, and looks there whether
it is to stop (`ray_task`).
"""

from __future__ import annotations

import json
import os
import re
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from freezeout.errors import RunError
from freezeout.lab.experiments.job import PATIENCE, record_failure
from freezeout.lab.experiments.runners.ray_cluster import (
    Pulse,
    check_address,
    check_room,
    connection,
)
from freezeout.lab.experiments.runners.ray_task import work
from freezeout.lab.experiments.runners.runner import Event, Runner, Task
from freezeout.lab.training import StopSignals
from freezeout.text import first_line

__all__ = ["RayPool"]

_POLL = 0.5  # seconds between looks at the notes, at the clock and for a stop
_VISIBLE = 30.0  # seconds until a new folder must be seen on all machines


class RayPool(Runner):
    """Run tasks on a Ray cluster, as many at a time as it has room for.

    Runs and data are in a folder that all machines see under the same path, and all have the same
    freezeout. Each task takes `threads` CPUs of a machine, and one GPU where its settings say
    ``cuda``. Taking turns is for one machine only: the tasks of a team begin near each other, and
    each runs by itself. ``ray.jsonl`` among the logs tells which machine did what.

    Args:
        address: Address of the cluster: ``HOST:PORT``, ``ray://HOST:PORT`` or ``auto``.
        threads: CPU threads of a process, at least 1.
        logs: Folder for what the processes print.
        tell: Told of everything that happens.
        retries: How often a run whose process or machine died is started again, to go on from its
            last checkpoint.

    Raises:
        RunError: If Ray is not installed, or no cluster answers there.
        ValueError: If a number is outside its range.
    """

    def __init__(
        self,
        address: str,
        threads: int,
        logs: Path,
        tell: Callable[[Event], None],
        *,
        retries: int = 1,
    ) -> None:
        # Absolute, not resolved: a link may lead elsewhere on another machine.
        super().__init__(threads, logs.absolute(), tell, retries=retries)
        check_address(address)
        self._address = address

    def run(self, teams: Sequence[Sequence[Task]], *, deadline: float | None = None) -> bool:
        """Do all tasks, as `Runner.run` says.

        Raises:
            KeyboardInterrupt: After a second ``SIGINT``.
            RunError: If the cluster is lost, has no room for a task, or has a machine that cannot
                work; runs elsewhere have then saved.
        """
        tasks = [task for team in teams for task in team]
        self._logs.mkdir(parents=True, exist_ok=True)
        stop = threading.Event()
        with (
            connection(self._address) as ray,
            TemporaryDirectory(prefix=".ray-", dir=self._logs, ignore_cleanup_errors=True) as board,
            StopSignals(stop),
        ):
            check_room(ray, self._threads, gpu=any(map(_on_gpu, tasks)))
            pulse = Pulse(ray, self._address)
            sweep = _Sweep(ray, Path(board), self._threads, self._logs, self._tell, self._retries)
            try:
                sweep.run(tasks, stop, deadline, pulse)
            except ConnectionError as error:
                raise RunError(
                    f"the Ray cluster at {self._address} was lost ({first_line(error)}). Start it "
                    "again; the same command goes on."
                ) from error
        return not stop.is_set()


@dataclass
class _Flight:
    """A task on its way, with its attempt number."""

    number: int
    task: Task
    attempt: int = 1
    note: dict[str, Any] | None = None  # what its machine noted last; ``None``: not begun

    @property
    def file(self) -> str:
        """Name of the file with its notes."""
        return f"{self.number}-{self.attempt}.json"


class _Sweep:
    """Send tasks to the cluster and follow them to their ends."""

    def __init__(
        self,
        ray: Any,
        board: Path,
        threads: int,
        logs: Path,
        tell: Callable[[Event], None],
        retries: int,
    ) -> None:
        self._ray = ray
        self._board = board
        self._threads = threads
        self._logs = logs
        self._tell = tell
        self._retries = retries
        self._flights: dict[Any, _Flight] = {}
        self._begun: set[int] = set()
        self._work = ray.remote(work)
        self._broken: RunError | None = None

    def run(
        self,
        tasks: Sequence[Task],
        stop: threading.Event,
        deadline: float | None,
        pulse: Pulse,
    ) -> None:
        """Return once all tasks have ended, or, after a stop, all that had begun."""
        for number, task in enumerate(tasks):
            self._send(_Flight(number, task))
        while self._flights:
            ready, _ = self._ray.wait(list(self._flights), timeout=_POLL)
            pulse.feel()
            if deadline is not None and time.monotonic() > deadline:
                stop.set()
            if stop.is_set():
                (self._board / "stop").touch()
            self._look()
            for ref in ready:
                self._land(ref, self._flights.pop(ref), stop)
            if stop.is_set() and not any(flight.note for flight in self._flights.values()):
                break  # Ray forgets those that have not begun when we leave
        if self._broken is not None:
            raise self._broken

    def _send(self, flight: _Flight) -> None:
        job = flight.task.job
        ref = self._work.options(
            name=f"{job.label.arm}, seed {job.settings.seed}",
            num_cpus=self._threads,
            num_gpus=int(_on_gpu(flight.task)),
            max_retries=0,  # tries are counted here, where they are told
            scheduling_strategy="SPREAD",
        ).remote(
            _absolute(flight.task),
            self._threads,
            self._logs,
            self._board,
            flight.file,
            (_POLL, _VISIBLE, PATIENCE),
        )
        self._flights[ref] = flight

    def _look(self) -> None:
        """Read the notes and tell what is new."""
        there = {path.name for path in self._board.iterdir()}
        for flight in self._flights.values():
            if flight.file not in there:
                continue
            note = self._read(flight)
            if not note:
                continue
            if flight.note is None:
                self._journal("begin", flight, note)
                if flight.number not in self._begun:
                    self._begun.add(flight.number)
                    self._tell(Event(flight.task, "begin"))
            if "step" in note and note != flight.note:
                step, total = note["step"], note["total"]
                self._tell(Event(flight.task, "turn", step, total, note["error"]))
            flight.note = note

    def _land(self, ref: Any, flight: _Flight, stop: threading.Event) -> None:
        """Take what a task came back with."""
        outcome, reason = self._result(ref)
        if outcome == "interrupted" and not stop.is_set():
            outcome, reason = "died", "its process was told to stop on its machine"
        self._journal("end", flight, flight.note or {}, outcome=outcome, reason=reason)
        if outcome == "unfit":
            self._broken = self._broken or RunError(reason)
            stop.set()
        elif outcome == "died" and stop.is_set():
            self._tell(Event(flight.task, "interrupted"))
        elif outcome == "died" and flight.attempt <= self._retries:
            self._tell(Event(flight.task, "retry", reason=reason))
            self._send(_Flight(flight.number, flight.task, flight.attempt + 1))
        elif outcome in ("died", "held"):
            record_failure(flight.task.job, reason)
            self._tell(Event(flight.task, "failed", reason=reason))
        else:
            error = self._read(flight).get("error")
            self._tell(Event(flight.task, outcome, error=error, reason=reason))

    def _read(self, flight: _Flight) -> dict[str, Any]:
        """Return what a task has noted; nothing if it has not, or a shared disk is late."""
        try:
            note: dict[str, Any] = json.loads(
                (self._board / flight.file).read_text(encoding="utf-8")
            )
        except (OSError, ValueError):
            return {}
        return note

    def _result(self, ref: Any) -> tuple[Any, str]:
        errors = self._ray.exceptions
        try:
            outcome, reason = self._ray.get(ref)
        except errors.RayTaskError as error:  # the task around the run failed, not the run
            reason = first_line(error.cause or error)
            return "unfit", (
                f"a machine of the Ray cluster cannot work: {reason}. All need the same Python and "
                "freezeout, and must be able to write to the folder."
            )
        except errors.RayError as error:
            kind = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", type(error).__name__)
            return "died", f"its process or machine was lost ({kind.lower()})"
        return outcome, reason

    def _journal(self, event: str, flight: _Flight, note: dict[str, Any], **more: str) -> None:
        """Append to the journal which machine did what."""
        where = {key: note[key] for key in ("node", "host", "pid") if key in note}
        run = os.path.relpath(flight.task.job.folder.absolute(), self._logs.parent)
        values = {"event": event, "time": time.time(), "run": run, "do": flight.task.do}
        line = json.dumps({**values, "attempt": flight.attempt, **where, **more})
        with (self._logs / "ray.jsonl").open("a", encoding="utf-8") as file:
            file.write(line + "\n")


def _absolute(task: Task) -> Task:
    """Return the task for a process that works elsewhere."""
    job, settings = task.job, task.job.settings
    if settings.data_dir is not None:
        settings = replace(settings, data_dir=str(Path(settings.data_dir).absolute()))
    job = replace(
        job,
        folder=job.folder.absolute(),
        settings=settings,
        plan=None if job.plan is None else job.plan.absolute(),
        data=None if job.data is None else job.data.absolute(),
    )
    return replace(task, job=job)


def _on_gpu(task: Task) -> bool:
    return task.job.settings.device.startswith("cuda")
