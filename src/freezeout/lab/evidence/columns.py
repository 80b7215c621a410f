"""A comparison as a table of plain values in full precision, for files and pages."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

from freezeout.lab.evidence.comparison import Comparison, Row
from freezeout.lab.evidence.statistics import Estimate
from freezeout.text import csv_text

__all__ = ["Cell", "comparison_csv", "comparison_rows"]

Cell: TypeAlias = str | int | float | None
"""One value; ``None`` where there is none."""


def comparison_rows(
    comparison: Comparison,
) -> tuple[tuple[str, ...], tuple[tuple[Cell, ...], ...]]:
    """Write a comparison as rows of plain values, one per arm.

    Args:
        comparison: What `compare` returned.

    Returns:
        Names of columns, ending with the unit where there is one, and the rows. A quantity has its
        mean, the ends of its interval and the number of values or pairs behind it:
        ``error_percent``, ``error_percent_low``, ``error_percent_high``, ``error_percent_count``.

    Example:
        >>> from freezeout.lab.evidence import Arm, compare_arms
        >>> arm = Arm(name="full", kind="baseline", errors={0: 5.0, 1: 6.0})
        >>> columns, rows = comparison_rows(compare_arms([arm], cell="digits"))
        >>> dict(zip(columns, rows[0]))["error_percent"]
        5.5
    """
    verdicts = {verdict.variant: verdict for verdict in comparison.verdicts}
    tables: list[dict[str, Cell]] = []
    for row in comparison.rows:
        verdict = verdicts.get(row.arm) if row.kind == "variant" else None
        cells: dict[str, Cell] = {
            "cell": comparison.cell,
            "arm": row.arm,
            "kind": row.kind,
            "of": row.of,
            "seeds": len(row.seeds),
            "level": comparison.level,
        }
        for name, estimate in _estimates(row):
            cells[name] = None if estimate is None else estimate.mean
            cells[f"{name}_low"] = None if estimate is None else estimate.low
            cells[f"{name}_high"] = None if estimate is None else estimate.high
            cells[f"{name}_count"] = 0 if estimate is None else estimate.count
        cells["largest_memory_bytes"] = row.peak_memory
        cells["verdict"] = None if verdict is None else verdict.outcome
        cells["verdict_level"] = None if verdict is None else verdict.level
        cells["verdict_sentence"] = None if verdict is None else verdict.sentence
        tables.append(cells)
    names = tuple(tables[0]) if tables else ()
    return names, tuple(tuple(cells.values()) for cells in tables)


def comparison_csv(comparisons: Sequence[Comparison]) -> str:
    """Write comparisons, at least one, as one CSV table with the columns of `comparison_rows`."""
    tables = [comparison_rows(comparison) for comparison in comparisons]
    return csv_text([tables[0][0], *(row for _, rows in tables for row in rows)])


def _estimates(row: Row) -> tuple[tuple[str, Estimate | None], ...]:
    return (
        ("error_percent", row.error),
        ("train_seconds", row.seconds),
        ("saving_fraction", row.saving),
        ("time_ratio_to_variant", row.time_ratio),
        ("error_points_against_baseline", row.against_baseline),
        ("error_points_against_equal_time", row.against_equal_time),
        ("peak_memory_bytes", row.memory),
    )
