"""The summary after a run: error, times, and the saving as a clock measured it."""

from __future__ import annotations

import math

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from freezeout.lab.training import RunSummary
from freezeout.text import format_seconds, interval_text, percent

__all__ = ["render_summary"]


def render_summary(summary: RunSummary) -> RenderableType:
    """Lay a summary out for a `rich` console: a heading and one row per fact.

    Args:
        summary: The run.
    """
    table = Table.grid(padding=(0, 2), pad_edge=False)
    table.add_column(no_wrap=True, style="dim")
    table.add_column(overflow="fold")
    for name, value, style in _rows(summary):
        table.add_row(Text(name), Text(value, style=style))
    state = "interrupted" if summary.interrupted else "finished"
    where = ", ".join(part for part in (summary.device, summary.precision) if part)
    heading = Text(f"{state}: {summary.model} on {summary.data}", style="bold")
    if where:
        heading.append(f"  ({where})", style="not bold dim")
    return Group(heading, table)


def _rows(summary: RunSummary) -> list[tuple[str, str, str]]:
    """Return name, value and style of every fact."""
    error = "not measured" if summary.test_error is None else f"{summary.test_error:.2f} %"
    total = format_seconds(summary.total_seconds)
    steps = format_seconds(summary.train_seconds)
    done = f"{summary.steps:,}"
    if summary.interrupted and summary.total_steps is not None:
        done += f" of {summary.total_steps:,}"
    rows = [
        ("test error", error, "bold"),
        ("total time", f"{total}, of which {steps} in {done} steps", ""),
        ("time per epoch", _epoch_times(summary), ""),
        ("frozen", f"{summary.frozen_layers} of {summary.layers} layers at the end", ""),
    ]
    rows.extend(_saving_rows(summary))
    rows.extend(_prediction_rows(summary))
    rows.append(("run folder", summary.out, ""))
    return rows


def _epoch_times(summary: RunSummary) -> str:
    times = summary.seconds_per_epoch
    if not times:
        return f"no epoch finished (0 of {summary.epochs})"
    number = (
        f"{len(times)}" if len(times) == summary.epochs else f"{len(times)} of {summary.epochs}"
    )
    count = f"({number} epoch{'' if summary.epochs == 1 else 's'})"
    if len(times) == 1:
        return f"{format_seconds(times[0])} {count}"
    mean = math.fsum(times) / len(times)
    return (
        f"mean {format_seconds(mean)}, first {format_seconds(times[0])}, "
        f"last {format_seconds(times[-1])} {count}"
    )


def _saving_rows(summary: RunSummary) -> list[tuple[str, str, str]]:
    """Tell the measured saving with the seconds it follows from, or why there is none."""
    if summary.saving is None:
        return [("saving", _why_no_saving(summary), "")]
    costs = summary.depth_costs
    unfrozen, deepest = costs[0].median_seconds, costs[-1]
    spent = math.fsum(cost.steps * cost.median_seconds for cost in costs)
    baseline = unfrozen * sum(cost.steps for cost in costs)
    shown = round(100 * summary.saving, 1)
    style = "bold green" if shown > 0 else "bold yellow"
    rows = [
        (
            "saving",
            f"{percent(summary.saving)} measured, against this run's own unfrozen steps",
            style,
        ),
        (
            "",
            f"by median step times: {_five_digits(spent)} s, at the unfrozen pace "
            f"{_five_digits(baseline)} s",
            "",
        ),
        (
            "step time",
            f"{_milliseconds(unfrozen)} ms unfrozen, {_milliseconds(deepest.median_seconds)} ms "
            f"with {deepest.frozen} frozen",
            "",
        ),
        ("", "Unfrozen steps come first; drift counts.", "dim"),
    ]
    if shown < 0:
        rows.insert(1, ("", "Steps with frozen layers took longer here.", style))
    return rows


def _prediction_rows(summary: RunSummary) -> list[tuple[str, str, str]]:
    """Tell what was predicted before the run, and by how much that was off."""
    if summary.predicted is None:
        return []
    sure = interval_text(summary.predicted_interval)
    text = f"{percent(summary.predicted)} before the run{sure}"
    predicted = summary.predicted
    if summary.interrupted and summary.predicted_so_far is not None:
        predicted = summary.predicted_so_far
        text += f", {percent(predicted)} for the steps done"
    if summary.saving is not None:
        # From what is shown, so that the three numbers agree.
        off = round(100 * summary.saving, 1) - round(100 * predicted, 1)
        word = "more" if off > 0 else "less"
        text += (
            "; measured the same"
            if round(off, 1) == 0
            else f"; measured {abs(off):.1f} points {word}"
        )
    rows = [("predicted", text, "")]
    if summary.predicted_trouble:
        rows.append(("", f"Not to be relied on: {summary.predicted_trouble}.", "dim"))
    return rows


def _why_no_saving(summary: RunSummary) -> str:
    timed = {cost.frozen for cost in summary.depth_costs}
    if summary.frozen_layers == 0 and timed <= {0}:
        return "none: nothing froze, so every step was an unfrozen one"
    if not timed - {0}:
        return "not known: no step with frozen layers was timed"
    if 0 not in timed:
        return "not known: this run has no unfrozen steps to compare with"
    return "not known: the unfrozen steps took no measurable time"


def _five_digits(seconds: float) -> str:
    """Write enough digits to work the saving out again from the two numbers shown."""
    decimals = 1 if seconds >= 1000 else 4 - math.floor(math.log10(seconds)) if seconds > 0 else 1
    return f"{seconds:,.{max(1, decimals)}f}"


def _milliseconds(seconds: float) -> str:
    value = 1000 * seconds
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"
