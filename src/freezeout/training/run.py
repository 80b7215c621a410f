"""A whole run: from settings to a folder with log, checkpoint and a finished network."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from freezeout.data import Dataset, default_augmentation, hold_out, load, shrink
from freezeout.durations import precise_seconds
from freezeout.errors import CheckpointError, RunError
from freezeout.freezing import FreezeEvent
from freezeout.saving import Plan
from freezeout.training.checkpoint import load_checkpoint, remove_parts, save_checkpoint
from freezeout.training.folder import RunFolder
from freezeout.training.forecast import LEAST_STEPS, cost_differences, forecast
from freezeout.training.observer import Observer, Progress
from freezeout.training.settings import Settings
from freezeout.training.signals import StopSignals
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

    Returns:
        The finished or interrupted run; ``SIGINT`` and ``SIGTERM`` end it after the step under way.

    Raises:
        FreezeOutError: If it cannot start or go on; what was saved stays.
    """
    if settings.const_time and predict is False:
        raise RunError(
            "const_time needs a prediction, got predict=False. Leave one of them out: a run is "
            "lengthened by what freezing is predicted to save."
        )
    folder.check_empty()
    if dataset is None:
        _announce(settings, observers)
    settings, dataset = prepare(settings, dataset)
    trainer = Trainer(settings, dataset)
    if plan is not None:
        plan = _followed(plan, trainer, observers)
    if plan is None:
        plan = _predict(trainer, predict, observers)
    if plan is not None and settings.const_time:
        before, plan = plan.total_steps, plan.lengthened()
        settings = replace(settings, steps=plan.total_steps, const_time=False)
        trainer = Trainer(settings, dataset)
        _tell(
            observers,
            f"constant time: {plan.total_steps:,} steps with freezing take as long as {before:,} "
            "without",
        )
    folder.create(settings)
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
    _tell(observers, "measuring what a training step costs ...")
    with on_machine(settings):
        plan = forecast(trainer)
    _tell_plan(plan, observers)
    return plan


def _followed(plan: Plan, trainer: Trainer, observers: Sequence[Observer]) -> Plan | None:
    """The plan over the steps of this run; ``None`` if its costs are those of another step."""
    plan.check(trainer.scheduler.layers)
    differences = cost_differences(plan.costs, trainer)
    if differences:
        _tell(
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
    _tell(
        observers,
        f"predicted: freezing saves {100 * plan.saving + 0.0:.1f} %{sure} of the training steps' "
        f"time, {precise_seconds(plan.seconds)} in place of "
        f"{precise_seconds(plan.baseline_seconds)}",
    )


def _tell(observers: Sequence[Observer], text: str) -> None:
    for observer in observers:
        observer.message(text)


def _begin(trainer: Trainer, folder: RunFolder) -> None:
    """The first line of the log, and a checkpoint, so that a run killed at once can resume."""
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
    )
    save_checkpoint(folder.checkpoint, trainer.state_dict())


def resume(
    folder: RunFolder,
    changes: Mapping[str, Any] | None = None,
    observers: Sequence[Observer] = (),
    *,
    dataset: Dataset | None = None,
) -> RunResult:
    """Goes on with an interrupted run, to the same bits as if it had never been interrupted.

    Args:
        folder: The folder of the run.
        changes: Settings to change; only where and how often it saves and runs may change
            (`device`, `data_dir`, `checkpoint_minutes`).
        observers: Told of what happens.
        dataset: The data, if it was prepared before; see `prepare`.

    Returns:
        The finished or again interrupted run.

    Raises:
        FreezeOutError: If there is nothing to resume, it does not fit, or it cannot go on.
    """
    settings = folder.settings()
    for name, value in (changes or {}).items():
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
    if dataset is None:
        _announce(settings, observers)
    settings, dataset = prepare(replace(settings, **dict(changes or {})), dataset)
    trainer = Trainer(settings, dataset)
    remove_parts(folder.path)
    if state is not None:
        trainer.load_state_dict(state)
        folder.rewind_log(trainer.step)
    else:
        folder.rewind_log(-1)
        _begin(trainer, folder)
    plan = folder.plan()
    if plan is not None:
        plan.check(trainer.scheduler.layers)
    return _go(trainer, folder, observers, plan)


def _announce(settings: Settings, observers: Sequence[Observer]) -> None:
    """Reading or fetching a large data set takes a while."""
    if settings.data != "digits":
        _tell(observers, f"reading {settings.data} ...")


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
    stretch = _Stretch(trainer, folder, observers)
    remove = trainer.scheduler.freezer.add_listener(stretch.note_freeze)
    try:
        stop = threading.Event()
        with on_machine(trainer.settings), StopSignals(stop):
            stretch.train(stop)
    finally:
        remove()
    return RunResult(trainer, not trainer.finished, stretch.seconds(), plan)


@contextmanager
def on_machine(settings: Settings) -> Iterator[None]:
    """Threads and kernels as the settings want them; as before on leaving."""
    threads = torch.get_num_threads()
    torch.set_num_threads(settings.threads or threads)
    exact = settings.deterministic
    try:
        with torch.backends.cudnn.flags(enabled=True, benchmark=not exact, deterministic=exact):
            yield
    finally:
        torch.set_num_threads(threads)


class _Stretch:
    """One stretch of a run, from start or resume to its end or interruption."""

    def __init__(self, trainer: Trainer, folder: RunFolder, observers: Sequence[Observer]) -> None:
        self.trainer = trainer
        self.folder = folder
        self.observers = observers
        self._begun = time.monotonic()
        self._before = trainer.elapsed
        self._saved_at = self._begun
        self._saved_seconds: float | None = trainer.clock.saved_seconds()
        self._computed_at = self._begun

    def seconds(self) -> float:
        """Wall seconds of the run so far."""
        held_up = sum(observer.waited for observer in self.observers)
        return self._before + time.monotonic() - self._begun - held_up

    def note_freeze(self, event: FreezeEvent) -> None:
        """Logs and passes on that a layer froze."""
        kind = "freeze" if event.frozen else "unfreeze"
        self.folder.log(kind, step=event.step, index=event.index, name=event.name)
        self._computed_at = -math.inf  # what is shown next counts anew
        for observer in self.observers:
            observer.freeze(event)

    def train(self, stop: threading.Event) -> None:
        """Trains to the end, or until a signal asks to stop."""
        trainer, settings = self.trainer, self.trainer.settings
        schedule = trainer.scheduler
        for observer in self.observers:
            observer.start(
                settings.title,
                schedule.layers.names,
                schedule.freeze_steps,
                trainer.total_steps,
                trainer.epochs,
                trainer.step,
            )
        while not trainer.finished:
            if not self._epoch(stop):
                break
            record = trainer.finish_epoch()
            self._saved_seconds = record.saved_seconds
            self.folder.log("epoch", **asdict(record))
            for observer in self.observers:
                observer.epoch(record)
            self.save()
            if stop.is_set():
                break
        if stop.is_set() and not trainer.finished:
            _tell(
                self.observers,
                f"stopped after step {trainer.step} of {trainer.total_steps}, all saved; "
                f"go on with: freezeout train --resume {self.folder.path}",
            )
        self.folder.log("end", step=trainer.step, finished=trainer.finished, seconds=self.seconds())

    def save(self) -> None:
        """Writes a checkpoint."""
        self.trainer.elapsed = self.seconds()
        save_checkpoint(self.folder.checkpoint, self.trainer.state_dict())
        self._saved_at = time.monotonic()

    def _epoch(self, stop: threading.Event) -> bool:
        """Takes the steps left in the epoch; False if a signal cut it short."""
        trainer, clock = self.trainer, self.trainer.clock
        every = 60.0 * trainer.settings.checkpoint_minutes
        batches = trainer.batches()
        while True:
            frozen = trainer.frozen
            clock.begin_step(frozen)
            batch = next(batches, None)
            if batch is None:
                clock.close(trainer.step)
                return True
            trainer.take_step(*batch)
            clock.end_step()
            stopping = stop.is_set()
            save = time.monotonic() - self._saved_at > every
            if clock.full or frozen != trainer.frozen or stopping or save:
                clock.close(trainer.step)
                trainer.read()
                self._tell_progress()
            if stopping and trainer.batch < trainer.epoch_steps:
                self.save()
                return False
            if save:
                self.save()

    def _tell_progress(self) -> None:
        if not self.observers:
            return
        trainer, now = self.trainer, time.monotonic()
        # Medians over all steps so far: not at every step, and the less often the more there are.
        if now - self._computed_at > max(1.0, len(trainer.clock) / 2000):
            self._saved_seconds = trainer.clock.saved_seconds()
            self._computed_at = now
        pace = trainer.clock.pace()
        progress = Progress(
            step=trainer.step,
            epoch=trainer.epoch + 1,
            loss=trainer.running_loss,
            accuracy=100.0 - trainer.running_error,
            frozen=trainer.frozen,
            seconds_left=None if pace is None else pace * (trainer.total_steps - trainer.step),
            saved_seconds=self._saved_seconds,
        )
        for observer in self.observers:
            observer.progress(progress)
