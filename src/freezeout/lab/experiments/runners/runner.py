"""What a runner is asked to do, what it tells, and what runners share."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

from freezeout.errors import check_whole
from freezeout.lab.experiments.job import Job

__all__ = ["Event", "Runner", "Task"]


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


class Runner(ABC):
    """Bring teams of tasks to their ends: `Pool` on this machine, `RayPool` on others.

    Args:
        threads: CPU threads of a process, at least 1.
        logs: Folder for what the processes print.
        tell: Told of everything that happens, one call at a time.
        retries: How often a process that died is started again: a run goes on from its last
            checkpoint, a measurement begins again.

    Raises:
        ValueError: If a number is outside its range.
    """

    def __init__(
        self, threads: int, logs: Path, tell: Callable[[Event], None], *, retries: int = 1
    ) -> None:
        check_whole("threads", threads, "Give 1 or more.", least=1)
        check_whole("retries", retries, "Give 0 to start no run again.")
        self._threads = threads
        self._logs = logs
        self._tell = tell
        self._retries = retries

    @abstractmethod
    def run(self, teams: Sequence[Sequence[Task]], *, deadline: float | None = None) -> bool:
        """Do all tasks; return when they are done, failed, or stopped.

        Args:
            teams: The teams, in the order in which they begin.
            deadline: When to stop, as `time.monotonic` has it: runs then save and end.

        Returns:
            Whether every task was brought to its end (or failed); false if it was stopped.

        Raises:
            KeyboardInterrupt: After a second ``SIGINT``; the first one, like ``SIGTERM``, lets all
                runs save.
        """
