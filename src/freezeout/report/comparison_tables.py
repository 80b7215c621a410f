"""A comparison on a terminal: two tables, a verdict per variant in words, notes.

The first table has each arm's error, time and saving; the second, differences of error over paired
seeds. One line per arm at any width: where a terminal is narrow, the columns that matter least are
left out and named below.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import IO, Literal

from rich.cells import cell_len, set_cell_size
from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.text import Text

from freezeout.durations import precise_seconds
from freezeout.evidence import Comparison, Estimate, Row, Verdict
from freezeout.report._table_layout import (
    Column,
    check_width,
    fit_columns,
    fixed,
    folded,
    has_blocks,
    left_out_note,
    table_lines,
    total_width,
)
from freezeout.report._text import encodable

__all__ = ["comparison_text", "print_comparison", "render_comparison"]

_LEAST_NAME = 16  # columns are left out before names get shorter than this
_LABELS = {"equal-time": "  equal time", "control": "  rates only"}
_STYLES = {"paid": "bold green", "did not pay": "bold red", "no difference": "bold yellow"}


def render_comparison(comparison: Comparison, *, width: int | None = None) -> RenderableType:
    """Lay a comparison out for a `rich` console.

    Args:
        comparison: What `freezeout.evidence.compare` returned.
        width: Widest line in columns, at least 40; the console's by default.

    Returns:
        Something for a `rich` console.

    Raises:
        ValueError: If there is no row, or `width` is below 40.
    """
    if not comparison.rows:
        raise ValueError("comparison must have at least one row, got none. Finish a run first.")
    check_width(width)
    return _ComparisonTables(comparison, width)


def comparison_text(comparison: Comparison, width: int = 80) -> str:
    """Write a comparison as plain text: no colour, no control codes, ASCII but for names.

    Args:
        comparison: What `freezeout.evidence.compare` returned.
        width: Widest line in columns, at least 40.

    Returns:
        The text, without a final newline and without trailing blanks.

    Raises:
        ValueError: If there is no row, or `width` is below 40.
    """
    target = io.StringIO()
    console = Console(
        file=target, width=width, color_system=None, force_terminal=False, legacy_windows=False
    )
    console.print(render_comparison(comparison, width=width))
    return "\n".join(line.rstrip() for line in target.getvalue().splitlines())


def print_comparison(comparison: Comparison, stream: IO[str]) -> None:
    """Write a comparison to a stream: laid out on a terminal, else as plain text of 100 columns.

    Args:
        comparison: What `freezeout.evidence.compare` returned.
        stream: Where to write. Characters its encoding lacks become question marks.

    Raises:
        ValueError: If there is no row.
        OSError: If the stream cannot be written to, such as a pipe that was closed.
    """
    if stream.isatty():
        console = Console(file=stream)
        with console.capture() as capture:
            console.print(render_comparison(comparison))
        text = capture.get()
    else:
        text = comparison_text(comparison, 100) + "\n"
    stream.write(encodable(text, stream))
    stream.flush()


@dataclass(frozen=True)
class _ComparisonTables:
    comparison: Comparison
    width: int | None

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        width = min(options.max_width, self.width or options.max_width)
        blocks = console.is_terminal and has_blocks(options)
        shown = self.comparison
        if shown.cell:
            yield folded(Text(shown.cell, style="bold"), width, console)
        plus = "±" if blocks else "+-"
        spare = ("peak memory", "seeds", "time in training")
        yield from self._table(
            shown.rows, _measured(shown.rows, plus), spare, width, console, blocks
        )
        compared = [row for row in shown.rows if row.kind != "baseline"]
        columns = list(_differences(compared))
        if columns:
            yield Text("")
            title = "Differences of error in points, over paired seeds"
            yield folded(Text(title, style="bold"), width, console)
            yield from self._table(
                compared,
                columns,
                ("its time to the variant's", "to full run"),
                width,
                console,
                blocks,
            )
        percent = f"{100 * shown.level:.4g} %"
        legend = "Error in % of the test data."
        if any(row.error.interval for row in shown.rows):
            legend = f"Brackets and {plus}: {percent} intervals; error in % of the test data."
        yield folded(Text(legend, style="dim"), width, console)
        for verdict in shown.verdicts:
            yield Text("")
            yield folded(_verdict(verdict), width, console)
        if shown.notes:
            yield Text("")
        yield from (folded(Text(note, style="dim"), width, console) for note in shown.notes)

    def _table(
        self,
        rows: Sequence[Row],
        given: Sequence[Column],
        spare: Sequence[str],
        width: int,
        console: Console,
        blocks: bool,
    ) -> Iterator[Text]:
        names = [_LABELS.get(row.kind, row.arm) for row in rows]
        longest = max(map(cell_len, (*names, "arm")))
        least = _least_room(names, longest, blocks=blocks)
        columns, gap, left_out = fit_columns(
            list(given), width, spare, {2: longest + 2, 1: least + 1}
        )
        room = width - total_width([column.width for column in columns], gap) - gap
        fitted = [_shortened(name, min(longest, room), blocks=blocks) for name in names]
        name = Column("arm", ("arm",), tuple(fitted), "left")
        starts = [i for i, row in enumerate(rows) if i and row.kind == "variant"]
        yield from table_lines([name, *columns], gap, "─" if blocks else "-", starts)
        yield from (folded(note, width, console) for note in left_out_note(left_out))


# --- Columns ------------------------------------------------------------------------------------


def _measured(rows: Sequence[Row], plus: str) -> list[Column]:
    """What each arm took and reached."""

    def error(row: Row) -> str:
        half = None if row.error.high is None else row.error.high - row.error.mean
        return f"{row.error.mean:.2f}" + (f" {plus}{half:.2f}" if half is not None else "")

    def time(row: Row) -> str:
        return "-" if row.seconds is None else precise_seconds(row.seconds.mean)

    def saving(row: Row) -> str:
        return _bracketed(row.saving, 1, 100.0)

    def memory(row: Row) -> str:
        return "-" if row.peak_memory is None else f"{row.peak_memory / 1e6:,.0f} MB"

    cells: list[tuple[str, tuple[str, ...], Callable[[Row], str]]] = [
        ("seeds", ("seeds",), lambda row: f"{len(row.seeds)}"),
        ("error", ("error,", "%"), error),
        ("time in training", ("time in", "training"), time),
        ("saving", ("time saved,", "%"), saving),
        ("peak memory", ("peak", "memory"), memory),
    ]
    return [
        Column(title, header, tuple(cell(row) for row in rows), _side(title))
        for title, header, cell in cells
        if title in ("seeds", "error") or any(cell(row) != "-" for row in rows)
    ]


def _differences(rows: Sequence[Row]) -> Iterator[Column]:
    """Differences of error in points; how equal "equal time" was, in percent."""
    more_time = [None if row.time_ratio is None else _percent_more(row.time_ratio) for row in rows]
    for title, header, estimates, decimals in (
        ("to equal time", ("to equal", "time"), [row.against_equal_time for row in rows], 2),
        ("to full run", ("to full", "run"), [row.against_baseline for row in rows], 2),
        ("its time to the variant's", ("its time to", "variant's, %"), more_time, 1),
    ):
        if any(estimate is not None for estimate in estimates):
            cells = tuple(_bracketed(estimate, decimals) for estimate in estimates)
            yield Column(title, header, cells, "left")


def _percent_more(ratio: Estimate) -> Estimate:
    low, high = (None, None) if ratio.interval is None else ratio.interval
    return Estimate(
        100 * (ratio.mean - 1),
        None if low is None else 100 * (low - 1),
        None if high is None else 100 * (high - 1),
        ratio.count,
    )


def _shortened(name: str, room: int, *, blocks: bool) -> str:
    """The start of a name, where variants differ."""
    if cell_len(name) <= room:
        return name
    mark = "…" if blocks else "..."
    return set_cell_size(name, max(1, room - len(mark))).rstrip(" ,.=") + mark


def _least_room(names: Sequence[str], longest: int, *, blocks: bool) -> int:
    """Room in which no two names look the same."""
    for room in range(min(longest, _LEAST_NAME), longest):
        if len({_shortened(name, room, blocks=blocks) for name in names}) == len(set(names)):
            return room
    return longest


def _side(title: str) -> Literal["left", "right"]:
    return "left" if title in ("error", "saving") else "right"


def _bracketed(estimate: Estimate | None, decimals: int, scale: float = 1.0) -> str:
    if estimate is None:
        return "-"
    text = fixed(scale * estimate.mean, decimals)
    if estimate.interval is None:
        return text
    low, high = (fixed(scale * end, decimals) for end in estimate.interval)
    return f"{text} ({low} to {high})"


def _verdict(verdict: Verdict) -> Text:
    text = Text(f"{verdict.variant}: ", style="bold")
    outcome, colon, rest = verdict.sentence.partition(":")
    text.append(outcome, style=_STYLES.get(verdict.outcome, "bold"))
    text.append(colon + rest, style="not bold")
    if verdict.control_sentence:
        text.append(f" {verdict.control_sentence}", style="not bold")
    return text
