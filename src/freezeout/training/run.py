"""A whole run: from settings to a folder with log, checkpoint and a finished network."""

from __future__ import annotations

import threading
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from freezeout.data import Dataset, default_augmentation, hold_out, load, shrink
from freezeout.durations import precise_seconds
from freezeout.errors import CheckpointError, RunError
from freezeout.importing import is_target
from freezeout.saving import Plan
from freezeout.training.checkpoint import load_checkpoint, remove_parts, save_checkpoint
from freezeout.training.folder import RunFolder
from freezeout.training.forecast import LEAST_STEPS, cost_differences, forecast
from freezeout.training.observer import Observer
from freezeout.training.processes import ALONE, Processes
from freezeout.training.settings import Settings
from freezeout.training.signals import StopSignals
from freezeout.training.stretch import Stretch, on_machine, tell
from freezeout.training.synced_norm import local_norms
from freezeout.training.trainer import Trainer, pick_device

__all__ = ["MOVABLE", "RunResult", "on_machine", "prepare", "resume", "start"]

MOVABLE = ("device", "data_dir", "checkpoint_minutes")
"""Settings that a resumed run may change."""


@dataclass(frozen=True)
class RunResult:
    """What a run leaves in memory.

    Attributes:
        trainer: The trainer in its final state.
        interrupted: Whether a signal stopped the run before its end.
        seconds: Wall seconds of the run, with those before a resume.
        plan: What the run was predicted to cost; ``None`` if it was not.
    """

    trainer: Trainer
    interrupted: bool
    seconds: float
    plan: Plan | None = None


def prepare(settings: Settings, dataset: Dataset | None = None) -> tuple[Settings, Dataset]:
    """Loads the data and fills in what depends on it or on the machine.

    Args:
        settings: What was asked for.
        dataset: The data, where it was prepared before for the same settings of data; it is then
            neither loaded nor cut again.

    Returns:
        The full settings, with `padding`, `flip`, `device` and `threads` resolved, and the data.

    Raises:
        DataError: If the data is missing or damaged.
        RunError: If settings and data do not fit together.
    """
    customary = default_augmentation(settings.data)
    settings = replace(
        settings,
        padding=customary.padding if settings.padding is None else settings.padding,
        flip=customary.flip if settings.flip is None else settings.flip,
        device=str(pick_device(settings.device)),
        threads=settings.threads or torch.get_num_threads(),
        data_dir=None if settings.data_dir is None else str(Path(settings.data_dir).resolve()),
    )
    return settings, _data(settings) if dataset is None else dataset


def _data(settings: Settings) -> Dataset:
    dataset = load(settings.data, data_dir=settings.data_dir)
    try:
        if settings.holdout:
            dataset = hold_out(dataset, settings.holdout)
    except ValueError as error:
        raise RunError(str(error)) from error
    size = settings.train_size
    if size is not None:
        if size > len(dataset.train_images):
            raise RunError(
                f"train_size must be at most {len(dataset.train_images)}, the training images of "
                f"{dataset.name}, got {size}. Leave it out to use all."
            )
        dataset = replace(
            dataset,
            train_images=dataset.train_images[:size],
            train_labels=dataset.train_labels[:size],
        )
    try:
        return shrink(dataset, settings.shrink)  # last, when there is least left to do
    except ValueError as error:
        raise RunError(str(error)) from error


def start(
    settings: Settings,
    folder: RunFolder,
    observers: Sequence[Observer] = (),
    *,
    predict: bool | None = None,
    plan: Plan | None = None,
    dataset: Dataset | None = None,
    processes: Processes = ALONE,
) -> RunResult:
    """Trains from the beginning, in a new or empty folder.

    Args:
        settings: What to train and how. With `const_time` the step is measured first, and the
            folder's settings have the resulting `steps` in its place.
        folder: Where settings, log and checkpoints go.
        observers: Told of what happens.
        predict: Whether to measure the step first and predict what freezing saves; ``None``: if
            something freezes and the run has at least `LEAST_STEPS` steps.
        plan: A plan that `settings` carry out. Its costs are used in place of new ones.
        dataset: The data, if it was prepared before; see `prepare`.
        processes: Those that train together, all of which call this alike; rank 0 alone writes and
            tells. They cannot predict: what they exchange is in no measured cost.

    Returns:
        The finished or interrupted run; ``SIGINT`` and ``SIGTERM`` end it after the step under way.

    Raises:
        FreezeOutError: If it cannot start or go on; what was saved stays.
    """
    _check_unpredicted(settings, predict, processes)
    if settings.const_time and predict is False:
        raise RunError(
            "const_time needs a prediction, got predict=False. Leave one of them out: a run is "
            "lengthened by what freezing is predicted to save."
        )
    processes.from_main(folder.check_empty)
    settings, dataset = _ready(settings, dataset, observers, processes)
    trainer = Trainer(settings, dataset, processes)
    _tell_of_norms(trainer, observers)
    if plan is not None:
        plan = _followed(plan, trainer, observers)
    if plan is None:
        plan = _predict(trainer, predict, observers)
    if plan is not None and settings.const_time:
        before, plan = plan.total_steps, plan.lengthened()
        settings = replace(settings, steps=plan.total_steps, const_time=False)
        trainer = Trainer(settings, dataset)
        tell(
            observers,
            f"constant time: {plan.total_steps:,} steps with freezing take as long as {before:,} "
            "without",
        )
    processes.from_main(lambda: folder.create(settings))
    if plan is not None:
        folder.write_plan(plan)
    _begin(trainer, folder)
    return _go(trainer, folder, observers, plan)


def _predict(trainer: Trainer, wanted: bool | None, observers: Sequence[Observer]) -> Plan | None:
    """Measures the step and tells what freezing will save, where that is wanted."""
    settings = trainer.settings
    freezes = any(n is not None for n in trainer.scheduler.freeze_steps)
    long = trainer.total_steps >= LEAST_STEPS
    if not (wanted or settings.const_time or (wanted is None and freezes and long)):
        return None
    if trainer.processes.size > 1:
        tell(observers, "no prediction: what several processes exchange is in no measured cost")
        return None
    tell(observers, "measuring what a training step costs ...")
    with on_machine(settings):
        plan = forecast(trainer)
    _tell_plan(plan, observers)
    return plan


def _followed(plan: Plan, trainer: Trainer, observers: Sequence[Observer]) -> Plan | None:
    """The plan over the steps of this run; ``None`` if its costs are those of another step."""
    plan.check(trainer.scheduler.layers)
    differences = cost_differences(plan.costs, trainer)
    if trainer.processes.size > 1:
        differences = [f"one process in place of {trainer.processes.size}"]
    if differences:
        tell(
            observers,
            f"the plan was measured with {'; '.join(differences)}: its schedule is followed, its "
            "prediction does not hold",
        )
        return None
    plan = replace(plan, schedule=trainer.settings.schedule, total_steps=trainer.total_steps)
    _tell_plan(plan, observers)
    return plan


def _tell_plan(plan: Plan, observers: Sequence[Observer]) -> None:
    interval = plan.interval
    sure = "" if interval is None else f" ({100 * interval[0]:.1f} to {100 * interval[1]:.1f})"
    tell(
        observers,
        f"predicted: freezing saves {100 * plan.saving + 0.0:.1f} %{sure} of the training steps' "
        f"time, {precise_seconds(plan.seconds)} in place of "
        f"{precise_seconds(plan.baseline_seconds)}",
    )


def _begin(trainer: Trainer, folder: RunFolder) -> None:
    """The first line of the log, and a checkpoint, so that a run killed at once can resume."""
    state = trainer.state_dict()
    if not trainer.processes.main:
        return
    settings = trainer.settings
    folder.log(
        "start",
        step=0,
        settings=settings.to_dict(),
        total_steps=trainer.total_steps,
        epoch_steps=len(trainer.train_data),
        layers=list(trainer.scheduler.layers.names),
        freeze_steps=list(trainer.scheduler.freeze_steps),
        torch=torch.__version__,
        device=str(trainer.device),
        processes=trainer.processes.size,
    )
    save_checkpoint(folder.checkpoint, state)


def resume(
    folder: RunFolder,
    changes: Mapping[str, Any] | None = None,
    observers: Sequence[Observer] = (),
    *,
    dataset: Dataset | None = None,
    processes: Processes = ALONE,
) -> RunResult:
    """Goes on with an interrupted run, to the same bits as if it had never been interrupted.

    On another number of processes it goes on to the same result but for rounding.

    Args:
        folder: The folder of the run.
        changes: Settings to change; only where and how often it saves and runs may change
            (`device`, `data_dir`, `checkpoint_minutes`).
        observers: Told of what happens.
        dataset: The data, if it was prepared before; see `prepare`.
        processes: Those that train together; see `start`.

    Returns:
        The finished or again interrupted run.

    Raises:
        FreezeOutError: If there is nothing to resume, it does not fit, or it cannot go on.
    """
    settings, state = processes.from_main(lambda: _saved(folder, changes or {}))
    settings, dataset = _ready(settings, dataset, observers, processes)
    trainer = Trainer(settings, dataset, processes)
    _tell_of_norms(trainer, observers)
    if processes.main:
        remove_parts(folder.path)
    if state is not None:
        trainer.load_state_dict(state)
    if processes.main:
        folder.rewind_log(-1 if state is None else trainer.step)
    if state is None:
        _begin(trainer, folder)
    else:
        _note_processes(trainer, len(state.get("generators", [None])), folder, observers)
    plan = processes.from_main(folder.plan)
    if plan is not None:
        plan.check(trainer.scheduler.layers)
    return _go(trainer, folder, observers, plan)


def _saved(folder: RunFolder, changes: Mapping[str, Any]) -> tuple[Settings, dict[str, Any] | None]:
    """Settings to go on with, and the state to go on from; ``None`` if there is none yet."""
    settings = folder.settings()
    for name, value in changes.items():
        if name not in MOVABLE and value != getattr(settings, name):
            raise CheckpointError(
                f"the run in {folder.path} has {name}={getattr(settings, name)!r}, got {value!r}. "
                "A resumed run keeps its settings: leave this one out, or start a new run."
            )
    # A run that was killed before its very first checkpoint begins anew.
    begun = folder.checkpoint.exists() or any(r["event"] != "start" for r in folder.read_log())
    state = load_checkpoint(folder.checkpoint) if begun else None
    if state is not None:
        _check_same(folder, settings, state.get("settings"))
    return replace(settings, **changes), state


def _ready(
    settings: Settings,
    dataset: Dataset | None,
    observers: Sequence[Observer],
    processes: Processes,
) -> tuple[Settings, Dataset]:
    """`prepare` in one process or several, which must come to the same."""
    if dataset is None:
        _announce(settings, observers)
    if processes.size == 1:
        return prepare(settings, dataset)
    settings, dataset = processes.in_turn(lambda: prepare(settings, dataset))
    if is_target(settings.data):
        sums = processes.gather_objects(_check_sum(dataset))
        other = next((rank for rank, found in enumerate(sums) if found != sums[0]), None)
        if other is not None:
            raise RunError(
                f"{settings.data} gives other data in process {other} than in process 0. It must "
                "return the same at every call: seed what it draws, and sort what it lists."
            )
    return processes.from_main(lambda: settings), dataset


def _check_sum(dataset: Dataset) -> int:
    total = 0
    for name in ("train_images", "train_labels", "test_images", "test_labels"):
        total = zlib.crc32(getattr(dataset, name).contiguous().numpy(), total)
    return total


def _check_unpredicted(settings: Settings, predict: bool | None, processes: Processes) -> None:
    asked = "const_time" if settings.const_time else "predict" if predict else None
    if asked is not None and processes.size > 1:
        raise RunError(
            f"{asked} needs measured costs, which are those of one process, got {processes.size}: "
            "what several exchange is in none of them. Leave it out, or run in one process."
        )


def _tell_of_norms(trainer: Trainer, observers: Sequence[Observer]) -> None:
    found = local_norms(trainer.model) if trainer.processes.size > 1 else []
    if found:
        tell(
            observers,
            f"{', '.join(found)} normalises in each process by itself, so the result depends on "
            "how many there are",
        )


def _note_processes(
    trainer: Trainer, before: int, folder: RunFolder, observers: Sequence[Observer]
) -> None:
    """Tells and logs that a run goes on in another number of processes."""
    now = trainer.processes.size
    if now == before or trainer.finished:
        return
    tell(
        observers,
        f"goes on in {now} process{'' if now == 1 else 'es'}, after {before}: the same result but "
        "for rounding",
    )
    if trainer.processes.main:
        folder.log("resume", step=trainer.step, processes=now)


def _announce(settings: Settings, observers: Sequence[Observer]) -> None:
    """Reading or fetching a large data set takes a while."""
    if settings.data != "digits":
        tell(observers, f"reading {settings.data} ...")


def _check_same(folder: RunFolder, settings: Settings, saved: Any) -> None:
    if not isinstance(saved, Mapping):
        raise CheckpointError(
            f"checkpoint {folder.checkpoint} holds no settings. Restore it from a copy, or start "
            "the run again in an empty folder."
        )
    here = settings.to_dict()
    for name in sorted(here.keys() | saved.keys()):
        if name not in MOVABLE and here.get(name) != saved.get(name):
            raise CheckpointError(
                f"{folder.checkpoint} was made with {name}={saved.get(name)!r}, but "
                f"{folder.settings_file} has {here.get(name)!r}. Put back the settings or the "
                "checkpoint that belong together."
            )


def _go(
    trainer: Trainer, folder: RunFolder, observers: Sequence[Observer], plan: Plan | None
) -> RunResult:
    stretch = Stretch(trainer, folder, observers)
    remove = trainer.scheduler.freezer.add_listener(stretch.note_freeze)
    try:
        stop = threading.Event()
        once = trainer.processes.size > 1  # a launcher repeats itself
        with on_machine(trainer.settings), StopSignals(stop, once=once):
            stretch.train(stop)
    finally:
        remove()
    return RunResult(trainer, not trainer.finished, stretch.seconds(), plan)
