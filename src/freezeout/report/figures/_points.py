"""Runs and arms as points: their means, and what is said of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from freezeout.durations import format_seconds
from freezeout.evidence.record import RunRecord
from freezeout.evidence.statistics import Estimate, mean_interval
from freezeout.report.arms import known
from freezeout.report.palette import ArmStyle

__all__ = ["estimate", "mean_text", "run_text", "thin"]


def estimate(
    runs: Sequence[RunRecord], value: Callable[[RunRecord], float | None]
) -> Estimate | None:
    """The mean over the runs where a value is known, with its 95 % interval."""
    values = [found for run in runs if (found := known(value(run))) is not None]
    return mean_interval(values) if values else None


def run_text(record: RunRecord, style: ArmStyle) -> str:
    """What there is to say of a run, a line each."""
    lines = [record.name, f"{style.label}, seed {record.seed}"]
    error = known(record.error)
    if error is not None:
        lines.append(f"test error {error:.2f} %")
    elif not record.finished:
        lines.append(f"unfinished: {record.steps:,} of {record.total_steps:,} steps")
    lines.append(f"training time {format_seconds(record.train_seconds)}")
    predicted, measured = known(record.predicted), known(record.measured)
    if predicted is not None:
        lines.append(f"saving predicted {_percent(predicted)}")
    if measured is not None:
        lines.append(f"saving measured {_percent(measured)}")
    return "\n".join(lines)


def mean_text(style: ArmStyle, facts: Sequence[tuple[str, Estimate | None, str, int]]) -> str:
    """What there is to say of an arm.

    Args:
        style: The arm.
        facts: Name, value, unit and decimals of each line.

    Returns:
        Lines of text.
    """
    counts = [value.count for _, value, _, _ in facts if value is not None]
    runs = max(counts, default=0)
    lines = [style.label, f"mean of {runs} runs" if runs != 1 else "1 run"]
    for name, value, unit, decimals in facts:
        if value is None:
            continue
        text = f"{name} {value.mean:,.{decimals}f} {unit}"
        if value.low is not None:
            text += f" ({value.low:,.{decimals}f} to {value.high:,.{decimals}f})"
        lines.append(text.replace("-", "−"))
    return "\n".join(lines)


def thin(count: int, most: int) -> list[int]:
    """At most `most` of `count` indices, evenly spread, with the first and the last.

    Example:
        >>> thin(9, 3)
        [0, 4, 8]
    """
    if count <= most:
        return list(range(count))
    return sorted({round(i * (count - 1) / (most - 1)) for i in range(most)})


def _percent(fraction: float) -> str:
    return f"{100 * fraction + 0.0:.1f} %".replace("-", "−")
