"""Two tables to read before training: what each layer costs, and what freezing would save.

One line per layer and one per schedule, at any width: where a terminal is narrow, the columns that
matter least are left out and named below, and layer names keep their ends.
"""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import IO, Literal

from rich.cells import cell_len, set_cell_size
from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.text import Text

from freezeout.report._text import encodable, tail
from freezeout.report.summary import format_seconds

__all__ = [
    "LayerRow",
    "PlanRow",
    "plan_text",
    "print_plan",
    "render_layers",
    "render_plans",
]

_EIGHTHS = " ▏▎▍▌▋▊▉█"
_LEAST_BAR, _GOOD_BAR, _BEST_BAR = 6, 12, 24
_LEAST_NAME = 16  # columns are left out before names get shorter than this
_MIN_WIDTH = 40


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
    _check_width(width)
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
    _check_width(width)
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
    _check_width(width)
    target = io.StringIO()
    _print(
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
            _print(tables, console)
        text = capture.get()
    else:
        text = plan_text(*tables) + "\n"
    stream.write(encodable(text, stream))
    stream.flush()


def _print(tables: Sequence[RenderableType], console: Console) -> None:
    for position, table in enumerate(tables):
        if position:
            console.print()
        console.print(table)


def _check_width(width: int | None) -> None:
    if width is not None and width < _MIN_WIDTH:
        raise ValueError(f"width must be at least {_MIN_WIDTH} columns, got {width}. Try 80.")


# --- Columns ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Column:
    """A column of ready text; `title` names it where there was no room for it."""

    title: str
    header: tuple[str, ...]
    cells: tuple[str, ...]
    align: Literal["left", "right"] = "right"
    style: str = ""

    @property
    def width(self) -> int:
        return max(cell_len(text) for text in (*self.header, *self.cells))


def _total_width(widths: Sequence[int], gap: int) -> int:
    return sum(widths) + gap * (len(widths) - 1)


def _fit(
    columns: Sequence[_Column], width: int, spare: Sequence[str], beside: Mapping[int, int]
) -> tuple[list[_Column], int, list[str]]:
    """Choose columns and the gap between them so that a line fits.

    Args:
        columns: All columns in order.
        width: Room in terminal columns.
        spare: Titles of columns that may be left out, first to go first.
        beside: Gaps to try, best first, with the room that is taken beside these columns.

    Returns:
        The columns that stay, the gap, the titles left out.
    """
    kept = list(columns)
    left_out: list[str] = []
    for title in (*spare, None):
        for gap, taken in beside.items():
            if _total_width([column.width for column in kept], gap) + taken <= width:
                return kept, gap, left_out
        if title is not None:
            kept = [column for column in kept if column.title != title]
            left_out.append(title)
    return kept, min(beside), left_out


def _lines(
    columns: Sequence[_Column], gap: int, rule: str, rules_before: Sequence[int]
) -> Iterator[Text]:
    """Header, rule, and one line per row; a rule before each row (or the end) of `rules_before`."""
    depth = max(len(column.header) for column in columns)
    widths = [column.width for column in columns]
    thin = Text(rule * _total_width(widths, gap), style="dim")
    for level in range(depth):
        line = Text()
        for column, width in zip(columns, widths, strict=True):
            texts = ("",) * (depth - len(column.header)) + column.header
            _append(line, texts[level], width, column.align, "bold", gap)
        yield _clipped(line)
    yield _clipped(thin)
    rows = len(columns[0].cells)
    for row in range(rows + 1):
        if row in rules_before:
            yield _clipped(thin)
        if row == rows:
            return
        line = Text()
        for column, width in zip(columns, widths, strict=True):
            _append(line, column.cells[row], width, column.align, column.style, gap)
        yield _clipped(line)


def _append(line: Text, text: str, width: int, align: str, style: str, gap: int) -> None:
    blanks = " " * (width - cell_len(text))
    line.append(" " * gap if line.plain else "")
    line.append(blanks + text if align == "right" else text + blanks, style=style)


def _clipped(line: Text) -> Text:
    line.no_wrap, line.overflow = True, "crop"
    line.rstrip()
    return line


def _left_out_note(titles: Sequence[str]) -> Iterator[Text]:
    if titles:
        yield Text(f"No room at this width for: {', '.join(titles)}.", style="dim")


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
        blocks = console.is_terminal and _has_blocks(options)
        yield from (_folded(text, width, console) for text in self._heading())
        columns, gap, left_out = self._columns(width, blocks=blocks)
        end = len(self.rows)
        yield from _lines(columns, gap, "─" if blocks else "-", [end])
        yield from (_folded(text, width, console) for text in _left_out_note(left_out))

    def _heading(self) -> Iterator[Text]:
        text = Text("One training step", style="bold")
        text.append(
            f": {_short_seconds(self.step_seconds)}, of which "
            f"{_short_seconds(self.overhead_seconds)} outside the layers; "
            f"{_bytes(self.saved_bytes)} held for the backward pass",
            style="not bold",
        )
        yield text

    def _columns(self, width: int, *, blocks: bool) -> tuple[list[_Column], int, list[str]]:
        names = [*(row.name for row in self.rows), "outside the layers", "whole step"]
        shares = [row.share for row in self.rows]
        outside = self.overhead_seconds / self.step_seconds
        share = _Column(
            "share",
            ("share", "of step"),
            tuple(_percent(value) for value in (*shares, outside, math.fsum((*shares, outside)))),
        )
        index = _Column("#", ("#",), (*(f"{row.index}" for row in self.rows), "", ""), style="dim")
        longest = max(map(cell_len, names))
        roomy = longest + _GOOD_BAR + 2 * 2
        tight = min(longest, _LEAST_NAME) + _LEAST_BAR + 2 * 1
        kept, gap, left_out = _fit(
            [index, *self._measured(ascii_only=not blocks), share],
            width,
            ("parameters", "optimizer state", "FLOPs", "optimizer", "held"),
            {2: roomy, 1: tight},
        )
        rest = width - _total_width([column.width for column in kept], gap) - 2 * gap
        name_room = max(1, min(longest, rest - _LEAST_BAR))
        bars = _bars([*shares, outside], max(1, min(_BEST_BAR, rest - name_room)), blocks=blocks)
        fitted = tuple(_fitted(text, name_room, ascii_only=not blocks) for text in names)
        name = _Column("layer", ("layer"[:name_room],), fitted, align="left")
        bar = _Column("bar", ("",), (*bars, ""), align="left", style="cyan")
        return [kept[0], name, *kept[1:], bar], gap, left_out

    def _measured(self, *, ascii_only: bool) -> Iterator[_Column]:
        """The columns that have a unit, with their sums in the last row."""
        rows = self.rows
        times = [[getattr(row, name) for row in rows] for name in ("forward", "backward")]
        times.append([row.optimizer for row in rows])
        sums = [math.fsum(column) for column in times]
        unit, scale = _time_unit(max(sums, key=abs), ascii_only=ascii_only)
        decimals = _decimals(max(map(abs, sums)) * scale)
        for title, values, total in zip(
            ("forward", "backward", "optimizer"), times, sums, strict=True
        ):
            cells = [_fixed(value * scale, decimals) for value in values]
            yield _Column(title, (title, unit), (*cells, "", _fixed(total * scale, decimals)))
        flops = [row.flops for row in rows]
        yield _counted("FLOPs", "FLOPs", flops, sum(flops), _flops_unit)
        for title, head, values, whole in (
            ("held", "held", [row.saved_bytes for row in rows], self.saved_bytes),
            ("parameters", "params", [row.parameter_bytes for row in rows], None),
            ("optimizer state", "state", [row.state_bytes for row in rows], None),
        ):
            yield _counted(title, head, values, sum(values) if whole is None else whole, _byte_unit)


def _counted(
    title: str,
    head: str,
    values: Sequence[int],
    total: int,
    unit_of: Callable[[float], tuple[str, float]],
) -> _Column:
    """A column of counts in one unit; what is too small to show is said to be smaller."""
    unit, scale = unit_of(max(*values, total))
    decimals = 0 if scale == 1 else _decimals(max(values) * scale, digits=3)

    def cell(value: int) -> str:
        text = _fixed(value * scale, decimals)
        return f"<{10.0**-decimals:.{decimals}f}" if value > 0 and float(text) == 0 else text

    return _Column(title, (head, unit), (*(cell(value) for value in values), "", cell(total)))


def _bars(shares: Sequence[float], room: int, *, blocks: bool) -> list[str]:
    """One bar per share; the largest fills the room, and what is not above 0 has none."""
    largest = max((share for share in shares if math.isfinite(share)), default=0.0)
    lengths = [
        room * share / largest if math.isfinite(share) and share > 0 else 0.0 for share in shares
    ]
    if not blocks:
        return ["#" * round(length) for length in lengths]
    eighths = [round(8 * length) for length in lengths]
    return ["█" * (n // 8) + _EIGHTHS[n % 8].strip() for n in eighths]


def _has_blocks(options: ConsoleOptions) -> bool:
    if options.legacy_windows:
        return False
    try:
        (_EIGHTHS + "─…µ").encode(options.encoding)
    except (UnicodeEncodeError, LookupError):
        return False
    return True


def _fitted(name: str, room: int, *, ascii_only: bool) -> str:
    """The end of a name in so many terminal columns, also where characters are wide."""
    if room < 4:
        return set_cell_size(name, room)
    for characters in range(room, 0, -1):
        text = tail(name, characters, ascii_only=ascii_only)
        if cell_len(text) <= room:
            return text
    return ""


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
        blocks = console.is_terminal and _has_blocks(options)
        spare = ("mean memory saved", "rate factor", "FLOPs saved", "memory at the end", "time")
        columns, gap, left_out = _fit(list(self._columns()), width, spare, {2: 0, 1: 0})
        heading = Text("Without freezing", style="bold")
        heading.append(
            f": {format_seconds(self.baseline_seconds)} in {self.total_steps:,} training steps; "
            f"{_bytes(self.saved_bytes)} held for the backward pass",
            style="not bold",
        )
        yield _folded(heading, width, console)
        starts = [
            i for i in range(1, len(self.rows)) if self.rows[i].spacing != self.rows[i - 1].spacing
        ]
        yield from _lines(columns, gap, "─" if blocks else "-", [*starts, len(self.rows)])
        for note in (*self._notes(), *_left_out_note(left_out)):
            yield _folded(note, width, console)

    def _columns(self) -> Iterator[_Column]:
        rows = self.rows
        yield _Column("spacing", ("spacing",), tuple(row.spacing for row in rows), "left")
        yield _Column("t0", ("t0",), _shortest([row.t0 for row in rows]))
        yield _Column(
            "time", ("time of", "all", "steps"), tuple(format_seconds(row.seconds) for row in rows)
        )
        yield _Column(
            "saving",
            ("predicted saving on", "this machine, by", "its measured costs"),
            _savings(rows),
            "left",
            "bold green" if all(row.saving > 0 for row in rows) else "bold",
        )
        yield _Column(
            "FLOPs saved", ("FLOPs", "saved"), tuple(_percent(row.flops_saving) for row in rows)
        )
        yield _Column(
            "memory at the end",
            ("memory", "held at", "the end"),
            tuple(_bytes(row.memory_end) for row in rows),
        )
        yield _Column(
            "mean memory saved",
            ("mean", "memory", "saved"),
            tuple(_percent(row.memory_mean_saving) for row in rows),
        )
        yield _Column(
            "rate factor",
            ("first", "layer's", "rate"),
            tuple(f"{row.first_scale:.2f}x" for row in rows),
        )
        if self._has_paper:
            yield _Column(
                "paper's estimate",
                ("paper's", "estimate", "(FLOPs)"),
                tuple("-" if row.paper is None else _percent(row.paper) for row in rows),
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
    values = [_percent(row.saving) for row in rows]
    room = max(map(len, values))
    texts = []
    for row, value in zip(rows, values, strict=True):
        text = f"{value:>{room}}"
        if row.low is not None and row.high is not None:
            text += f" ({_fixed(100 * row.low, 1)} to {_fixed(100 * row.high, 1)})"
        texts.append(text)
    return tuple(texts)


def _shortest(values: Sequence[float | None]) -> tuple[str, ...]:
    """Equally many decimals for all, as few as they need, at most four."""
    known = [f"{value:.4f}".rstrip("0") for value in values if value is not None]
    decimals = max((len(text.partition(".")[2]) for text in known), default=0)
    return tuple("-" if value is None else f"{value:.{decimals}f}" for value in values)


# --- Numbers ------------------------------------------------------------------------------------


def _fixed(value: float, decimals: int) -> str:
    text = f"{value:.{decimals}f}"
    return text.removeprefix("-") if float(text) == 0 else text


def _percent(fraction: float) -> str:
    return f"{_fixed(100 * fraction, 1)} %"


def _decimals(largest: float, digits: int = 4) -> int:
    """Decimals that give the largest value so many digits."""
    before = math.floor(math.log10(largest)) + 1 if largest >= 1 and math.isfinite(largest) else 1
    return max(0, digits - before)


def _time_unit(largest: float, *, ascii_only: bool) -> tuple[str, float]:
    """Unit and units per second."""
    size = abs(largest)
    if size >= 10:
        return "s", 1.0
    return ("us" if ascii_only else "µs", 1e6) if size < 1e-3 else ("ms", 1e3)


def _byte_unit(largest: float) -> tuple[str, float]:
    """Unit and units per byte."""
    for power, unit in ((4, "TiB"), (3, "GiB"), (2, "MiB"), (1, "KiB")):
        if largest >= 1024**power:
            return unit, 1.0 / 1024**power
    return "B", 1.0


def _flops_unit(largest: float) -> tuple[str, float]:
    for power, unit in ((15, "peta"), (12, "tera"), (9, "giga"), (6, "mega"), (3, "kilo")):
        if largest >= 10**power:
            return unit, 1.0 / 10**power
    return "", 1.0


def _bytes(number: int) -> str:
    unit, scale = _byte_unit(number)
    value = number * scale
    return f"{value:.0f} {unit}" if scale == 1 or value >= 99.95 else f"{value:.1f} {unit}"


def _short_seconds(seconds: float) -> str:
    """A duration of any size; short ones in milliseconds."""
    if not math.isfinite(seconds) or abs(seconds) >= 9.995:
        return format_seconds(seconds)
    if abs(seconds) >= 0.9995:
        return f"{seconds:.2f} s"
    return f"{_fixed(1e3 * seconds, max(1, _decimals(1e3 * abs(seconds), 3)))} ms"


def _folded(text: Text, width: int, console: Console) -> Text:
    lines = text.wrap(console, width)
    for line in lines:
        line.rstrip()
    return Text("\n").join(lines)
