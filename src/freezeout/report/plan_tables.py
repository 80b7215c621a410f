"""Two tables to read before training: what each layer costs, and what freezing would save.

One line per layer and one per schedule, at any width: where a terminal is narrow, the columns that
matter least are left out and named below, and layer names keep their ends.
"""

from __future__ import annotations

import io
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import IO

from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.text import Text

from freezeout.report._table_layout import (
    Column,
    bar_texts,
    byte_unit,
    bytes_text,
    check_width,
    counted_column,
    decimals_for,
    equal_decimals,
    fit_columns,
    fitted_name,
    fixed,
    flops_unit,
    folded,
    has_blocks,
    left_out_note,
    percent_text,
    print_tables,
    short_seconds,
    table_lines,
    time_unit,
    total_width,
)
from freezeout.report._text import encodable
from freezeout.report.summary import format_seconds

__all__ = [
    "LayerRow",
    "PlanRow",
    "plan_text",
    "print_plan",
    "render_layers",
    "render_plans",
]

_LEAST_BAR, _GOOD_BAR, _BEST_BAR = 6, 12, 24
_LEAST_NAME = 16  # columns are left out before names get shorter than this


@dataclass(frozen=True, kw_only=True)
class LayerRow:
    """What one layer costs in one training step.

    Args:
        index: Position from the input, from 0 on.
        name: Name of the layer.
        forward: Seconds of its forward pass.
        backward: Seconds of its backward pass.
        optimizer: Seconds of its part of the optimizer's step.
        flops: Floating-point operations, forward and backward.
        saved_bytes: Held for the backward pass.
        parameter_bytes: Of its parameters.
        state_bytes: Of optimizer state.
        share: Fraction of the step's seconds; noise can make it negative.
    """

    index: int
    name: str
    forward: float
    backward: float
    optimizer: float
    flops: int
    saved_bytes: int
    parameter_bytes: int
    state_bytes: int
    share: float


@dataclass(frozen=True, kw_only=True)
class PlanRow:
    """What one schedule is predicted to save.

    Args:
        spacing: ``"linear"``, ``"squared"``, ``"cubic"``, or ``"budget"``.
        t0: First layer's freeze time before spacing; ``None`` where there is none.
        seconds: Predicted time of all training steps of the run.
        saving: Predicted saving as a fraction.
        low: Lower end of its interval as a fraction, or ``None``.
        high: Upper end of its interval; given if and only if `low` is.
        flops_saving: Fraction of floating-point operations saved.
        memory_end: Bytes held for the backward pass in the last step.
        memory_mean_saving: Fraction of these bytes saved, as a mean over the run.
        first_scale: Factor on the first layer's rate at the start; 1.0 if unscaled.
        paper: The paper's own estimate of the saving as a fraction, or ``None``.

    Raises:
        ValueError: If only one end of the interval is given.
    """

    spacing: str
    t0: float | None
    seconds: float
    saving: float
    low: float | None
    high: float | None
    flops_saving: float
    memory_end: int
    memory_mean_saving: float
    first_scale: float
    paper: float | None

    def __post_init__(self) -> None:
        if (self.low is None) != (self.high is None):
            raise ValueError(
                f"low and high must both be numbers or both None, got {self.low} and {self.high}. "
                "Leave the interval out if an end is unknown."
            )


def render_layers(
    rows: Sequence[LayerRow],
    *,
    step_seconds: float,
    overhead_seconds: float,
    saved_bytes: int,
    width: int | None = None,
) -> RenderableType:
    """Lay out what each layer costs in one training step, one line per layer.

    Bars show each layer's share; the largest one fills the column. They are blocks on a terminal
    whose encoding has them, else ``#``.

    Args:
        rows: One per layer, input first.
        step_seconds: Seconds of the whole step, above 0.
        overhead_seconds: Seconds of it that belong to no layer; noise can make them negative.
        saved_bytes: Held for the backward pass in the whole step.
        width: Widest line in columns, at least 40; the console's by default.

    Returns:
        Something for a `rich` console, or for `print_plan` and `plan_text`.

    Raises:
        ValueError: If there is no row, `step_seconds` is not above 0, or `width` is below 40.
    """
    if not rows:
        raise ValueError("rows must hold at least one layer, got none. Give one row per layer.")
    if not (math.isfinite(step_seconds) and step_seconds > 0):
        raise ValueError(
            f"step_seconds must be above 0 and finite, got {step_seconds}. Measure a step."
        )
    check_width(width)
    return _LayerTable(tuple(rows), step_seconds, overhead_seconds, saved_bytes, width)


def render_plans(
    rows: Sequence[PlanRow],
    *,
    baseline_seconds: float,
    total_steps: int,
    saved_bytes: int,
    width: int | None = None,
) -> RenderableType:
    """Lay out what schedules are predicted to save, one line each, grouped by spacing.

    Args:
        rows: One per schedule; groups appear in the order of their first row.
        baseline_seconds: Predicted time of all training steps without freezing.
        total_steps: Steps of the run, at least 1.
        saved_bytes: Held for the backward pass in a step without freezing.
        width: Widest line in columns, at least 40; the console's by default.

    Returns:
        Something for a `rich` console, or for `print_plan` and `plan_text`.

    Raises:
        ValueError: If there is no row, `total_steps` is below 1, or `width` is below 40.
    """
    if not rows:
        raise ValueError("rows must hold at least one schedule, got none. Give one row for each.")
    if total_steps < 1:
        raise ValueError(f"total_steps must be at least 1, got {total_steps}. Count all epochs.")
    check_width(width)
    return _PlanTable(_grouped(rows), baseline_seconds, total_steps, saved_bytes, width)


def plan_text(*tables: RenderableType, width: int = 100) -> str:
    """Write tables as plain text: no colour, no control codes, ASCII but for names that are not.

    Args:
        tables: What `render_layers` and `render_plans` return.
        width: Widest line in columns, at least 40.

    Returns:
        The tables with an empty line between them, without a final newline and without trailing
        blanks.

    Raises:
        ValueError: If `width` is below 40.
    """
    check_width(width)
    target = io.StringIO()
    print_tables(
        tables,
        Console(
            file=target, width=width, color_system=None, force_terminal=False, legacy_windows=False
        ),
    )
    return "\n".join(line.rstrip() for line in target.getvalue().splitlines())


def print_plan(*tables: RenderableType, stream: IO[str]) -> None:
    """Write tables to a stream: laid out on a terminal, else as plain text of 100 columns.

    Args:
        tables: What `render_layers` and `render_plans` return.
        stream: Where to write. Characters its encoding lacks become question marks.

    Raises:
        OSError: If the stream cannot be written to, such as a pipe that was closed.
    """
    if stream.isatty():
        console = Console(file=stream)
        with console.capture() as capture:
            print_tables(tables, console)
        text = capture.get()
    else:
        text = plan_text(*tables) + "\n"
    stream.write(encodable(text, stream))
    stream.flush()


# --- The layers ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class _LayerTable:
    rows: tuple[LayerRow, ...]
    step_seconds: float
    overhead_seconds: float
    saved_bytes: int
    width: int | None

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        width = min(options.max_width, self.width or options.max_width)
        blocks = console.is_terminal and has_blocks(options)
        yield from (folded(text, width, console) for text in self._heading())
        columns, gap, left_out = self._columns(width, blocks=blocks)
        end = len(self.rows)
        yield from table_lines(columns, gap, "─" if blocks else "-", [end])
        yield from (folded(text, width, console) for text in left_out_note(left_out))

    def _heading(self) -> Iterator[Text]:
        text = Text("One training step", style="bold")
        text.append(
            f": {short_seconds(self.step_seconds)}, of which "
            f"{short_seconds(self.overhead_seconds)} outside the layers; "
            f"{bytes_text(self.saved_bytes)} held for the backward pass",
            style="not bold",
        )
        yield text

    def _columns(self, width: int, *, blocks: bool) -> tuple[list[Column], int, list[str]]:
        names = [*(row.name for row in self.rows), "outside the layers", "whole step"]
        shares = [row.share for row in self.rows]
        outside = self.overhead_seconds / self.step_seconds
        share = Column(
            "share",
            ("share", "of step"),
            tuple(
                percent_text(value) for value in (*shares, outside, math.fsum((*shares, outside)))
            ),
        )
        index = Column("#", ("#",), (*(f"{row.index}" for row in self.rows), "", ""), style="dim")
        longest = max(map(cell_len, names))
        roomy = longest + _GOOD_BAR + 2 * 2
        tight = min(longest, _LEAST_NAME) + _LEAST_BAR + 2 * 1
        kept, gap, left_out = fit_columns(
            [index, *self._measured(ascii_only=not blocks), share],
            width,
            ("parameters", "optimizer state", "FLOPs", "optimizer", "held"),
            {2: roomy, 1: tight},
        )
        rest = width - total_width([column.width for column in kept], gap) - 2 * gap
        name_room = max(1, min(longest, rest - _LEAST_BAR))
        bars = bar_texts(
            [*shares, outside], max(1, min(_BEST_BAR, rest - name_room)), blocks=blocks
        )
        fitted = tuple(fitted_name(text, name_room, ascii_only=not blocks) for text in names)
        name = Column("layer", ("layer"[:name_room],), fitted, align="left")
        bar = Column("bar", ("",), (*bars, ""), align="left", style="cyan")
        return [kept[0], name, *kept[1:], bar], gap, left_out

    def _measured(self, *, ascii_only: bool) -> Iterator[Column]:
        """The columns that have a unit, with their sums in the last row."""
        rows = self.rows
        times = [[getattr(row, name) for row in rows] for name in ("forward", "backward")]
        times.append([row.optimizer for row in rows])
        sums = [math.fsum(column) for column in times]
        unit, scale = time_unit(max(sums, key=abs), ascii_only=ascii_only)
        decimals = decimals_for(max(map(abs, sums)) * scale)
        for title, values, total in zip(
            ("forward", "backward", "optimizer"), times, sums, strict=True
        ):
            cells = [fixed(value * scale, decimals) for value in values]
            yield Column(title, (title, unit), (*cells, "", fixed(total * scale, decimals)))
        flops = [row.flops for row in rows]
        yield counted_column("FLOPs", "FLOPs", flops, sum(flops), flops_unit)
        for title, head, values, whole in (
            ("held", "held", [row.saved_bytes for row in rows], self.saved_bytes),
            ("parameters", "params", [row.parameter_bytes for row in rows], None),
            ("optimizer state", "state", [row.state_bytes for row in rows], None),
        ):
            yield counted_column(
                title, head, values, sum(values) if whole is None else whole, byte_unit
            )


# --- The schedules ------------------------------------------------------------------------------


@dataclass(frozen=True)
class _PlanTable:
    rows: tuple[PlanRow, ...]
    baseline_seconds: float
    total_steps: int
    saved_bytes: int
    width: int | None

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        width = min(options.max_width, self.width or options.max_width)
        blocks = console.is_terminal and has_blocks(options)
        spare = ("mean memory saved", "rate factor", "FLOPs saved", "memory at the end", "time")
        columns, gap, left_out = fit_columns(list(self._columns()), width, spare, {2: 0, 1: 0})
        heading = Text("Without freezing", style="bold")
        heading.append(
            f": {format_seconds(self.baseline_seconds)} in {self.total_steps:,} training steps; "
            f"{bytes_text(self.saved_bytes)} held for the backward pass",
            style="not bold",
        )
        yield folded(heading, width, console)
        starts = [
            i for i in range(1, len(self.rows)) if self.rows[i].spacing != self.rows[i - 1].spacing
        ]
        yield from table_lines(columns, gap, "─" if blocks else "-", [*starts, len(self.rows)])
        for note in (*self._notes(), *left_out_note(left_out)):
            yield folded(note, width, console)

    def _columns(self) -> Iterator[Column]:
        rows = self.rows
        yield Column("spacing", ("spacing",), tuple(row.spacing for row in rows), "left")
        yield Column("t0", ("t0",), equal_decimals([row.t0 for row in rows]))
        yield Column(
            "time", ("time of", "all", "steps"), tuple(format_seconds(row.seconds) for row in rows)
        )
        yield Column(
            "saving",
            ("predicted saving on", "this machine, by", "its measured costs"),
            _savings(rows),
            "left",
            "bold green" if all(row.saving > 0 for row in rows) else "bold",
        )
        yield Column(
            "FLOPs saved", ("FLOPs", "saved"), tuple(percent_text(row.flops_saving) for row in rows)
        )
        yield Column(
            "memory at the end",
            ("memory", "held at", "the end"),
            tuple(bytes_text(row.memory_end) for row in rows),
        )
        yield Column(
            "mean memory saved",
            ("mean", "memory", "saved"),
            tuple(percent_text(row.memory_mean_saving) for row in rows),
        )
        yield Column(
            "rate factor",
            ("first", "layer's", "rate"),
            tuple(f"{row.first_scale:.2f}x" for row in rows),
        )
        if self._has_paper:
            yield Column(
                "paper's estimate",
                ("paper's", "estimate", "(FLOPs)"),
                tuple("-" if row.paper is None else percent_text(row.paper) for row in rows),
                style="dim",
            )

    @property
    def _has_paper(self) -> bool:
        return any(row.paper is not None for row in self.rows)

    def _notes(self) -> Iterator[Text]:
        interval = (
            "; its 95 % interval in brackets" if any(r.low is not None for r in self.rows) else ""
        )
        yield Text(
            "Predicted saving: of the time of training steps, from layer costs measured on this "
            f"machine{interval}.",
            style="dim",
        )
        if self._has_paper:
            yield Text(
                "Paper's estimate: the paper's FLOP formula (backward as cheap as forward).",
                style="dim",
            )


def _grouped(rows: Sequence[PlanRow]) -> tuple[PlanRow, ...]:
    order = list(dict.fromkeys(row.spacing for row in rows))
    return tuple(sorted(rows, key=lambda row: order.index(row.spacing)))


def _savings(rows: Sequence[PlanRow]) -> tuple[str, ...]:
    """Savings under each other, then their intervals under each other."""
    values = [percent_text(row.saving) for row in rows]
    room = max(map(len, values))
    texts = []
    for row, value in zip(rows, values, strict=True):
        text = f"{value:>{room}}"
        if row.low is not None and row.high is not None:
            text += f" ({fixed(100 * row.low, 1)} to {fixed(100 * row.high, 1)})"
        texts.append(text)
    return tuple(texts)
