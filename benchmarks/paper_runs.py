"""The set that `paper_gpu` runs: its cells, and how far each of them is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from itertools import chain
from math import ceil
from pathlib import Path
from statistics import mean
from typing import Any

from freezeout.errors import FreezeOutError
from freezeout.experiments.arms import make_arms, variant_of
from freezeout.experiments.experiment import Experiment
from freezeout.experiments.grid import Cell, Grid
from freezeout.experiments.job import Job, failure, job_status
from freezeout.experiments.records import read_run
from freezeout.saving import Plan
from freezeout.training import Settings
from freezeout.training.presets import preset
from paper_results import Key

__all__ = [
    "CELLS",
    "Part",
    "Standing",
    "cell_name",
    "finished_jobs",
    "make_part",
    "pieces_left",
    "standing",
]

CELLS: dict[str, dict[str, Any]] = {
    "wrn-cifar100": {"model": "wrn-40-4", "data": "cifar100"},
    "densenet-cifar10": {"model": "densenet-76-12", "data": "cifar10"},
    "vgg-cifar100": {"model": "vgg16", "data": "cifar100"},
    "wrn-cifar10": {"model": "wrn-40-4", "data": "cifar10"},
    "densenet-cifar100": {"model": "densenet-76-12", "data": "cifar100"},
    "vgg-cifar10": {"model": "vgg16", "data": "cifar10"},
}
"""What is compared within, in the order in which it is run: first what the paper has numbers of."""

TESTS = 10
"""Tests in a run. They are outside the clock of the training steps, but take time of the piece."""

_NOT_IN_NAMES = (
    *("model", "data", "seed"),  # said otherwise
    *("data_dir", "device", "threads", "evaluate_every", "checkpoint_minutes"),  # not of the result
)
_WORDS = {"epochs": "{} epochs", "batch_size": "batch {}", "precision": "{}"}


@dataclass(frozen=True)
class Part:
    """One cell of the set.

    Attributes:
        cell: Its name and settings.
        seeds: All its seeds.
        experiment: What there is to run in it; ``None`` if the results have all of it.
        recorded: Runs that are in the results and not in the experiment.
    """

    cell: Cell
    seeds: tuple[int, ...]
    experiment: Experiment | None
    recorded: int


def make_part(
    values: Mapping[str, Any], given: Mapping[str, Any], seeds: int, state: Path, recorded: set[Key]
) -> Part:
    """The cell of some settings, over the paper's protocol.

    A seed all of whose arms are in the results is done, also where its folders are not at hand.

    Args:
        values: The cell's settings.
        given: Settings for all cells, which win.
        seeds: Number of seeds, at least 1.
        state: Folder of the experiment.
        recorded: The runs that the results have.

    Raises:
        RunError: If a setting is not allowed.
    """
    protocol = {**preset("paper"), **values, **given}
    epochs = protocol["epochs"]
    often = max(1, epochs // TESTS) if isinstance(epochs, int) else 1
    settings = Settings.from_dict({"evaluate_every": often, "threads": 1, **protocol})
    variant = variant_of(settings)
    variants = () if variant is None else (variant,)
    cell = Cell(name=cell_name(settings), settings=settings)
    arms = [arm.name for arm in make_arms(settings, variants, equal=[1], controls=False)]
    left = [
        seed
        for seed in range(seeds)
        if not recorded.issuperset((cell.name, arm, seed) for arm in arms)
    ]
    experiment = None
    if left:
        grid = Grid(
            cells=(cell,), variants=variants, seeds=tuple(left), equal_time=True, turns=True
        )
        experiment = Experiment(state, grid)
    return Part(cell, tuple(range(seeds)), experiment, (seeds - len(left)) * len(arms))


def cell_name(settings: Settings) -> str:
    """Network and data, and all in which the training departs from the paper's protocol."""
    paper = Settings.from_dict(preset("paper"))
    name = f"{settings.model} on {settings.data}"
    for spec in fields(Settings):
        value = getattr(settings, spec.name)
        if spec.name not in _NOT_IN_NAMES and value != getattr(paper, spec.name):
            name += ", " + _WORDS.get(spec.name, f"{spec.name}={{}}").format(value)
    return name


# ---------------------------------------------------------------- how far it is


@dataclass(frozen=True, kw_only=True)
class Standing:
    """How far a cell is.

    Attributes:
        cell: Its name.
        runs: Runs in all.
        done: Runs that are done.
        failed: Name and reason of each run that failed.
        seconds_done: Seconds of training that its runs have behind them, as predicted.
        seconds_left: Seconds of training before them; ``None`` if its steps were not measured.
        run_seconds: Predicted seconds of training of a run, on average; ``None`` likewise, and
            where nothing is left to run.
    """

    cell: str
    runs: int
    done: int
    failed: tuple[str, ...] = ()
    seconds_done: float = 0.0
    seconds_left: float | None = 0.0
    run_seconds: float | None = None

    @property
    def left(self) -> int:
        """Runs that are still to be done."""
        return self.runs - self.done - len(self.failed)


def standing(part: Part) -> Standing:
    """How far a cell is, from the folders of its runs and from the results.

    Raises:
        RunError: If a folder holds a run with other settings.
    """
    runs = part.recorded + (part.experiment.grid.size if part.experiment else 0)
    if part.experiment is None:
        return Standing(cell=part.cell.name, runs=runs, done=part.recorded)
    plan_file = part.experiment.plan_file(part.cell)
    if not plan_file.is_file():
        return Standing(cell=part.cell.name, runs=runs, done=part.recorded, seconds_left=None)
    plan = Plan.load(plan_file)
    done, failed, behind, before, total = part.recorded, [], 0.0, 0.0, 0.0
    jobs = _jobs(part)
    for job in jobs:
        status = job_status(job)
        steps = job.settings.steps or plan.total_steps
        schedule = job.settings.schedule
        seconds = replace(plan, schedule=schedule, total_steps=steps, spacing="").seconds
        share = 1.0 if status == "done" else _steps_done(job) / steps
        total += seconds
        behind += share * seconds
        if status == "failed":
            arm, seed = job.label.arm, job.settings.seed
            failed.append(f"{part.cell.name}, {arm}, seed {seed}: {failure(job.folder)}")
        else:
            before += (1.0 - share) * seconds
        done += status == "done"
    return Standing(
        cell=part.cell.name,
        runs=runs,
        done=done,
        failed=tuple(failed),
        seconds_done=behind,
        seconds_left=before,
        run_seconds=total / len(jobs),
    )


def pieces_left(before: Sequence[Standing], after: Sequence[Standing]) -> int | None:
    """How many more pieces like the last one what is left will take.

    A cell whose steps have not been measured counts as much for each run as those that have.

    Args:
        before: How far the cells were when the last piece began.
        after: How far they were at its end.

    Returns:
        The number; ``None`` if the piece did not get on.
    """
    gained = sum(one.seconds_done for one in after) - sum(one.seconds_done for one in before)
    if gained <= 0.0:
        return None
    measured = [one.run_seconds for one in after if one.run_seconds is not None]
    left = sum(one.seconds_left or 0.0 for one in after)
    left += mean(measured) * sum(one.left for one in after if one.seconds_left is None)
    return ceil(left / gained)


def finished_jobs(part: Part) -> list[Job]:
    """The runs of a cell that are done, as their folders say."""
    return [job for job in _jobs(part) if job_status(job) == "done"]


def _jobs(part: Part) -> list[Job]:
    """The runs of a cell; none before its steps are measured, which decides on their lengths."""
    experiment = part.experiment
    if experiment is None or not experiment.plan_file(part.cell).is_file():
        return []
    return list(chain(*experiment.jobs(part.cell)))


def _steps_done(job: Job) -> int:
    try:
        return read_run(job.folder).steps
    except (FreezeOutError, OSError, KeyError, ValueError, TypeError, IndexError):
        return 0  # not begun, or not to be read: all of it counts as left
