"""One call's part of the work of `paper_gpu`: runs until its time is over, results on the way."""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from freezeout.durations import format_seconds
from freezeout.errors import RunError
from freezeout.evidence import Comparison, compare
from freezeout.experiments.experiment import Runner
from freezeout.experiments.job import Job
from freezeout.experiments.pool import Event
from freezeout.training.trainer import pick_device
from paper_results import ResultsFile, entry_of, record_of
from paper_runs import Part, Standing, finished_jobs, make_part, standing

__all__ = ["Piece", "say"]

MARGIN = 45.0
"""Seconds of a piece kept free: for imports before the clock is read, and for saving at the end."""

THREADS = {"cpu": 1, "cuda": 2}
"""Cores of a run: on a GPU the backward pass is launched from a thread of its own."""


def say(text: str = "") -> None:
    print(text, flush=True)


class Piece:
    """One call's part of the work.

    Args:
        given: The command line.
        cells: Settings of the cells by name.
        begun: When the call began, as `time.monotonic` has it.

    Raises:
        FreezeOutError: If the settings are not allowed or the device is not there.
        ValueError: If the file of results holds something else, or the folder does.
    """

    def __init__(
        self, given: argparse.Namespace, cells: Mapping[str, Mapping[str, Any]], begun: float
    ) -> None:
        pick_device(given.device)
        self.state: Path = given.state.resolve()
        self.given = given
        self._begun = begun
        self._check_folders()
        self.results = ResultsFile(
            given.results or self.state.with_name(f"{self.state.name}.jsonl")
        )
        wanted = {
            "epochs": given.epochs,
            "batch_size": given.batch_size,
            "precision": given.precision,
            "device": given.device,
            "data_dir": str(given.data_dir.resolve()),
        }
        changes = {name: value for name, value in wanted.items() if value is not None}
        self.parts = [
            make_part(cells[name], changes, given.seeds, self.state, self.results.keys)
            for name in given.cells
        ]
        self.problems: dict[str, str] = {}

    def _check_folders(self) -> None:
        if not self.given.data_dir.is_dir():
            raise ValueError(
                f"--data-dir must be a folder, got {self.given.data_dir}. Give the one that holds "
                "the data sets."
            )
        folder = self.state
        begun = (folder / "experiment.json").is_file()
        if folder.exists() and not begun and (not folder.is_dir() or any(folder.iterdir())):
            raise ValueError(
                f"--state must be a new folder or that of an earlier piece, got {folder}. Give "
                "another."
            )

    def work(self, pool: Callable[..., Runner]) -> bool:
        """Does what is left, cell by cell, until the time is over.

        Returns:
            Whether nothing is left.

        Raises:
            FreezeOutError: If data or the folder cannot be used.
            KeyboardInterrupt: After a second Ctrl-C; the first one lets all runs save.
        """
        limit = 60.0 * self.given.minutes
        deadline = self._begun + limit - min(MARGIN, limit / 4)
        try:
            return all(self._work(part, pool, deadline) for part in self.parts)
        finally:
            self.collect()

    def _work(self, part: Part, pool: Callable[..., Runner], deadline: float) -> bool:
        """Does what is left of a cell; false if it was stopped before the end."""
        if part.experiment is None:
            return True
        if time.monotonic() >= deadline:
            return False
        self.say(f"{part.cell.name}:")
        threads = THREADS[self.given.device]
        runner = pool(self.given.processes, threads, self.state / "logs", self.tell)
        try:
            return part.experiment.run(
                runner,
                deadline=deadline,
                retry=self.given.retry,
                keep_checkpoints=False,  # a hundred megabytes each, and nothing here reads them
                say=self.say,
            )
        except RunError:
            if part.cell.name in self.problems:  # one that cannot be measured holds no other up
                return True
            raise

    def say(self, text: str) -> None:
        """Prints what happens, with the time since the piece began."""
        say(f"[{format_seconds(time.monotonic() - self._begun):>7}] {text}")

    def tell(self, event: Event) -> None:
        """Notes what happened to a run."""
        job, measuring = event.task.job, event.task.do == "measure"
        who = f"{job.label.arm}, seed {job.settings.seed}"
        if event.kind == "done" and not measuring:
            error = self.record(job)
            self.say(f"  {who}: error {error:.2f} %")
        elif event.kind in ("failed", "retry"):
            what = "measuring" if measuring else who
            self.say(f"  {what}: {event.kind}: {event.reason}")
            if measuring:
                self.problems[job.label.cell] = event.reason

    def record(self, job: Job) -> float:
        """Appends a finished run to the results; returns its error."""
        entry = entry_of(job, self.state / "runs", self.given.device, self.given.processes)
        self.results.add(entry)
        error = record_of(entry).error
        return math.nan if error is None else error

    def collect(self) -> None:
        """Appends what is done and not in the results, such as when their file was lost."""
        for part in self.parts:
            for job in finished_jobs(part):
                if (part.cell.name, job.label.arm, job.settings.seed) not in self.results.keys:
                    self.record(job)

    def standings(self) -> list[Standing]:
        """How far each cell is."""
        return [standing(part) for part in self.parts]

    def comparisons(self) -> tuple[Comparison, ...]:
        """Of the cells of this call, from the results."""
        names = [part.cell.name for part in self.parts]
        records = [record_of(entry) for entry in self.results.entries]
        found = compare([record for record in records if record.cell in names])
        return tuple(sorted(found, key=lambda one: names.index(one.cell)))
