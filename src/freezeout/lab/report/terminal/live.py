"""The display that redraws a few lines at the foot of a terminal.

It has no thread: it redraws inside `LiveDisplay.progress`, between two steps, so that it never
competes with a step that is being timed. It redraws so seldom that it takes at most about one
hundredth of the run, on any terminal that draws within ten milliseconds.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence

from rich.console import Console, ConsoleOptions, RenderResult
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from freezeout.errors import check_whole
from freezeout.freezing import FreezeEvent
from freezeout.lab.report.terminal.formats import error_text, loss_text, shortened
from freezeout.lab.report.terminal.output import LastingConsole, encodable
from freezeout.lab.streams import outlive
from freezeout.lab.training import EpochRecord, Observer, Progress, RunStart
from freezeout.text import format_seconds

__all__ = ["LiveDisplay", "frozen_strip"]

_FROZEN_STYLE = "bright_blue"
_ACTIVE_STYLE = "yellow"
_MAX_STRIP_ROWS = 3


class LiveDisplay(Observer):
    """Redraw a few lines at the foot of a terminal; the epochs scroll by above them.

    While it runs, whatever else is written to standard output or standard error appears above the
    live lines. `close` brings the cursor and both streams back. Where the terminal goes away, the
    run goes on without it.

    Args:
        console: The console to draw on; one on standard output by default.
        clock: Seconds from any start that never run backwards.
        min_interval: Least time between two redraws by `progress`, in seconds. Where
            redrawing is slow the pause is a hundred times as long as a redraw, up to one second.
    """

    def __init__(
        self,
        console: Console | None = None,
        *,
        clock: Callable[[], float] = time.monotonic,
        min_interval: float = 0.1,
    ) -> None:
        self._console = console if console is not None else LastingConsole()
        self._clock = clock
        self._min_interval = min_interval
        self._next_redraw = -math.inf
        self._live: Live | None = None
        self._view = _View(("",), (None,), 1, 1)
        self._header_shown = False

    def start(self, run: RunStart) -> None:
        """Print the title and open the live lines."""
        self.close()
        self._header_shown = False
        names = tuple(encodable(name, self._console.file) for name in run.layer_names)
        self._view = _View(names, tuple(run.freeze_steps), run.total_steps, run.epochs)
        self._print(Text(run.title, style="bold"), wrap=True)
        # No thread: see the head of this file.
        live = Live(self._view, console=self._console, auto_refresh=False, vertical_overflow="crop")
        self._live = live
        self._next_redraw = -math.inf
        try:
            with outlive(self._console.file):
                live.start(refresh=True)
        except BaseException:
            self.close()
            raise

    def progress(self, progress: Progress) -> None:
        """Keep the moment; redraw if the last redraw is long enough ago."""
        self._view.progress = progress
        self._view.frozen = progress.frozen
        self._redraw_if_due()

    def epoch(self, record: EpochRecord) -> None:
        """Print the epoch's row above the live lines, under a header the first time."""
        epochs, layers = self._view.epochs, len(self._view.names)
        widths = (max(5, 2 * len(str(epochs)) + 1), 7, 9, 8, 8, max(6, 2 * len(str(layers)) + 1), 8)
        if not self._header_shown:
            self._header_shown = True
            self._print(Text(_row(_COLUMNS, widths), style="dim"))
        saved = "-" if record.saved_seconds is None else format_seconds(record.saved_seconds)
        cells = (
            f"{record.epoch}/{epochs}",
            loss_text(record.train_loss),
            error_text(record.train_error),
            error_text(record.test_error),
            format_seconds(record.seconds),
            f"{record.frozen}/{layers}",
            saved,
        )
        self._print(Text(_row(cells, widths)))

    def freeze(self, event: FreezeEvent) -> None:
        """Show the layer as frozen from the next redraw on; no line of its own."""
        if event.frozen:
            self._view.frozen = max(self._view.frozen, event.index + 1)
            self._redraw_if_due()

    def message(self, text: str) -> None:
        """Print the sentence above the live lines."""
        self._print(Text(text), wrap=True)

    def close(self) -> None:
        """Draw a last time, then leave the terminal as it was."""
        live, self._live = self._live, None
        if live is not None:
            with outlive(self._console.file):
                live.stop()

    def _redraw_if_due(self) -> None:
        now = self._clock()
        if self._live is None or now < self._next_redraw:
            return
        with outlive(self._console.file):
            self._live.refresh()
        done = self._clock()
        self._next_redraw = done + max(self._min_interval, min(1.0, 100 * (done - now)))

    def _print(self, text: Text, *, wrap: bool = False) -> None:
        text.plain = encodable(text.plain, self._console.file)
        # Cropped, not shortened with an ellipsis, which not every terminal can show.
        with outlive(self._console.file):
            self._console.print(text, no_wrap=not wrap, overflow="fold" if wrap else "crop")


class _View:
    """The live lines. Their number depends on the width only, so nothing jumps."""

    def __init__(
        self,
        names: tuple[str, ...],
        freeze_steps: tuple[int | None, ...],
        total_steps: int,
        epochs: int,
    ) -> None:
        self.names = names
        self.freeze_steps = freeze_steps
        self.total_steps = total_steps
        self.epochs = epochs
        self.progress: Progress | None = None
        self.frozen = 0

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        width = options.max_width
        ascii_only = options.ascii_only or options.legacy_windows
        yield self._bar()
        yield from _flow(self._fields(), width)
        yield frozen_strip(len(self.names), self.frozen, width=width, ascii_only=ascii_only)
        yield self._next_freeze(width, ascii_only=ascii_only)

    def _bar(self) -> Table:
        now, total = self.progress, f"{self.total_steps:,}"
        step = 0 if now is None else now.step
        position = f"{100 * step // self.total_steps:3d} %  step {step:>{len(total)},}/{total}"
        if now is not None:
            position += f"  epoch {now.epoch:>{len(str(self.epochs))}}/{self.epochs}"
        grid = Table.grid(expand=True, padding=(0, 1), pad_edge=False)
        grid.add_column(ratio=1)
        grid.add_column(no_wrap=True, overflow="crop")
        bar = ProgressBar(
            total=self.total_steps,
            completed=min(step, self.total_steps),
            complete_style=_FROZEN_STYLE,
            finished_style=_FROZEN_STYLE,
        )
        grid.add_row(bar, Text(position))
        return grid

    def _fields(self) -> list[Text]:
        now = self.progress
        loss = "-" if now is None else loss_text(now.loss)
        accuracy = "-" if now is None else f"{now.accuracy:.1f} %"
        left = None if now is None else now.seconds_left
        saved = None if now is None else now.saved_seconds
        return [
            _field("loss", loss, 6),
            _field("accuracy", accuracy, 7),
            _field("left", "-" if left is None else format_seconds(left), 8),
            _field("saved", "-" if saved is None else format_seconds(saved), 8),
        ]

    def _next_freeze(self, width: int, *, ascii_only: bool) -> Text:
        layers = len(self.names)
        text = Text(f"{self.frozen:>{len(str(layers))}}/{layers} frozen", style=_FROZEN_STYLE)
        coming = next(
            (i for i in range(self.frozen, layers) if self.freeze_steps[i] is not None), None
        )
        if coming is None:
            rest = ", no more to come" if self.frozen else ", none will freeze"
        else:
            when = f" at step {self.freeze_steps[coming]:,}"
            room = width - text.cell_len - len(", next: ") - len(when)
            rest = f", next: {shortened(self.names[coming], room, ascii_only=ascii_only)}{when}"
        text.append(rest, style="default")
        text.no_wrap = True
        text.overflow = "crop"
        return text


def frozen_strip(layers: int, frozen: int, *, width: int, ascii_only: bool = False) -> Text:
    """Draw which layers are frozen, one cell per layer from the input on.

    A frozen layer is a blue snowflake (``*`` in ASCII), an active one a yellow bar (``|``). More
    layers than fit into one line go on in the next. Where three lines are not enough, a cell stands
    for several layers, and one of which only some are frozen is hollow (``+``).

    Args:
        layers: Number of layers, at least 1.
        frozen: Length of the frozen prefix, 0 to `layers`.
        width: Columns to fill at most, at least 1.
        ascii_only: Whether the terminal knows ASCII alone.

    Returns:
        One to three lines, none wider than `width`; their number does not depend on `frozen`.

    Raises:
        ValueError: If an argument is outside its range.
    """
    if not 0 <= frozen <= layers or layers < 1:
        raise ValueError(
            f"frozen must lie between 0 and the number of layers, at least 1; got {frozen} of "
            f"{layers}. It is the length of the frozen prefix."
        )
    check_whole("width", width, "It counts columns; try 80.", least=1)
    cold, warm, mixed = ("*", "|", "+") if ascii_only else ("❄", "▮", "▯")
    group = math.ceil(layers / (width * _MAX_STRIP_ROWS))
    cells = math.ceil(layers / group)
    rows = math.ceil(cells / width)
    per_row = math.ceil(cells / rows)
    gap = " " if rows == 1 and 2 * cells - 1 <= width else ""
    text = Text(no_wrap=True)
    for cell in range(cells):
        if cell:
            text.append("\n" if cell % per_row == 0 else gap)
        first, end = cell * group, min((cell + 1) * group, layers)
        if end <= frozen:
            text.append(cold, style=_FROZEN_STYLE)
        elif first < frozen:
            text.append(mixed, style=_FROZEN_STYLE)
        else:
            text.append(warm, style=_ACTIVE_STYLE)
    return text


_COLUMNS = ("epoch", "loss", "train err", "test err", "time", "frozen", "saved")


def _row(cells: Sequence[str], widths: Sequence[int]) -> str:
    return " ".join(f"{cell:>{width}}" for cell, width in zip(cells, widths, strict=True))


def _field(name: str, value: str, width: int) -> Text:
    return Text.assemble((f"{name} ", "dim"), f"{value:<{width}}")


def _flow(fields: Sequence[Text], width: int) -> list[Text]:
    """Put fields side by side as long as they fit, then begin a new line."""
    lines: list[Text] = []
    for field in fields:
        if lines and lines[-1].cell_len + 2 + field.cell_len <= width:
            lines[-1].append("  ").append_text(field)
        else:
            lines.append(field.copy())
    for line in lines:
        line.no_wrap = True
        line.overflow = "crop"
    return lines
