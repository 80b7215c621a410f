"""Runs and arms as points: their means, how they are drawn, and what is said of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from matplotlib.axes import Axes

from freezeout.lab.evidence import Estimate, RunRecord, mean_interval
from freezeout.lab.report.figures.drawing import Drawing
from freezeout.lab.report.grouping import ArmKey, by_arm, final_runs, known
from freezeout.lab.report.palette import Style
from freezeout.text import format_seconds, percent

__all__ = ["ArmPoint", "arm_text", "arms_at", "draw_arm", "run_text", "thin"]

Fact: TypeAlias = "tuple[str, Estimate, str, int]"
"""Name, value, unit and decimals of a line of text."""


@dataclass(frozen=True)
class ArmPoint:
    """An arm as a point.

    Attributes:
        key: The arm.
        runs: Its runs, each with a final test error.
        x: Mean of what lies across.
        error: Mean test error in percent.
    """

    key: ArmKey
    runs: list[RunRecord]
    x: Estimate
    error: Estimate


def arms_at(
    records: Sequence[RunRecord], across: Callable[[RunRecord], float | None]
) -> list[ArmPoint]:
    """Place the arms with a test error.

    Args:
        records: The runs.
        across: Where a run stands; ``None`` leaves it out.

    Returns:
        The arms that have a place, in the order in which they are shown.
    """
    arms = []
    for key, runs in by_arm(final_runs(records)).items():
        placed = [run for run in runs if across(run) is not None]
        x, error = estimate(placed, across), estimate(placed, lambda run: run.error)
        if x is not None and error is not None:
            arms.append(ArmPoint(key, placed, x, error))
    return arms


def estimate(
    runs: Sequence[RunRecord], value: Callable[[RunRecord], float | None]
) -> Estimate | None:
    """Return the mean over the runs where a value is known, with its 95 % interval."""
    values = [found for run in runs if (found := known(value(run))) is not None]
    return mean_interval(values) if values else None


def run_text(record: RunRecord, style: Style) -> str:
    """Say what there is to say of a run, a line each."""
    lines = [record.name, f"{style.label}, seed {record.seed}"]
    error = known(record.error)
    if error is not None:
        lines.append(f"test error {error:.2f} %")
    elif not record.finished:
        lines.append(f"unfinished: {record.steps:,} of {record.total_steps:,} steps")
    lines.append(f"training time {format_seconds(record.train_seconds)}")
    predicted, measured = known(record.predicted), known(record.measured)
    if predicted is not None:
        lines.append(f"saving predicted {percent(predicted)}".replace("-", "−"))
    if measured is not None:
        lines.append(f"saving measured {percent(measured)}".replace("-", "−"))
    return "\n".join(lines)


def arm_text(arm: ArmPoint, style: Style, facts: Sequence[Fact]) -> str:
    """Say what there is to say of an arm, a line each; of its run if it has only one."""
    if len(arm.runs) == 1:
        return run_text(arm.runs[0], style)
    lines = [style.label, f"mean of {arm.error.count} runs"]
    for name, value, unit, decimals in facts:
        text = f"{name} {value.mean:,.{decimals}f} {unit}"
        if value.low is not None:
            text += f" ({value.low:,.{decimals}f} to {value.high:,.{decimals}f})"
        lines.append(text.replace("-", "−"))
    return "\n".join(lines)


def draw_arm(
    drawing: Drawing,
    axes: Axes,
    arm: ArmPoint,
    style: Style,
    across: Callable[[RunRecord], float],
    fact: tuple[str, str, int],
    *,
    aside: float = 0.0,
) -> None:
    """Draw an arm: a large point for its mean, small ones for single runs; error goes up.

    Args:
        drawing: Where.
        axes: Its axes.
        arm: The arm.
        style: How it looks.
        across: Where a run stands.
        fact: Name, unit and decimals of what lies across.
        aside: How far beside its place the arm is drawn.
    """
    if len(arm.runs) > 1:
        for run in arm.runs:
            if (error := known(run.error)) is not None:
                text = run_text(run, style)
                drawing.point(axes, style, across(run) + aside, error, text, size=4, alpha=0.45)
    name, unit, decimals = fact
    facts = [(name, arm.x, unit, decimals), ("test error", arm.error, "%", 2)]
    at = (arm.x.mean + aside, arm.error.mean)
    drawing.point(axes, style, *at, arm_text(arm, style, facts))


def thin(count: int, most: int) -> list[int]:
    """Return at most `most` of `count` indices, evenly spread, with the first and the last.

    Example:
        >>> thin(9, 3)
        [0, 4, 8]
    """
    if count <= most:
        return list(range(count))
    return sorted({round(i * (count - 1) / (most - 1)) for i in range(most)})
