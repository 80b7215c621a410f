"""One stretch of a run, from start or resume to its end or interruption."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any

import torch

from freezeout.freezing import FreezeEvent
from freezeout.lab.training.checkpoint import save_checkpoint
from freezeout.lab.training.folder import RunFolder
from freezeout.lab.training.observer import Observer, Progress, RunStart
from freezeout.lab.training.settings import Settings
from freezeout.lab.training.trainer import Trainer
from freezeout.text import command

__all__ = ["Stretch", "on_machine", "tell"]


@contextmanager
def on_machine(settings: Settings) -> Iterator[None]:
    """Set threads and kernels as the settings want them; put them back on leaving."""
    threads = torch.get_num_threads()
    torch.set_num_threads(settings.threads or threads)
    exact = settings.deterministic
    try:
        with torch.backends.cudnn.flags(enabled=True, benchmark=not exact, deterministic=exact):
            yield
    finally:
        torch.set_num_threads(threads)


def tell(observers: Sequence[Observer], text: str) -> None:
    """Tell all observers something."""
    for observer in observers:
        observer.message(text)


class Stretch:
    """One stretch of a run, from start or resume to its end or interruption.

    Where several processes train together, each has a stretch of its own, and all take the same
    steps. That of rank 0 writes to the folder, and its clock decides when to save. A wish to stop
    counts whichever process has it.

    Args:
        trainer: The run.
        folder: Where log and checkpoints go.
        observers: Told of what happens; none in processes other than rank 0.
    """

    def __init__(self, trainer: Trainer, folder: RunFolder, observers: Sequence[Observer]) -> None:
        self.trainer = trainer
        self.folder = folder
        self.observers = observers
        self._processes = trainer.processes
        self._stopping = False  # as all processes have agreed
        self._begun = time.monotonic()
        self._before = trainer.elapsed
        self._saved_at = self._begun
        self._saved_seconds: float | None = trainer.clock.saved_seconds()
        self._computed_at = self._begun

    def seconds(self) -> float:
        """Return the wall seconds of the run so far."""
        held_up = sum(observer.waited for observer in self.observers)
        return self._before + time.monotonic() - self._begun - held_up

    def note_freeze(self, event: FreezeEvent) -> None:
        """Log and pass on that a layer froze."""
        kind = "freeze" if event.frozen else "unfreeze"
        self._log(kind, step=event.step, index=event.index, name=event.name)
        self._computed_at = -math.inf  # what is shown next is counted again
        for observer in self.observers:
            observer.freeze(event)

    def train(self, stop: threading.Event) -> None:
        """Train to the end, or until a signal asks to stop."""
        trainer, settings = self.trainer, self.trainer.settings
        scheduler = trainer.scheduler
        run = RunStart(
            settings.title,
            scheduler.layers.names,
            scheduler.freeze_steps,
            trainer.total_steps,
            trainer.epochs,
            trainer.step,
        )
        for observer in self.observers:
            observer.start(run)
        while not trainer.finished:
            if not self._epoch(stop):
                break
            record = trainer.finish_epoch()
            self._saved_seconds = record.saved_seconds
            self._log("epoch", **asdict(record))
            for observer in self.observers:
                observer.epoch(record)
            self.save()
            (self._stopping,) = self._processes.any(stop.is_set())
            if self._stopping:
                break
        if self._stopping and not trainer.finished:
            tell(
                self.observers,
                f"stopped after step {trainer.step} of {trainer.total_steps}, all saved; "
                f"go on with: {command('train', '--resume', self.folder.path)}",
            )
        self._log("end", step=trainer.step, finished=trainer.finished, seconds=self.seconds())

    def save(self) -> None:
        """Write a checkpoint."""
        self.trainer.elapsed = self.seconds()
        state = self.trainer.state_dict()
        if self._processes.main:
            self.folder.sync_log()  # a checkpoint must not know more than the log
            save_checkpoint(self.folder.checkpoint, state)
        self._saved_at = time.monotonic()

    def _epoch(self, stop: threading.Event) -> bool:
        """Take the steps left in the epoch; return false if a signal cut it short."""
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
            late = time.monotonic() - self._saved_at > every
            due, save = clock.full or frozen != trainer.frozen, False
            if self._processes.size == 1:
                due = due or stop.is_set() or late
            if due:  # at the same steps in all processes
                clock.close(trainer.step)
                wishes = stop.is_set(), late and self._processes.main
                self._stopping, save = trainer.read(*wishes)
                self._tell_progress()
            if self._stopping and trainer.batch < trainer.epoch_steps:
                self.save()
                return False
            if save:
                self.save()

    def _log(self, event: str, **values: Any) -> None:
        if self._processes.main:
            self.folder.log(event, **values)

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
