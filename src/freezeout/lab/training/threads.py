"""How many threads a run on a CPU takes: what was asked for, or what a step is fastest with."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass

import torch

from freezeout.costs import Costs, choose_threads
from freezeout.errors import CostError
from freezeout.lab.training.forecasting import step_seconds
from freezeout.lab.training.processes import ALONE, Processes
from freezeout.lab.training.trainer import Trainer
from freezeout.text import milliseconds

__all__ = ["Threads", "chosen_threads", "most_threads", "pick_threads", "threads_of"]


@dataclass(frozen=True)
class Threads:
    """A number of threads, and why.

    Attributes:
        count: How many.
        text: One line that says so; empty where there was no choice.
    """

    count: int
    text: str = ""


def most_threads(processes: int = 1) -> int:
    """Return the most threads to take: torch's own number, within the cores of this process.

    Args:
        processes: How many processes of a run share this machine.
    """
    cores = os.cpu_count() or 1
    if hasattr(os, "sched_getaffinity"):
        cores = len(os.sched_getaffinity(0))
    return max(1, min(torch.get_num_threads(), cores // processes))


def pick_threads(
    trainer: Trainer, processes: Processes = ALONE, costs: Costs | None = None
) -> Threads:
    """Return the threads for a run whose settings leave them open; the trainer stays as it is.

    Several processes, which only together can take a step, share out the cores of a machine.

    Args:
        trainer: The run.
        processes: Those that train together.
        costs: Costs that were measured for it: their threads are taken.
    """
    if trainer.device.type != "cpu":
        return Threads(torch.get_num_threads())
    if processes.size > 1:
        return Threads(most_threads(_processes_here(processes)))
    if costs is not None and costs.device.startswith("CPU"):
        return Threads(costs.threads)
    most = most_threads()
    if most == 1:
        return Threads(1)
    try:
        return chosen_threads(step_seconds(trainer, most))
    except CostError:  # it may train all the same
        return Threads(1, "1 thread: a step cannot be tried out beforehand (--threads sets it)")


def chosen_threads(seconds: Mapping[int, float]) -> Threads:
    """Return the choice among measured seconds of a step, by number of threads."""
    count = choose_threads(seconds)
    times = ", ".join(f"{milliseconds(seconds[n])} with {n}" for n in sorted(seconds))
    return Threads(count, f"{threads_of(count)}: a training step takes {times} (--threads sets it)")


def threads_of(count: int) -> str:
    """Write a number of threads."""
    return f"{count} thread{'' if count == 1 else 's'}"


def _processes_here(processes: Processes) -> int:
    """Return how many of the processes are on this machine, as the launcher says."""
    here = os.environ.get("LOCAL_WORLD_SIZE", "")
    return int(here) if here.isdecimal() and int(here) else processes.size
