"""What a run shows while it goes on: the interface, and the two displays without a terminal.

`LineDisplay` writes plain lines to a file or a pipe, `SilentDisplay` shows nothing; `LiveDisplay`,
in `live`, redraws a few lines on a terminal. `choose.make_display` picks one.
"""

from __future__ import annotations

import sys
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import IO

from freezeout.report._text import check_start, encodable, percent
from freezeout.report.summary import format_seconds

__all__ = ["Display", "EpochLine", "LineDisplay", "SilentDisplay", "Status"]


@dataclass(frozen=True)
class Status:
    """One moment of a run.

    Args:
        step: Optimizer steps done, 0 to `total_steps`.
        total_steps: Steps of the whole run, at least 1.
        epoch: Current epoch, counted from 1.
        epochs: Epochs of the whole run.
        loss: Training loss, latest or running.
        accuracy: Running training accuracy of this epoch in percent, 0-100; ``None`` if not known.
        frozen: Length of the frozen prefix, 0 to `layers`.
        layers: Number of layers.
        seconds_left: Estimated time to the end in seconds; ``None`` until it can be known.
        saved_seconds: Time saved so far in seconds, negative if lost; ``None`` until it can be
            known.
    """

    step: int
    total_steps: int
    epoch: int
    epochs: int
    loss: float
    accuracy: float | None
    frozen: int
    layers: int
    seconds_left: float | None = None
    saved_seconds: float | None = None


@dataclass(frozen=True)
class EpochLine:
    """One finished epoch.

    Args:
        epoch: The epoch, counted from 1.
        epochs: Epochs of the whole run.
        train_loss: Mean training loss of the epoch.
        train_error: Training error in percent, 0-100; ``None`` if not measured.
        test_error: Test error in percent, 0-100; ``None`` if not measured.
        seconds: Time the epoch took, in seconds.
        frozen: Length of the frozen prefix at its end.
        layers: Number of layers.
        saved_seconds: Time saved since the start of the run in seconds; ``None`` if not known.
    """

    epoch: int
    epochs: int
    train_loss: float
    train_error: float | None
    test_error: float | None
    seconds: float
    frozen: int
    layers: int
    saved_seconds: float | None = None


class Display(ABC):
    """Shows a run while it goes on.

    A context manager: leaving it, also by an exception, calls `stop`. Calls outside
    `start` ... `stop` are harmless.
    """

    @abstractmethod
    def start(
        self,
        layer_names: Sequence[str],
        freeze_steps: Sequence[int | None],
        title: str,
        total_steps: int,
    ) -> None:
        """Begin to show a run.

        Args:
            layer_names: One name per layer, from the input on.
            freeze_steps: Step at which each layer freezes; ``None`` for one that never does.
            title: What runs, in a few words.
            total_steps: Steps of the whole run, at least 1.

        Raises:
            ValueError: If the lengths differ, there is no layer, or `total_steps` is below 1.
        """

    @abstractmethod
    def update(self, status: Status) -> None:
        """Show a moment of the run. Cheap enough to call after every step."""

    @abstractmethod
    def epoch(self, line: EpochLine) -> None:
        """Log a finished epoch."""

    @abstractmethod
    def freeze(self, index: int, name: str, step: int) -> None:
        """Tell that layer `index`, called `name`, froze after `step` steps."""

    @abstractmethod
    def message(self, text: str) -> None:
        """Show a sentence that stays."""

    @abstractmethod
    def stop(self) -> None:
        """Stop showing and leave the terminal as it was. May be called again."""

    def __enter__(self) -> Display:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()


class SilentDisplay(Display):
    """Shows nothing."""

    def start(
        self,
        layer_names: Sequence[str],
        freeze_steps: Sequence[int | None],
        title: str,
        total_steps: int,
    ) -> None:
        """Check the arguments and show nothing."""
        check_start(layer_names, freeze_steps, total_steps)

    def update(self, status: Status) -> None:
        """Do nothing."""

    def epoch(self, line: EpochLine) -> None:
        """Do nothing."""

    def freeze(self, index: int, name: str, step: int) -> None:
        """Do nothing."""

    def message(self, text: str) -> None:
        """Do nothing."""

    def stop(self) -> None:
        """Do nothing."""


class LineDisplay(Display):
    """Writes one plain line per epoch and per freeze: for files, pipes and logs.

    Args:
        stream: Where to write; standard output by default. Characters its encoding lacks become
            question marks.
    """

    def __init__(self, stream: IO[str] | None = None) -> None:
        self._stream = stream if stream is not None else sys.stdout
        self._layers = 0

    def start(
        self,
        layer_names: Sequence[str],
        freeze_steps: Sequence[int | None],
        title: str,
        total_steps: int,
    ) -> None:
        """Write the title and how much is to come."""
        check_start(layer_names, freeze_steps, total_steps)
        self._layers = len(layer_names)
        due = sum(step is not None for step in freeze_steps)
        self._write(title)
        self._write(f"{total_steps} steps, {self._layers} layers, {due} of them will freeze")

    def update(self, status: Status) -> None:
        """Do nothing: lines are for what lasts."""

    def epoch(self, line: EpochLine) -> None:
        """Write the epoch's line."""
        width = len(str(line.epochs))
        parts = [
            f"epoch {line.epoch:>{width}}/{line.epochs}",
            f"loss {line.train_loss:.4f}",
            f"train error {percent(line.train_error)}",
            f"test error {percent(line.test_error)}",
            f"time {format_seconds(line.seconds)}",
            f"frozen {line.frozen}/{line.layers}",
        ]
        if line.saved_seconds is not None:
            parts.append(f"saved {format_seconds(line.saved_seconds)}")
        self._write("  ".join(parts))

    def freeze(self, index: int, name: str, step: int) -> None:
        """Write which layer froze and when."""
        of = f"/{self._layers}" if self._layers else ""
        self._write(f"step {step}  froze layer {index} ({name})  frozen {index + 1}{of}")

    def message(self, text: str) -> None:
        """Write the sentence."""
        self._write(text)

    def stop(self) -> None:
        """Do nothing: every line is out already."""

    def _write(self, text: str) -> None:
        self._stream.write(encodable(text, self._stream) + "\n")
        self._stream.flush()
