"""Glue between a run and its reports: live display, summary, picture."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from types import TracebackType

from freezeout.errors import RunError
from freezeout.experiments.outcome import save_summary, summarise
from freezeout.freezing import FreezeEvent
from freezeout.report.display import Display, EpochLine, SilentDisplay, Status
from freezeout.report.summary import print_summary
from freezeout.training.folder import RunFolder
from freezeout.training.observer import EpochRecord, Observer, Progress
from freezeout.training.run import RunResult
from freezeout.training.trainer import Trainer

__all__ = ["DisplayObserver", "discard_output", "finish"]

_POINTS = 500  # along each curve of the picture
_WINDOWS = 4000  # step times in the picture


class DisplayObserver(Observer):
    """Passes what a run tells on to a display; a context manager that stops it.

    Where the output goes away or is full (a closed pipe, ``| head``), the run goes on in silence.

    Args:
        display: A display, not yet started.
    """

    def __init__(self, display: Display) -> None:
        self._display = display
        self._total = self._epochs = self._layers = 1

    def __enter__(self) -> DisplayObserver:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._show(lambda display: display.stop())

    def _show(self, action: Callable[[Display], None]) -> None:
        try:
            action(self._display)
        except OSError:
            self._display = SilentDisplay()
            discard_output()

    def start(
        self,
        title: str,
        layer_names: Sequence[str],
        freeze_steps: Sequence[int | None],
        total_steps: int,
        epochs: int,
        done_steps: int,
    ) -> None:
        """Starts the display."""
        self._total, self._epochs, self._layers = total_steps, epochs, len(layer_names)
        self._show(lambda d: d.start(layer_names, freeze_steps, title, total_steps))

    def progress(self, progress: Progress) -> None:
        """Shows the moment."""
        status = Status(
            step=progress.step,
            total_steps=self._total,
            epoch=progress.epoch,
            epochs=self._epochs,
            loss=progress.loss,
            accuracy=progress.accuracy,
            frozen=progress.frozen,
            layers=self._layers,
            seconds_left=progress.seconds_left,
            saved_seconds=progress.saved_seconds,
        )
        self._show(lambda d: d.update(status))

    def freeze(self, event: FreezeEvent) -> None:
        """Shows a freeze."""
        if event.frozen:
            self._show(lambda d: d.freeze(event.index, event.name, event.step or 0))

    def epoch(self, record: EpochRecord) -> None:
        """Logs an epoch."""
        line = EpochLine(
            epoch=record.epoch,
            epochs=self._epochs,
            train_loss=record.train_loss,
            train_error=record.train_error,
            test_error=record.test_error,
            seconds=record.seconds,
            frozen=record.frozen,
            layers=self._layers,
            saved_seconds=record.saved_seconds,
        )
        self._show(lambda d: d.epoch(line))

    def message(self, text: str) -> None:
        """Shows a message."""
        self._show(lambda d: d.message(text))


def finish(result: RunResult, folder: RunFolder) -> None:
    """Saves the summary, draws the picture, and prints the summary, in this order.

    Args:
        result: The finished or interrupted run.
        folder: Where ``summary.json`` and ``run.png`` go.

    Raises:
        RunError: If the disk does not take them.
    """
    summary = summarise(result, folder)
    save_summary(summary, result, folder)
    try:
        _draw(result.trainer, folder)
    except OSError as error:
        raise RunError(
            f"cannot write {folder.picture}: {error.strerror or error}. The run itself is saved; "
            f"make room, then draw it again with: freezeout train --resume {folder.path}"
        ) from error
    try:
        print_summary(summary, sys.stdout)
        sys.stdout.flush()
    except OSError:
        discard_output()


def discard_output() -> None:
    """Sends what is still to be printed nowhere, so that Python does not stumble over it."""
    with suppress(OSError, ValueError):  # no file behind it, as under a test
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _draw(trainer: Trainer, folder: RunFolder) -> None:
    from freezeout.report.picture import draw_run

    schedule, total = trainer.scheduler, trainer.total_steps
    steps = sorted({round(i * total / _POINTS) for i in range(_POINTS + 1)})
    by_step = [schedule.factors_at(n) for n in steps]
    windows = trainer.clock.windows
    every = max(1, len(windows) // _WINDOWS)
    draw_run(
        folder.picture,
        layer_names=schedule.layers.names,
        steps=steps,
        rates=[
            [trainer.settings.lr * f for f in factors] for factors in zip(*by_step, strict=True)
        ],
        freeze_steps=schedule.freeze_steps,
        step_times=[(w.end, w.seconds, w.frozen) for w in windows[::every]],
        total_steps=total,
        title=trainer.settings.title,
        base_rate=trainer.settings.lr,
        done_steps=trainer.step,
    )
