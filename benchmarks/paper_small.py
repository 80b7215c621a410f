"""Puts what ``freezeout sweep --preset paper-small`` found where it can be committed.

    freezeout sweep --preset paper-small --data-dir DATA --out runs/paper-small
    python benchmarks/paper_small.py runs/paper-small

Writes ``report.html`` with its figures and tables, ``comparison.csv``, ``machine.json`` and
``table.md`` (the table of docs/benchmarks.md) into ``benchmarks/results/paper-small``.
"""

from __future__ import annotations

import argparse
import csv
import io
import json
import sys
from collections.abc import Sequence
from pathlib import Path

import machine
from freezeout.cli import main as freezeout
from freezeout.errors import FreezeOutError, RunError
from freezeout.evidence import Comparison, Estimate, compare, comparison_rows
from freezeout.experiments import read_runs

__all__ = ["main", "markdown"]

RESULTS = Path(__file__).parent / "results" / "paper-small"
TITLE = "FreezeOut on three small families: does freezing pay?"


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the program; returns the exit code."""
    parser = argparse.ArgumentParser(description="Commit what the scaled-down set found.")
    parser.add_argument("folder", type=Path, help="folder of the experiment")
    parser.add_argument("--out", type=Path, default=RESULTS, help="where to write")
    options = parser.parse_args(arguments)
    try:
        comparisons = _compared(options.folder)
    except FreezeOutError as error:
        print(f"paper_small: error: {error}", file=sys.stderr)
        return 2
    options.out.mkdir(parents=True, exist_ok=True)
    table = markdown(comparisons)
    (options.out / "table.md").write_text(table, encoding="utf-8")
    (options.out / "comparison.csv").write_text(_csv(comparisons), encoding="utf-8")
    facts = {"hardware": machine.hardware("cpu"), "versions": machine.versions("cpu")}
    (options.out / "machine.json").write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
    print(table)
    return freezeout(["report", str(options.folder), "--out", str(options.out), "--title", TITLE])


def markdown(comparisons: Sequence[Comparison]) -> str:
    """The comparisons as one Markdown table, one line for each variant."""
    lines = [
        "| network, data | seeds | baseline | frozen | equal time | frozen − equal time, points "
        "| frozen − baseline, points | time saved | time of the equal-time baseline | verdict |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for comparison in comparisons:
        rows = {(row.kind, row.of): row for row in comparison.rows}
        full = rows["baseline", None]
        for verdict in comparison.verdicts:
            variant = next(row for row in comparison.rows if row.arm == verdict.variant)
            short = rows["equal-time", verdict.variant]
            cells = [
                _name(comparison, verdict.variant),
                str(len(variant.seeds)),
                *(_error(row.error) for row in (full, variant, short)),
                _points(variant.against_equal_time),
                _points(variant.against_baseline),
                _share(variant.saving),
                _more(short.time_ratio),
                verdict.outcome,
            ]
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _name(comparison: Comparison, variant: str) -> str:
    return comparison.cell if len(comparison.verdicts) == 1 else f"{comparison.cell}, {variant}"


def _compared(folder: Path) -> tuple[Comparison, ...]:
    records, unread = read_runs([folder])
    unfinished = [record.name for record in records if not record.finished]
    if unread or unfinished:
        first = unfinished[0] if unfinished else unread[0].name
        raise RunError(
            f"{len(unread) + len(unfinished)} runs of {folder} failed or are not finished, such as "
            f"{first}. Finish them first: freezeout sweep --resume {folder} --retry"
        )
    return compare(records)


def _csv(comparisons: Sequence[Comparison]) -> str:
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    tables = [comparison_rows(comparison) for comparison in comparisons]
    writer.writerow(tables[0][0])
    for _, rows in tables:
        writer.writerows(rows)
    return text.getvalue()


def _error(estimate: Estimate) -> str:
    half = "" if estimate.high is None else f" ± {estimate.high - estimate.mean:.2f}"
    return f"{estimate.mean:.2f}{half} %"


def _points(estimate: Estimate | None) -> str:
    return _interval(estimate, 1.0, 2, "")


def _share(estimate: Estimate | None) -> str:
    return _interval(estimate, 100.0, 1, " %", sign="")


def _more(ratio: Estimate | None) -> str:
    if ratio is None or ratio.low is None or ratio.high is None:
        return "–"
    shifted = Estimate(ratio.mean - 1, ratio.low - 1, ratio.high - 1, ratio.count)
    return _interval(shifted, 100.0, 1, " %")


def _interval(
    estimate: Estimate | None, scale: float, decimals: int, unit: str, sign: str = "+"
) -> str:
    if estimate is None or estimate.low is None or estimate.high is None:
        return "–"
    mean, low, high = (scale * x for x in (estimate.mean, estimate.low, estimate.high))
    number = f"{sign}.{decimals}f"
    return f"{mean:{number}}{unit} ({low:{number}} to {high:{number}})"


if __name__ == "__main__":
    sys.exit(main())
