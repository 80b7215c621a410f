"""One run of an experiment: what it is, how far it is; bring it to its end."""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, Literal, TypeAlias

from freezeout.errors import FreezeOutError, RunError
from freezeout.lab.data import Dataset
from freezeout.lab.evidence import Kind
from freezeout.lab.experiments.arms import variant_of
from freezeout.lab.experiments.prepared import load_prepared
from freezeout.lab.locks import FolderLock, InUseError
from freezeout.lab.training import (
    MOVABLE,
    Observer,
    RunFolder,
    RunStart,
    Settings,
    Trainer,
    forecast,
    most_threads,
    on_machine,
    prepare,
    resolve_machine,
    resume,
    save_summary,
    start,
    summarise,
)
from freezeout.planning import Plan
from freezeout.schedule import Schedule
from freezeout.storage import KeptFile, read_json, remove_parts, write_json
from freezeout.text import one_line

__all__ = [
    "Job",
    "JobOutcome",
    "Label",
    "Status",
    "failure",
    "job_lock",
    "job_status",
    "measure_job",
    "measured_settings",
    "measured_with",
    "record_failure",
    "run_job",
]

_RECORD = KeptFile("record", "Copy it again.", "Copy it again, or do the run again.")

Status: TypeAlias = Literal["new", "unfinished", "done", "failed"]
JobOutcome: TypeAlias = Literal["done", "failed", "interrupted"]


@dataclass(frozen=True, kw_only=True)
class Label:
    """What a run is in its experiment; kept beside it as ``arm.json``.

    Attributes:
        cell: What it is compared within, as shown.
        arm: What sets it apart there, as shown.
        kind: What it is in a comparison.
        of: Arm of the variant that an equal-time baseline or a control belongs to.
    """

    cell: str
    arm: str
    kind: Kind
    of: str | None = None


@dataclass(frozen=True, kw_only=True)
class Job:
    """One run to be done.

    Attributes:
        folder: Folder of the run.
        settings: What to train.
        label: What the run is in its experiment.
        plan: File with a plan of the same network, from whose measured costs the saving is
            predicted; ``None``: no prediction.
        data: File with the data, prepared; ``None``: the run prepares it itself.
        keep_checkpoint: Whether its checkpoint stays once it is done.
    """

    folder: Path
    settings: Settings
    label: Label
    plan: Path | None = None
    data: Path | None = None
    keep_checkpoint: bool = True

    def to_dict(self) -> dict[str, Any]:
        """Return plain values that JSON can hold."""
        return {
            "folder": str(self.folder),
            "settings": self.settings.to_dict(),
            "label": asdict(self.label),
            "plan": None if self.plan is None else str(self.plan),
            "data": None if self.data is None else str(self.data),
            "keep_checkpoint": self.keep_checkpoint,
        }

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Job:
        """Return the job that `to_dict` described."""
        plan, data = values["plan"], values["data"]
        return cls(
            folder=Path(values["folder"]),
            settings=Settings.from_dict(values["settings"]),
            label=Label(**values["label"]),
            plan=None if plan is None else Path(plan),
            data=None if data is None else Path(data),
            keep_checkpoint=values["keep_checkpoint"],
        )


def job_status(job: Job) -> Status:
    """Return how far a job is, from its folder alone; a damaged one is recorded as failed.

    Raises:
        RunError: If the folder holds a run with other settings, or something else, or the system
            does not let it be read, which says nothing about the run.
    """
    folder = RunFolder(job.folder)
    try:
        failed, begun = _failed_file(job).is_file(), folder.settings_file.is_file()
    except OSError as error:
        raise RunError(
            f"cannot look into {job.folder}: {error.strerror}. Fix the permissions of that folder."
        ) from error
    if failed:
        return "failed"
    if not begun:
        return "new"
    try:
        settings = folder.settings()
    except FreezeOutError as error:
        if isinstance(error.__cause__, OSError):
            raise
        record_failure(job, f"its folder cannot be read: {' '.join(str(error).split())}")
        return "failed"
    _check_same(job, settings)
    return "done" if _is_done(folder) else "unfinished"


PATIENCE = 300.0
"""Seconds for an earlier process of a run to let go of it: it saves as soon as it is alone."""


def run_job(
    job: Job,
    observers: Sequence[Observer] = (),
    *,
    give_up: Callable[[], bool] = lambda: False,
) -> JobOutcome:
    """Bring a run to its end: begin it, or go on from its last checkpoint.

    A run that is done is left alone; one that is not done and has no checkpoint begins again, as in
    a copy without the large files. What goes wrong is recorded in ``failed.json`` in its folder.
    Two processes never work on one run: the second one waits for the first, up to `PATIENCE`.

    Args:
        job: The run.
        observers: Told of what happens.
        give_up: Asked while another process has the run, whether to wait no longer.

    Returns:
        How it ended.

    Raises:
        RunError: If the folder holds a run with other settings.
    """
    try:
        with job_lock(job.folder, patience=PATIENCE, give_up=give_up):
            return _bring_to_its_end(job, observers)
    except InUseError as error:
        if give_up():
            return "interrupted"
        record_failure(job, f"{one_line(error)} Then try again with --retry.")
        return "failed"


def _bring_to_its_end(job: Job, observers: Sequence[Observer]) -> JobOutcome:
    job.folder.mkdir(parents=True, exist_ok=True)
    if job_status(job) == "done":
        return "done"
    _failed_file(job).unlink(missing_ok=True)
    try:
        return _train(job, observers)
    except FreezeOutError as error:
        record_failure(job, one_line(error))
    except Exception as error:
        record_failure(job, f"{type(error).__name__}: {error}", traceback.format_exc())
    return "failed"


def job_lock(folder: Path, *, patience: float, give_up: Callable[[], bool]) -> FolderLock:
    """Return the lock that holds a run for one process, until that process dies.

    It is beside the folder, which is empty when its run begins.

    Args:
        folder: Folder of the run.
        patience: Seconds to wait for another process.
        give_up: Asked while waiting, whether to wait no longer.
    """
    return FolderLock(folder, beside=True, patience=patience, give_up=give_up)


def record_failure(job: Job, reason: str, trace: str | None = None) -> None:
    """Write down in a run's folder that it failed, and why."""
    job.folder.mkdir(parents=True, exist_ok=True)
    write_json(_failed_file(job), {"reason": reason, "traceback": trace, **asdict(job.label)})


def failure(folder: Path) -> str | None:
    """Return why the run in a folder failed; ``None`` if it did not."""
    path = folder / "failed.json"
    try:
        reason = read_json(path, _RECORD).get("reason")
    except RunError as error:
        if isinstance(error.__cause__, FileNotFoundError):
            return None
        return f"what went wrong cannot be read: {one_line(error)}"
    return reason if isinstance(reason, str) and reason else "it failed, but why is not known."


def measure_job(job: Job) -> None:
    """Measure what a step of a run costs and save a plan of the run where `job.plan` says.

    How long an equal-time baseline is depends on it, so on a noisy machine it measures again, twice
    as long each time, until the saving of the default schedule is known to 2 points either way, or
    a twentieth of what the run takes has been spent. Spoilt costs count as not known.

    Raises:
        FreezeOutError: If it cannot be measured.
    """
    if job.plan is None:
        raise ValueError("plan must name a file to write, got None. Give the job one.")
    settings, dataset = prepare(job.settings, _dataset(job))
    with on_machine(settings):
        plan = _precise_forecast(Trainer(settings, dataset))
    job.plan.parent.mkdir(parents=True, exist_ok=True)
    write_json(job.plan, plan.to_dict())
    write_json(_beside(job.plan), measured_settings(job.settings))
    _failed_file(job).unlink(missing_ok=True)


def measured_settings(settings: Settings) -> dict[str, Any]:
    """Return the settings that decide what is measured and how long the run is, for JSON."""
    values: dict[str, Any] = settings.to_dict()
    for name in ("seed", "data_dir", "checkpoint_minutes", "evaluate_every"):
        values.pop(name, None)
    return values


def measured_with(plan: Path) -> dict[str, Any] | None:
    """Return the settings that a plan was measured with; ``None`` if they are not known.

    Raises:
        RunError: If the system does not let them be read.
    """
    return _record(_beside(plan))


def _record(path: Path) -> dict[str, Any] | None:
    """Return a record; ``None`` if there is none or it is damaged, so that it is made again.

    Raises:
        RunError: If the system does not let it be read: then nobody knows.
    """
    try:
        return read_json(path, _RECORD) if path.is_file() else None
    except RunError as error:
        if isinstance(error.__cause__, OSError):
            raise
        return None


def _beside(plan: Path) -> Path:
    return plan.with_name(f"{plan.stem}.settings.json")


_ROUNDS = (6, 12, 24)
_PRECISE = 0.02  # half of the interval of a saving
_SHARE = 0.05


def _precise_forecast(trainer: Trainer) -> Plan:
    begun = time.monotonic()
    for rounds in _ROUNDS:
        plan = forecast(trainer, rounds=rounds)
        low, high = replace(plan, schedule=Schedule(), spacing="").interval or (0.0, 0.0)
        spent = time.monotonic() - begun
        precise = high - low <= 2 * _PRECISE and not plan.costs.trouble
        if precise or spent > _SHARE * plan.baseline_seconds:
            break
    return plan


def _train(job: Job, observers: Sequence[Observer]) -> JobOutcome:
    folder = RunFolder(job.folder)
    dataset = _dataset(job)
    observers = (*observers, _Labels(job))
    if folder.settings_file.is_file():
        if not folder.checkpoint.exists():
            folder.log_file.unlink(missing_ok=True)  # without a log, `resume` begins again
        values = ((f.name, getattr(job.settings, f.name)) for f in fields(Settings))
        changes = {name: value for name, value in values if value is not None}
        result = resume(folder, changes, observers, dataset=dataset)
    else:
        remove_parts(job.folder)  # of one that was killed as it began
        plan = None
        if job.plan is not None and job.settings.freeze and variant_of(job.settings) is not None:
            plan = Plan.load(job.plan)  # schedule and length are replaced by the run's own
        # All runs of an experiment take one number of threads; none chooses its own.
        settings = resolve_machine(job.settings, threads=most_threads())
        result = start(settings, folder, observers, predict=False, plan=plan, dataset=dataset)
    save_summary(summarise(result, folder), result, folder)
    if result.interrupted:
        return "interrupted"
    if not job.keep_checkpoint:
        folder.checkpoint.unlink(missing_ok=True)
    return "done"


class _Labels(Observer):
    """Put the label beside a run once its folder is there."""

    def __init__(self, job: Job) -> None:
        self._job = job

    def start(self, run: RunStart) -> None:
        write_json(self._job.folder / "arm.json", asdict(self._job.label))


def _check_same(job: Job, found: Settings) -> None:
    for spec in fields(Settings):
        wanted, there = getattr(job.settings, spec.name), getattr(found, spec.name)
        if wanted is not None and wanted != there and spec.name not in MOVABLE:
            raise RunError(
                f"{job.folder} holds a run with {spec.name}={there!r}, but {wanted!r} is asked "
                "for. Give another folder with --out, or the settings that it was begun with."
            )


def _dataset(job: Job) -> Dataset | None:
    return None if job.data is None else load_prepared(job.data)


def _failed_file(job: Job) -> Path:
    return job.folder / "failed.json"


def _is_done(folder: RunFolder) -> bool:
    summary = _record(folder.summary_file)
    return summary is not None and summary.get("interrupted") is False
