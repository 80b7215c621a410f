"""A comparison on a terminal: two tables, a verdict per variant in words, notes.

The first table has each arm's error, time and saving; the second, differences of error over paired
seeds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from rich.console import Console, ConsoleOptions, RenderResult
from rich.text import Text

from freezeout.lab.evidence import Comparison, Estimate, Row, Verdict
from freezeout.lab.report.terminal.output import has_blocks
from freezeout.lab.report.terminal.tables import FittedColumn, FittedTable
from freezeout.text import fixed, precise_seconds

__all__ = ["ComparisonTables"]

_LABELS = {"equal-time": "  equal time", "control": "  rates only"}
_STYLES = {"paid": "bold green", "did not pay": "bold red", "no difference": "bold yellow"}


@dataclass(frozen=True)
class ComparisonTables:
    """A comparison for a `rich` console: one line per arm in each table.

    Args:
        comparison: What `freezeout.lab.evidence.compare` returned.

    Raises:
        ValueError: If it has no row.
    """

    comparison: Comparison

    def __post_init__(self) -> None:
        if not self.comparison.rows:
            raise ValueError("comparison must have at least one row, got none. Finish a run first.")

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        shown = self.comparison
        plus = "±" if has_blocks(console, options) else "+-"
        if shown.cell:
            yield Text(shown.cell, style="bold")
        spare = ("peak memory", "seeds", "time in training")
        yield _table(shown.rows, _measured(shown.rows, plus), spare)
        compared = [row for row in shown.rows if row.kind != "baseline"]
        columns = list(_differences(compared))
        if columns:
            yield Text("\nDifferences of error in points, over paired seeds", style="bold")
            yield _table(compared, columns, ("its time to the variant's", "to full run"))
        legend = "Error in % of the test data."
        if any(row.error.interval for row in shown.rows):
            percent = f"{100 * shown.level:.4g} %"
            legend = f"Brackets and {plus}: {percent} intervals; error in % of the test data."
        yield Text(legend, style="dim")
        for verdict in shown.verdicts:
            yield ""
            yield _verdict(verdict)
        if shown.notes:
            yield ""
        for note in shown.notes:
            yield Text(note, style="dim")


def _table(
    rows: Sequence[Row], columns: Sequence[FittedColumn], spare: Sequence[str]
) -> FittedTable:
    names = [_LABELS.get(row.kind, row.arm) for row in rows]
    starts = [i for i, row in enumerate(rows) if i and row.kind == "variant"]
    return FittedTable(
        [FittedColumn("arm", "arm", names, "left", kind="name"), *columns], spare, starts
    )


def _measured(rows: Sequence[Row], plus: str) -> list[FittedColumn]:
    """Return what each arm took and reached."""

    def error(row: Row) -> str:
        half = None if row.error.high is None else row.error.high - row.error.mean
        return f"{row.error.mean:.2f}" + (f" {plus}{half:.2f}" if half is not None else "")

    def time(row: Row) -> str:
        return "-" if row.seconds is None else precise_seconds(row.seconds.mean)

    def saving(row: Row) -> str:
        return _bracketed(row.saving, 1, 100.0)

    def memory(row: Row) -> str:
        return "-" if row.peak_memory is None else f"{row.peak_memory / 1e6:,.0f} MB"

    cells: list[tuple[str, str, Callable[[Row], str]]] = [
        ("seeds", "seeds", lambda row: f"{len(row.seeds)}"),
        ("error", "error,\n%", error),
        ("time in training", "time in\ntraining", time),
        ("saving", "time saved,\n%", saving),
        ("peak memory", "peak\nmemory", memory),
    ]
    return [
        FittedColumn(
            title,
            header,
            [cell(row) for row in rows],
            "left" if title in ("error", "saving") else "right",
        )
        for title, header, cell in cells
        if title in ("seeds", "error") or any(cell(row) != "-" for row in rows)
    ]


def _differences(rows: Sequence[Row]) -> Iterator[FittedColumn]:
    """Return differences of error in points, and how equal "equal time" was, in percent."""
    more_time = [None if row.time_ratio is None else _percent_more(row.time_ratio) for row in rows]
    for title, header, estimates, decimals in (
        ("to equal time", "to equal\ntime", [row.against_equal_time for row in rows], 2),
        ("to full run", "to full\nrun", [row.against_baseline for row in rows], 2),
        ("its time to the variant's", "its time to\nvariant's, %", more_time, 1),
    ):
        if any(estimate is not None for estimate in estimates):
            cells = [_bracketed(estimate, decimals) for estimate in estimates]
            yield FittedColumn(title, header, cells, "left")


def _percent_more(ratio: Estimate) -> Estimate:
    low, high = (None, None) if ratio.interval is None else ratio.interval
    return Estimate(
        100 * (ratio.mean - 1),
        None if low is None else 100 * (low - 1),
        None if high is None else 100 * (high - 1),
        ratio.count,
    )


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
