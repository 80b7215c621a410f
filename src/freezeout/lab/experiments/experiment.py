"""An experiment in a folder: what there is to run, what is done; do the rest.

The folder is the whole state. Every run has its folder under ``runs/CELL/ARM/seed-N``; a
run that is done is never repeated, one that was killed goes on from its last checkpoint.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from freezeout.costs import trouble_words
from freezeout.errors import FreezeOutError, RunError
from freezeout.lab.experiments.arms import equal_steps, make_arms, unfrozen
from freezeout.lab.experiments.grid import Cell, Grid
from freezeout.lab.experiments.job import (
    Job,
    Label,
    Status,
    job_status,
    measured_settings,
    measured_with,
)
from freezeout.lab.experiments.prepared import prepared_file, save_prepared
from freezeout.lab.experiments.runners import Runner, Task
from freezeout.lab.locks import FolderLock, is_lock
from freezeout.lab.training import slug
from freezeout.planning import Plan
from freezeout.storage import KeptFile, is_part, read_json, remove_parts, write_json
from freezeout.text import one_line

__all__ = ["Experiment"]

_DESCRIPTION = KeptFile(
    "description of an experiment",
    "Give the folder of one with --resume.",
    "Restore it from a copy, or begin again in another folder.",
)


@dataclass(frozen=True)
class Experiment:
    """An experiment in its folder.

    Attributes:
        folder: The folder.
        grid: What there is to run.
    """

    folder: Path
    grid: Grid

    @property
    def description(self) -> Path:
        """The file that says what there is to run."""
        return self.folder / "experiment.json"

    @classmethod
    def load(cls, folder: Path) -> Experiment:
        """Return the experiment that was begun in a folder.

        Raises:
            RunError: If there is no experiment in it, or its description cannot be read, is
                damaged, or holds what no experiment may have.
        """
        path = folder / "experiment.json"
        values = read_json(path, _DESCRIPTION)
        try:
            return cls(folder, Grid.from_plain(values))
        except (RunError, ValueError) as error:
            raise _DESCRIPTION.damaged(path, one_line(error).rstrip(".")) from error

    def make(self) -> None:
        """Make the folder if it is not there.

        Raises:
            RunError: If it cannot be made, or holds something else.
        """
        try:
            # A start that was killed, or goes on beside this one, has left no more than these.
            others = self.folder.is_dir() and any(
                not (is_lock(path) or is_part(path)) for path in self.folder.iterdir()
            )
            if others and not self.description.exists():
                raise RunError(
                    f"folder {self.folder} is not empty and holds no experiment. Give a new or "
                    "empty folder with --out."
                )
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise RunError(
                f"cannot make folder {self.folder}: {error.strerror}. Give one that can be written "
                "with --out."
            ) from error

    def save(self) -> None:
        """Write down in the folder what there is to run.

        Raises:
            RunError: If it cannot be written.
        """
        write_json(self.description, self.grid.to_dict())

    def plan_file(self, cell: Cell) -> Path:
        """Return where the measured costs of a cell are kept."""
        return self.folder / "plans" / f"{slug(cell.name)}.json"

    def jobs(self, cell: Cell) -> list[list[Job]]:
        """Return the runs of a cell: one list for each seed, with its arms.

        Raises:
            RunError: If they depend on costs that have not been measured.
        """
        grid = self.grid
        equal = None
        plan_file = self.plan_file(cell)
        if grid.needs_costs:
            if not plan_file.is_file():
                raise RunError(f"{plan_file} is missing: the costs have not been measured yet.")
            plan = Plan.load(plan_file)
            try:
                equal = [equal_steps(cell.settings, variant, plan) for variant in grid.variants]
            except ValueError as error:  # such as freeze times for another number of layers
                raise RunError(f"{cell.name}: {error}") from error
        arms = make_arms(
            cell.settings,
            grid.variants,
            baseline=grid.baseline,
            equal=equal,
            controls=grid.rates_only,
        )
        return [
            [
                Job(
                    folder=self.folder
                    / "runs"
                    / slug(cell.name)
                    / slug(arm.name.replace(":", "-"))
                    / f"seed-{seed}",
                    settings=replace(arm.settings, seed=seed),
                    label=Label(cell=cell.name, arm=arm.name, kind=arm.kind, of=arm.of),
                    plan=plan_file if plan_file.is_file() else None,
                )
                for arm in arms
            ]
            for seed in grid.seeds
        ]

    def run(
        self,
        runner: Runner,
        *,
        deadline: float | None = None,
        retry: bool = False,
        keep_checkpoints: bool = True,
        say: Callable[[str], None] = lambda text: None,
    ) -> bool:
        """Do what is left to do.

        Args:
            runner: Brings runs to their end.
            deadline: When to stop, as `time.monotonic` has it.
            retry: Whether runs that failed are tried again.
            keep_checkpoints: Whether the checkpoint of a run stays once it is done.
            say: Told in words what happens.

        Returns:
            Whether nothing is left to do: every run is done or has failed.

        Raises:
            RunError: If the folder cannot be used; `InUseError` names the process that works in it.
            DataError: If data is missing or damaged.
        """
        self.make()
        with FolderLock(self.folder, say=say):
            self._check()
            for folder in (self.folder, self.folder / "data", self.folder / "plans"):
                remove_parts(folder)
            self.save()
            return self._run(runner, deadline, retry, keep_checkpoints, say)

    def _check(self) -> None:
        """Refuse, before anything is written, what does not fit the runs that are there."""
        for cell in self.grid.cells:
            if self._is_measured(cell) or not self.grid.needs_costs:
                for jobs in self.jobs(cell):
                    for job in jobs:
                        job_status(job)

    def _is_measured(self, cell: Cell) -> bool:
        """Return whether the costs of a cell are there, measured with the settings it has now.

        Raises:
            RunError: If the file is damaged or cannot be read.
        """
        path = self.plan_file(cell)
        try:
            Plan.load(path)
        except FreezeOutError as error:
            if isinstance(error.__cause__, FileNotFoundError):
                return False
            if isinstance(error.__cause__, OSError):
                raise
            raise RunError(
                f"{path} is damaged. Put it back from a copy, or delete it and the equal-time runs "
                "beside it: they have the length that it says."
            ) from error
        return measured_with(path) == measured_settings(unfrozen(cell.settings))

    def _run(
        self,
        runner: Runner,
        deadline: float | None,
        retry: bool,
        keep: bool,
        say: Callable[[str], None],
    ) -> bool:
        data: dict[str, Path] = {}
        for cell in self.grid.cells:
            if not prepared_file(cell.settings, self.folder / "data").is_file():
                say(f"preparing {cell.settings.data}")
            data[cell.name] = save_prepared(cell.settings, self.folder / "data")
        if not self._measure(runner, data, deadline, say):
            return False
        cells = self.grid.cells
        if self.grid.needs_costs and not any(self.plan_file(cell).is_file() for cell in cells):
            raise RunError(
                "no training step could be measured, for the reason above, so nothing can be run. "
                "Fix it; the same command, or --resume, goes on."
            )
        for cell in cells:
            self._say_trouble(cell, say)
        left = self._left(data, retry, keep)
        say(f"{self.done()} of {self.grid.size} runs are done")
        return runner.run(left, deadline=deadline) if left else True

    def _say_trouble(self, cell: Cell, say: Callable[[str], None]) -> None:
        """Say that the costs of a cell are spoilt, and what to do."""
        path, grid = self.plan_file(cell), self.grid
        spoilt = trouble_words(Plan.load(path).costs.trouble) if path.is_file() else ""
        if spoilt:
            length = " Equal-time runs have the length that they say." if grid.equal_time else ""
            say(f"{cell.name}: {spoilt}{length}")

    def done(self) -> int:
        """Return the number of runs that are done."""
        return sum(
            job_status(job) == "done"
            for cell in self.grid.cells
            if self._is_measured(cell) or not self.grid.needs_costs
            for jobs in self.jobs(cell)
            for job in jobs
        )

    def _measure(
        self,
        runner: Runner,
        data: dict[str, Path],
        deadline: float | None,
        say: Callable[[str], None],
    ) -> bool:
        """Measure the steps of all cells that have not been measured."""
        if not self.grid.variants:
            return True
        teams = []
        for cell in self.grid.cells:
            path = self.plan_file(cell)
            if not self._is_measured(cell):
                job = Job(
                    folder=self.folder / "runs" / slug(cell.name) / "measuring",
                    settings=unfrozen(cell.settings),
                    label=Label(cell=cell.name, arm="measuring", kind="baseline"),
                    plan=path,
                    data=data[cell.name],
                )
                teams.append([Task(job, "measure")])
        if teams:
            say("measuring what a training step costs")
        return runner.run(teams, deadline=deadline) if teams else True

    def _left(self, data: dict[str, Path], retry: bool, keep: bool) -> list[list[Task]]:
        """Return teams of what is not done, seed by seed: every cell soon has some of all arms."""
        by_seed: list[list[list[Task]]] = [[] for _ in self.grid.seeds]
        for cell in self.grid.cells:
            if self.grid.needs_costs and not self._is_measured(cell):
                continue  # its costs could not be measured, and that is recorded
            for teams, jobs in zip(by_seed, self.jobs(cell), strict=True):
                tasks = [
                    Task(replace(job, data=data[cell.name], keep_checkpoint=keep))
                    for job in jobs
                    if _wanted(job_status(job), retry)
                ]
                # no arm is always the first after another
                random.Random(f"{cell.name} {jobs[0].settings.seed}").shuffle(tasks)
                teams.extend([tasks] if self.grid.turns else [[task] for task in tasks])
        return [team for teams in by_seed for team in teams if team]


def _wanted(status: Status, retry: bool) -> bool:
    return status in ("new", "unfinished") or (status == "failed" and retry)
