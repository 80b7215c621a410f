"""Choose what a run shows while it goes on; the display for files, pipes and logs."""

from __future__ import annotations

import sys
from typing import IO, Literal, get_args

from rich.console import Console

from freezeout.freezing import FreezeEvent
from freezeout.lab.report.terminal.formats import error_text
from freezeout.lab.report.terminal.live import LiveDisplay
from freezeout.lab.report.terminal.output import LastingConsole, encodable
from freezeout.lab.streams import outlive
from freezeout.lab.training import EpochRecord, Observer, RunStart
from freezeout.text import format_seconds

__all__ = ["DisplayMode", "LineDisplay", "make_display"]

DisplayMode = Literal["auto", "live", "lines", "none"]
"""``"auto"`` is live on a terminal and lines elsewhere."""


def make_display(mode: DisplayMode = "auto", *, stream: IO[str] | None = None) -> Observer:
    """Choose a display.

    Args:
        mode: ``"live"``, ``"lines"``, ``"none"``, or ``"auto"``: live where the output is a
            terminal that can move its cursor, lines elsewhere (also where an environment variable
            asks for colours in a pipe).
        stream: Where to write; standard output by default.

    Returns:
        A display that has not started.

    Raises:
        ValueError: If `mode` is not one of the four.
    """
    if mode not in get_args(DisplayMode):
        known = ", ".join(repr(name) for name in get_args(DisplayMode))
        raise ValueError(f"mode must be one of {known}, got {mode!r}. 'auto' suits most uses.")
    if mode == "none":
        return Observer()
    stream = sys.stdout if stream is None else stream
    console = LastingConsole(file=stream)
    if mode == "live" or (mode == "auto" and _can_redraw(console)):
        return LiveDisplay(console)
    return LineDisplay(stream)


def _can_redraw(console: Console) -> bool:
    """Return whether cursor movements make sense there; asks the stream, not the environment."""
    isatty = getattr(console.file, "isatty", None)
    return bool(isatty and isatty()) and console.is_terminal and not console.is_dumb_terminal


class LineDisplay(Observer):
    """Write one plain line per epoch and per freeze: for files, pipes and logs.

    Where the reader goes away, the run goes on without it.

    Args:
        stream: Where to write; standard output by default. Characters its encoding lacks become
            question marks.
    """

    def __init__(self, stream: IO[str] | None = None) -> None:
        self._stream = stream if stream is not None else sys.stdout
        self._layers = self._epochs = 1

    def start(self, run: RunStart) -> None:
        """Write the title and how much is to come."""
        self._layers, self._epochs = len(run.layer_names), run.epochs
        due = sum(step is not None for step in run.freeze_steps)
        self.message(run.title)
        self.message(f"{run.total_steps} steps, {self._layers} layers, {due} of them will freeze")

    def epoch(self, record: EpochRecord) -> None:
        """Write the epoch's line."""
        width = len(str(self._epochs))
        parts = [
            f"epoch {record.epoch:>{width}}/{self._epochs}",
            f"loss {record.train_loss:.4f}",
            f"train error {error_text(record.train_error)}",
            f"test error {error_text(record.test_error)}",
            f"time {format_seconds(record.seconds)}",
            f"frozen {record.frozen}/{self._layers}",
        ]
        if record.saved_seconds is not None:
            parts.append(f"saved {format_seconds(record.saved_seconds)}")
        self.message("  ".join(parts))

    def freeze(self, event: FreezeEvent) -> None:
        """Write which layer froze and when."""
        if event.frozen:
            self.message(
                f"step {event.step or 0}  froze layer {event.index} ({event.name})  "
                f"frozen {event.index + 1}/{self._layers}"
            )

    def message(self, text: str) -> None:
        """Write a line."""
        with outlive(self._stream):
            self._stream.write(encodable(text, self._stream) + "\n")
            self._stream.flush()
