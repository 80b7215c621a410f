"""Many runs on the machines of a Ray cluster.

Every run is a task of Ray. The task starts the same process that `Pool` starts and stays beside it
until it has ended, so that a run computes the same here and there. If the task dies, the process
saves and ends, or is killed with it: either way the run can go on from its last checkpoint. What
the machines tell each other goes through files, for they share the folder of the experiment
anyway: while a run goes on, its task notes beside the logs how far it is, and looks there whether
it is to stop.
"""

from __future__ import annotations

import json
import os
import re
import socket
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from filelock import Timeout

from freezeout.errors import RunError
from freezeout.experiments.job import job_lock, record_failure
from freezeout.experiments.pool import Event, Task, Worker
from freezeout.experiments.ray_cluster import (
    Pulse,
    check_address,
    check_room,
    connection,
    first_line,
)
from freezeout.training.signals import StopSignals

__all__ = ["RayPool"]

_POLL = 0.5  # seconds between looks at the notes, at the clock and for a stop
_VISIBLE = 30.0  # seconds until a new folder must be seen on all machines
_PATIENCE = 300.0  # seconds for an earlier process of a run to let go of it, wherever it is


class RayPool:
    """Runs tasks on a Ray cluster, as many at a time as it has room for.

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
        for name, value, least in (("threads", threads, 1), ("retries", retries, 0)):
            if value < least:
                raise ValueError(f"{name} must be at least {least}, got {value}. Give more.")
        check_address(address)
        self._address = address
        self._threads = threads
        self._logs = logs.absolute()  # not resolved: a link may lead elsewhere on another machine
        self._tell = tell
        self._retries = retries

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
    """A task on its way, for the so-manieth time."""

    number: int
    task: Task
    attempt: int = 1
    note: dict[str, Any] | None = None  # what its machine noted last; ``None``: not begun

    @property
    def file(self) -> str:
        """Name of the file with its notes."""
        return f"{self.number}-{self.attempt}.json"


class _Sweep:
    """Sends tasks to the cluster and follows them to their ends."""

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
        self._work = ray.remote(_work)
        self._broken: RunError | None = None

    def run(
        self,
        tasks: Sequence[Task],
        stop: threading.Event,
        deadline: float | None,
        pulse: Pulse,
    ) -> None:
        """Returns once all tasks have ended, or all that had begun when it was to stop."""
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
            (_POLL, _VISIBLE, _PATIENCE),
        )
        self._flights[ref] = flight

    def _look(self) -> None:
        """Reads the notes and tells what is new."""
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
        """Takes what a task came back with."""
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
        """What a task has noted; nothing where it has not, or a shared disk is late."""
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
        except errors.RayTaskError as error:  # not the run: the task around it
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
        """Notes for good which machine did what."""
        where = {key: note[key] for key in ("node", "host", "pid") if key in note}
        run = os.path.relpath(flight.task.job.folder.absolute(), self._logs.parent)
        values = {"event": event, "time": time.time(), "run": run, "do": flight.task.do}
        line = json.dumps({**values, "attempt": flight.attempt, **where, **more})
        with (self._logs / "ray.jsonl").open("a", encoding="utf-8") as file:
            file.write(line + "\n")


def _work(
    task: Task,
    threads: int,
    logs: Path,
    board: Path,
    name: str,
    limits: tuple[float, float, float],
) -> tuple[str, str]:
    """On a machine of the cluster: starts the process of a task and sees it to its end.

    Args:
        task: What to do, with absolute paths.
        threads: CPU threads of the process.
        logs: Folder for what it prints.
        board: Folder for notes.
        name: File there for the notes of this task.
        limits: Seconds between looks, to wait for the folder to show, and for the run to be free.

    Returns:
        How it ended, and why.
    """
    poll, visible, patience = limits
    if not _shows(board, visible):
        return "unfit", (
            f"{socket.gethostname()} does not see {logs.parent}. Give a folder with --out that all "
            "machines of the Ray cluster share under the same path."
        )
    ended, stop = threading.Event(), threading.Event()
    watched = (board / "stop", poll, stop, ended)
    threading.Thread(target=_watch, args=watched, daemon=True).start()
    try:
        if task.do == "run" and not _is_free(task, patience, stop):
            return "held", (
                f"another process has held it for {patience:.0f} seconds, left behind perhaps by "
                "a machine that was lost. End that one, and try again with --retry."
            )
        note = _Note(board / name)
        note.write()
        if stop.is_set():
            return "interrupted", ""
        return _follow(Worker(task, None, threads, logs), note, stop)
    finally:
        ended.set()


def _follow(worker: Worker, note: _Note, stop: threading.Event) -> tuple[str, str]:
    """Gives a process its turns, one after the other."""
    try:
        while True:
            message = worker.stop() if stop.is_set() else worker.turn(stop)
            if message is None:
                code = worker.wait()
                if stop.is_set():
                    return "interrupted", ""
                return "died", worker.end_words(code)
            if message["event"] == "end":
                worker.wait()
                if message.get("error") is not None:
                    note.write(error=message["error"])
                return message["outcome"], message.get("reason", "")
            note.write(step=message["step"], total=message["total"], error=message["error"])
    finally:
        worker.kill()


class _Note:
    """How far a task is, for all to read."""

    def __init__(self, path: Path) -> None:
        import ray

        self._path = path
        self._where = {
            "node": ray.get_runtime_context().get_node_id(),
            "host": socket.gethostname(),
            "pid": os.getpid(),
        }

    def write(self, **values: Any) -> None:
        """Replaces what was noted before."""
        part = self._path.with_suffix(".part")
        with suppress(OSError):  # the run goes on all the same
            part.write_text(json.dumps({**self._where, **values}), encoding="utf-8")
            part.replace(self._path)


def _shows(folder: Path, seconds: float) -> bool:
    """Whether a folder is seen here; a shared disk takes a while to show a new one."""
    until = time.monotonic() + seconds
    while not folder.is_dir():
        if time.monotonic() > until:
            return False
        time.sleep(_POLL)
    return True


def _watch(file: Path, poll: float, stop: threading.Event, ended: threading.Event) -> None:
    """Tells of a stop as soon as the file that says so is there."""
    while True:
        with suppress(OSError):
            if file.exists():
                stop.set()
                return
        if ended.wait(poll):
            return


def _is_free(task: Task, patience: float, stop: threading.Event) -> bool:
    """Waits until no process holds a run: one that was left behind saves, then lets go."""
    folder = task.job.folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    lock = job_lock(folder)
    until = time.monotonic() + patience
    while not stop.is_set():
        try:
            with lock.acquire(timeout=_POLL):
                return True
        except Timeout:
            if time.monotonic() > until:
                return False
    return True


def _absolute(task: Task) -> Task:
    """The task for a process that works elsewhere."""
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
