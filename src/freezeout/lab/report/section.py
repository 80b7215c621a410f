"""What a page says of a cell beside its figures: sentences and tables."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from freezeout.lab.evidence import Comparison, Estimate
from freezeout.lab.report.table import Column, Section, Table

__all__ = ["section_of"]


def section_of(comparison: Comparison) -> Section:
    """Return what a page says of a comparison: its verdicts and notes, and two tables."""
    several = len(comparison.verdicts) > 1
    verdicts = []
    for verdict in comparison.verdicts:
        sentence = f"{verdict.variant}: {verdict.sentence}" if several else verdict.sentence
        verdicts.append(f"{sentence} {verdict.control_sentence}".strip())
    return Section(
        cell=comparison.cell,
        title=comparison.cell,
        sentences=(*verdicts, *comparison.notes),
        tables=tuple(_tables(comparison)),
    )


def _tables(comparison: Comparison) -> Iterator[Table]:
    """Return what each arm took and reached, and the differences that decide."""
    rows = comparison.rows
    arm = Column("arm", "arm")
    percent = f"{100 * comparison.level:g} %"
    seconds = max((row.seconds.mean for row in rows if row.seconds), default=0.0)
    places = 1 if seconds >= 100 else 2 if seconds >= 10 else 3
    yield Table(
        id="comparison",
        title="What each arm took and reached",
        columns=(
            arm,
            Column("seeds", "seeds"),
            *_two("error_percent", "error, %", 2),
            *_two("seconds", "training, s", places),
            *_two("saving", "saved, %", 1, scale=100),
            Column("peak_memory", "peak MB", decimals=0, scale=1e-6),
        ),
        rows=tuple(
            (
                row.arm,
                len(row.seeds),
                *_pair(row.error),
                *_pair(row.seconds),
                *_pair(row.saving),
                row.peak_memory,
            )
            for row in rows
        ),
        note=f"Intervals hold with {percent} each. Saved: against the baseline, over paired seeds.",
    )
    compared = [row for row in rows if row.kind != "baseline"]
    if compared:
        yield Table(
            id="differences",
            title="Differences of error, in points",
            columns=(
                arm,
                *_two("against_equal_time", "to equal time", 2, signed=True),
                *_two("against_baseline", "to the full run", 2, signed=True),
                *_two("time_ratio", "time / variant's", 3),
            ),
            rows=tuple(
                (
                    row.arm,
                    *_pair(row.against_equal_time),
                    *_pair(row.against_baseline),
                    *_pair(row.time_ratio),
                )
                for row in compared
            ),
            note=f"Over paired seeds; intervals hold with {percent} each. Below zero is better.",
        )


def _two(key: str, title: str, decimals: int, **how: Any) -> tuple[Column, Column]:
    return (
        Column(key, title, decimals=decimals, **how),
        Column(f"{key}_interval", "interval", decimals=decimals, interval=True, **how),
    )


def _pair(estimate: Estimate | None) -> tuple[float | None, tuple[float, float] | None]:
    return (None, None) if estimate is None else (estimate.mean, estimate.interval)
