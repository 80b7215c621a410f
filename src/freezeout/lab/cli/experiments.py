"""Carry an experiment out and show how far it is; shared by the verbs that do so."""

from __future__ import annotations

import argparse
import os
import sys
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from freezeout.errors import RunError
from freezeout.lab.experiments import Experiment, Grid, Runner
from freezeout.lab.experiments.runners import Event, Pool, available_cores
from freezeout.lab.locks import FolderLock
from freezeout.lab.report.terminal import LastingConsole
from freezeout.lab.streams import outlive
from freezeout.lab.training import drop_empty, resolve_machine
from freezeout.text import format_seconds

__all__ = ["carry_out", "pinned"]

_MOST_PROCESSES = 1024


def pinned(grid: Grid) -> Grid:
    """Return the grid with device and threads decided: they are part of what a run computes."""
    cells = (replace(c, settings=resolve_machine(c.settings, threads=1)) for c in grid.cells)
    return replace(grid, cells=tuple(cells))


def carry_out(
    experiment: Experiment, options: argparse.Namespace, *, claimed: bool = False
) -> bool:
    """Do what is left of an experiment, with a display; return whether it got to its end.

    ``SIGINT`` and ``SIGTERM`` stop it once all runs have saved; a second ``SIGINT`` stops it at
    once. A new folder in which it did not begin goes.

    Args:
        experiment: The experiment.
        options: Those of `add_pool_options`, as given.
        claimed: Whether `next_free` made its folder.

    Raises:
        RunError: If it cannot begin.
    """
    there = not claimed and os.path.lexists(experiment.folder)
    try:
        return _carry_out(experiment, options)
    except BaseException:
        if not there and experiment.folder.is_dir():
            with suppress(RunError), FolderLock(experiment.folder):
                drop_empty(experiment.folder, claimed=claimed)
        raise


def _carry_out(experiment: Experiment, options: argparse.Namespace) -> bool:
    minutes = getattr(options, "minutes", None)
    if minutes is not None and not minutes > 0:
        raise RunError(f"--minutes must be above 0, got {minutes}. Leave it out for no limit.")
    deadline = None if minutes is None else time.monotonic() + 60.0 * minutes
    with _Display(experiment.grid.size) as display:
        runner = _runner(experiment, options, display)
        return experiment.run(
            runner,
            deadline=deadline,
            retry=getattr(options, "retry", False),
            keep_checkpoints=not getattr(options, "drop_checkpoints", False),
            say=display.say,
        )


def _runner(experiment: Experiment, options: argparse.Namespace, display: _Display) -> Runner:
    settings = [cell.settings for cell in experiment.grid.cells]
    threads = max(s.threads or 1 for s in settings)
    address = getattr(options, "ray", None)
    if address is not None:
        from freezeout.lab.experiments.runners import RayPool

        return RayPool(address, threads, experiment.folder / "logs", display.tell)
    on_gpu = any(s.device.startswith("cuda") for s in settings)
    most = 1 if on_gpu else max(1, len(available_cores()) // threads)
    processes = getattr(options, "processes", None)
    if processes is not None and not 1 <= processes <= _MOST_PROCESSES:
        raise RunError(
            f"--processes must lie in 1 to {_MOST_PROCESSES}, got {processes}. One for each core "
            "is a good start."
        )
    side_by_side = processes or most
    plural = "s" if threads > 1 else ""
    display.say(
        f"{threads} thread{plural} a run, {side_by_side} at a time (--threads, --processes)"
    )
    return Pool(side_by_side, threads, experiment.folder / "logs", display.tell)


class _Display:
    """Show how far an experiment is: a bar on a terminal, and a line for every run."""

    def __init__(self, runs: int) -> None:
        self._console = LastingConsole(file=sys.stdout, highlight=False, soft_wrap=True)
        self._bar = Progress(
            TextColumn("{task.completed:.0f} of {task.total:.0f} runs"),
            BarColumn(),
            TimeElapsedColumn(),
            TextColumn("left:"),
            TimeRemainingColumn(),
            console=self._console,
            disable=not self._console.is_terminal,
            speed_estimate_period=600,
        )
        self._task = self._bar.add_task("runs", total=runs)
        self._runs = runs
        self._share: dict[Path, float] = {}
        self._errors: dict[Path, float] = {}
        self._before = 0  # runs done when we began
        self._begun = time.monotonic()
        self._closed = 0

    def __enter__(self) -> _Display:
        with outlive(self._console.file):
            self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        with outlive(self._console.file):
            self._bar.stop()

    def say(self, text: str) -> None:
        """Show what happens."""
        words = text.split()
        if text.endswith("runs are done"):
            self._before = int(words[0])
            self._advance()
        self._print(text)

    def tell(self, event: Event) -> None:
        """Show what happened to a run."""
        folder = event.task.job.folder
        if event.task.do == "measure":
            cell = event.task.job.label.cell
            if event.kind == "failed":
                self._print(f"cannot measure {cell}: {event.reason}")
            if event.kind == "retry":
                self._print(f"measuring {cell}: {event.reason}; it is measured again")
            return
        if event.kind == "turn":
            self._share[folder] = event.step / max(1, event.total)
            if event.error is not None:
                self._errors[folder] = event.error
            self._advance()
            return
        if event.error is not None:
            self._errors[folder] = event.error
        if event.kind in ("done", "failed"):
            self._share[folder] = 1.0
            self._closed += 1
            self._advance()
        if event.kind != "begin":
            self._print(self._line(event))

    def _line(self, event: Event) -> str:
        label = event.task.job.label
        who = f"{label.cell}, {label.arm}, seed {event.task.job.settings.seed}"
        passed = format_seconds(time.monotonic() - self._begun)
        count = f"[{self._before + self._closed}/{self._runs}, {passed}]"
        error = self._errors.get(event.task.job.folder)
        if event.kind == "done":
            result = "done" if error is None else f"error {error:.2f} %"
            return f"{count} {who}: {result}"
        if event.kind == "failed":
            return f"{count} {who}: failed: {event.reason}"
        if event.kind == "retry":
            return f"{who}: {event.reason}; it goes on from its last checkpoint"
        return f"{who}: stopped, saved"

    def _advance(self) -> None:
        self._bar.update(self._task, completed=self._before + sum(self._share.values()))

    def _print(self, text: str) -> None:
        with outlive(self._console.file):
            self._console.print(text, markup=False)
