"""The display that redraws a few lines at the foot of a terminal.

It has no thread of its own. It redraws from inside `LiveDisplay.update`, between two steps, so that
it never competes with a step that is being timed; and it redraws so seldom that it takes about one
hundredth of the run at most, on any terminal that draws in ten milliseconds.
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

from freezeout.report._text import check_start, digits, encodable, loss_text, percent, tail
from freezeout.report.display import Display, EpochLine, Status
from freezeout.report.summary import format_seconds

__all__ = ["LiveDisplay", "frozen_strip"]

_FROZEN_STYLE = "bright_blue"
_ACTIVE_STYLE = "yellow"
_MAX_STRIP_ROWS = 3


class LiveDisplay(Display):
    """Redraws a few lines at the foot of a terminal; the epochs scroll by above them.

    While it runs, whatever else is written to standard output or standard error appears above the
    live lines. `stop` brings the cursor and both streams back.

    Args:
        console: The console to draw on; one on standard output by default.
        clock: Seconds from any start that never run backwards.
        min_interval: Least time between two redraws by `update`, in seconds. Where
            redrawing is slow the pause is a hundred times as long as a redraw, up to one second.
    """

    def __init__(
        self,
        console: Console | None = None,
        *,
        clock: Callable[[], float] = time.monotonic,
        min_interval: float = 0.1,
    ) -> None:
        self._console = console if console is not None else Console()
        self._clock = clock
        self._min_interval = min_interval
        self._next_redraw = -math.inf
        self._live: Live | None = None
        self._view = _View(("",), (None,), 1)
        self._header_shown = False

    def start(
        self,
        layer_names: Sequence[str],
        freeze_steps: Sequence[int | None],
        title: str,
        total_steps: int,
    ) -> None:
        """Print the title and open the live lines."""
        check_start(layer_names, freeze_steps, total_steps)
        self.stop()
        self._header_shown = False
        self._view = _View(
            tuple(encodable(name, self._console.file) for name in layer_names),
            tuple(freeze_steps),
            total_steps,
        )
        self._print(Text(title, style="bold"), wrap=True)
        # No thread: see the head of this file.
        live = Live(self._view, console=self._console, auto_refresh=False, vertical_overflow="crop")
        self._live = live
        self._next_redraw = -math.inf
        try:
            live.start(refresh=True)
        except BaseException:
            self.stop()
            raise

    def update(self, status: Status) -> None:
        """Keep the status; redraw if the last redraw is long enough ago."""
        self._view.status = status
        self._redraw_if_due()

    def epoch(self, line: EpochLine) -> None:
        """Print the epoch's row above the live lines, under a header the first time."""
        widths = _column_widths(line)
        if not self._header_shown:
            self._header_shown = True
            self._print(Text(_row(_COLUMNS, widths), style="dim"))
        saved = "-" if line.saved_seconds is None else format_seconds(line.saved_seconds)
        cells = (
            f"{line.epoch}/{line.epochs}",
            loss_text(line.train_loss),
            percent(line.train_error),
            percent(line.test_error),
            format_seconds(line.seconds),
            f"{line.frozen}/{line.layers}",
            saved,
        )
        self._print(Text(_row(cells, widths)))

    def freeze(self, index: int, name: str, step: int) -> None:
        """Show the layer as frozen from the next redraw on; no line of its own."""
        self._view.frozen = max(self._view.frozen, index + 1)
        self._redraw_if_due()

    def message(self, text: str) -> None:
        """Print the sentence above the live lines."""
        self._print(Text(text), wrap=True)

    def stop(self) -> None:
        """Draw a last time, then leave the terminal as it was."""
        live, self._live = self._live, None
        if live is not None:
            live.stop()

    def _redraw_if_due(self) -> None:
        now = self._clock()
        if self._live is None or now < self._next_redraw:
            return
        self._live.refresh()
        done = self._clock()
        self._next_redraw = done + max(self._min_interval, min(1.0, 100 * (done - now)))

    def _print(self, text: Text, *, wrap: bool = False) -> None:
        text.plain = encodable(text.plain, self._console.file)
        # Cropped, not shortened with an ellipsis, which not every terminal can show.
        self._console.print(text, no_wrap=not wrap, overflow="fold" if wrap else "crop")


class _View:
    """The live lines. Their number depends on the width only, so nothing jumps."""

    def __init__(
        self, names: tuple[str, ...], freeze_steps: tuple[int | None, ...], total_steps: int
    ) -> None:
        self.names = names
        self.freeze_steps = freeze_steps
        self.total_steps = total_steps
        self._status: Status | None = None
        self.frozen = 0

    @property
    def status(self) -> Status | None:
        return self._status

    @status.setter
    def status(self, status: Status) -> None:
        self._status = status
        self.frozen = status.frozen

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        width = options.max_width
        ascii_only = options.ascii_only or options.legacy_windows
        yield self._bar()
        yield from _flow(self._fields(), width)
        yield frozen_strip(len(self.names), self.frozen, width=width, ascii_only=ascii_only)
        yield self._next_freeze(width, ascii_only=ascii_only)

    def _bar(self) -> Table:
        status = self._status
        step = 0 if status is None else status.step
        position = (
            f"{100 * step // self.total_steps:3d} %  step {step:>{digits(self.total_steps)},}"
        )
        position += f"/{self.total_steps:,}"
        if status is not None:
            position += f"  epoch {status.epoch:>{len(str(status.epochs))}}/{status.epochs}"
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
        status = self._status
        loss = "-" if status is None else loss_text(status.loss)
        accuracy = "-" if status is None else percent(status.accuracy, decimals=1)
        left = None if status is None else status.seconds_left
        saved = None if status is None else status.saved_seconds
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
            rest = f", next: {tail(self.names[coming], room, ascii_only=ascii_only)}{when}"
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
    if width < 1:
        raise ValueError(f"width must be at least 1 column, got {width}. Try 80.")
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


def _column_widths(line: EpochLine) -> tuple[int, ...]:
    epoch = 2 * len(str(line.epochs)) + 1
    frozen = 2 * len(str(line.layers)) + 1
    return (max(5, epoch), 7, 9, 8, 8, max(6, frozen), 8)


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
