"""Comparisons as tables for the documentation and for files of results."""

from __future__ import annotations

from collections.abc import Sequence

from freezeout.lab.evidence import Comparison, Estimate

__all__ = ["markdown"]


def markdown(comparisons: Sequence[Comparison]) -> str:
    """Return the comparisons as one Markdown table, one line for each variant."""
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
