"""What a task of Ray does on its machine: sees the process of one run to its end."""

from __future__ import annotations

import os
import socket
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from freezeout.errors import RunError
from freezeout.lab.experiments.job import job_lock
from freezeout.lab.experiments.runners.process import Worker
from freezeout.lab.experiments.runners.runner import Task
from freezeout.lab.locks import InUseError
from freezeout.storage import write_json

__all__ = ["work"]

_POLL = 0.5  # seconds between looks at a folder


def work(
    task: Task,
    threads: int,
    logs: Path,
    board: Path,
    name: str,
    limits: tuple[float, float, float],
) -> tuple[str, str]:
    """Start the process of a task, on a machine of the cluster, and see it to its end.

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
    """Give a process its turns, one after the other."""
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
        worker.discard()


class _Note:
    """The file that says how far a task is, for all to read."""

    def __init__(self, path: Path) -> None:
        import ray

        self._path = path
        self._where = {
            "node": ray.get_runtime_context().get_node_id(),
            "host": socket.gethostname(),
            "pid": os.getpid(),
        }

    def write(self, **values: Any) -> None:
        """Replace what was noted before."""
        with suppress(RunError):  # the run goes on all the same
            write_json(self._path, {**self._where, **values})


def _shows(folder: Path, seconds: float) -> bool:
    """Return whether a folder is seen here; a shared disk takes a while to show a new one."""
    until = time.monotonic() + seconds
    while not folder.is_dir():
        if time.monotonic() > until:
            return False
        time.sleep(_POLL)
    return True


def _watch(file: Path, poll: float, stop: threading.Event, ended: threading.Event) -> None:
    """Set `stop` as soon as the file that asks for it is there."""
    while True:
        with suppress(OSError):
            if file.exists():
                stop.set()
                return
        if ended.wait(poll):
            return


def _is_free(task: Task, patience: float, stop: threading.Event) -> bool:
    """Wait until no process holds a run: one that was left behind saves, then lets go."""
    try:
        with job_lock(task.job.folder, patience=patience, give_up=stop.is_set):
            return True
    except InUseError:
        return stop.is_set()
