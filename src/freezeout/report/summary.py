r"""The summary after a run: error, times, and the saving as a clock measured it.

The measured saving compares a run with itself. While nothing is frozen, its steps show what a step
of this network costs on this machine; from then on every step is held against that:

$$\text{saving} = 1 - \frac{\sum_d n_d\, m_d}{m_0 \sum_d n_d}$$

with $n_d$ the number of steps taken with $d$ frozen layers and $m_d$ the median time of such a
step. Medians keep a few slow steps (a first batch, a busy disk) from deciding the result.

Two caveats. The unfrozen steps all come first, so a machine that grows slower or faster during the
run counts as a lost or a won saving. And only training steps are compared: evaluation, loading and
saving take the same time with or without freezing, so the whole run saves a smaller fraction.
"""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import IO

from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from freezeout.durations import format_seconds
from freezeout.report._text import encodable

__all__ = [
    "DepthCost",
    "RunSummary",
    "format_seconds",
    "measured_saving",
    "print_summary",
    "render_summary",
    "summary_text",
]


@dataclass(frozen=True)
class DepthCost:
    """What a training step cost while a given number of layers was frozen.

    Args:
        frozen: Length of the frozen prefix, at least 0.
        steps: Number of steps taken at that depth, at least 0.
        median_seconds: Median time of such a step in seconds, finite and at least 0.

    Raises:
        ValueError: If an argument is outside its range.
    """

    frozen: int
    steps: int
    median_seconds: float

    def __post_init__(self) -> None:
        for name in ("frozen", "steps"):
            value = getattr(self, name)
            if value < 0:
                raise ValueError(f"{name} must be 0 or more, got {value}. Count from zero.")
        if not (math.isfinite(self.median_seconds) and self.median_seconds >= 0):
            raise ValueError(
                f"median_seconds must be finite and 0 or more, got {self.median_seconds}. "
                "Leave out depths at which no step was timed."
            )


@dataclass(frozen=True, kw_only=True)
class RunSummary:
    """What there is to say about a run once it is over.

    Args:
        model: Name of the network.
        data: Name of the data set.
        steps: Optimizer steps done.
        epochs: Epochs the run was to have.
        test_error: Final error on the test data in percent, 0-100; ``None`` if never measured.
        train_seconds: Time spent in training steps, in seconds.
        total_seconds: Wall time of the run including evaluation and saving, in seconds.
        seconds_per_epoch: Training time of each finished epoch, in seconds.
        depth_costs: Step count and median step time per length of the frozen prefix.
        frozen_layers: Layers frozen at the end.
        layers: Number of layers.
        saving: Measured saving as a fraction, ``measured_saving(depth_costs)``; ``None`` if the run
            had no unfrozen steps to compare with, or nothing froze.
        out: Folder of the run.
        device: Where it ran, in words.
        precision: Number format of the training steps.
        predicted: Saving that was predicted before the run, as a fraction; ``None`` if it was not.
        predicted_interval: Where the prediction lay with 95 % confidence; ``None`` if not known.
        predicted_so_far: The same prediction for the steps that were done.
        interrupted: Whether the run was stopped before its end.
        total_steps: Steps the run was to have; shown when it was interrupted.

    Raises:
        ValueError: If `saving` is not what `depth_costs` give, so that the fraction and the seconds
            shown beside it always agree.
    """

    model: str
    data: str
    steps: int
    epochs: int
    test_error: float | None
    train_seconds: float
    total_seconds: float
    seconds_per_epoch: tuple[float, ...]
    depth_costs: tuple[DepthCost, ...]
    frozen_layers: int
    layers: int
    saving: float | None
    out: str
    device: str
    precision: str
    predicted: float | None = None
    predicted_interval: tuple[float, float] | None = None
    predicted_so_far: float | None = None
    interrupted: bool = False
    total_steps: int | None = None

    def __post_init__(self) -> None:
        measured = measured_saving(self.depth_costs)
        same = (
            self.saving is measured
            if self.saving is None or measured is None
            else math.isclose(self.saving, measured, rel_tol=1e-9, abs_tol=1e-9)
        )
        if not same:
            raise ValueError(
                f"saving must follow from depth_costs, which give {measured}, got {self.saving}. "
                "Pass measured_saving(depth_costs)."
            )


def measured_saving(depth_costs: Sequence[DepthCost]) -> float | None:
    r"""Fraction of training time saved, against the run's own unfrozen steps.

    With $n_d$ steps of median time $m_d$ at $d$ frozen layers, the saving is
    $1 - \sum_d n_d m_d / (m_0 \sum_d n_d)$. It is negative when the steps grew slower. The unfrozen
    steps come first in time, so a change in the machine's speed during the run counts too.

    Args:
        depth_costs: One entry per length of the frozen prefix, in any order. Entries without steps
            are ignored.

    Returns:
        The saving as a fraction, at most 1; ``None`` if no step was unfrozen, none was frozen, or
        the unfrozen steps took no measurable time.

    Raises:
        ValueError: If a length of the frozen prefix is given twice.

    Example:
        >>> measured_saving([DepthCost(0, 50, 0.2), DepthCost(1, 50, 0.1)])
        0.25
    """
    costs = {cost.frozen: cost for cost in depth_costs if cost.steps > 0}
    if len(costs) != sum(cost.steps > 0 for cost in depth_costs):
        raise ValueError(
            "each length of the frozen prefix may appear once in depth_costs, got "
            f"{sorted(cost.frozen for cost in depth_costs)}. Take one median over all its steps."
        )
    if 0 not in costs or len(costs) == 1 or costs[0].median_seconds == 0:
        return None
    spent, unfrozen = _compared_seconds(depth_costs, costs[0].median_seconds)
    return 1.0 - spent / unfrozen


def render_summary(summary: RunSummary) -> RenderableType:
    """Lay a summary out for a `rich` console.

    Args:
        summary: The finished run.

    Returns:
        A heading and one row per fact, in ASCII but for names that are not.
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


def summary_text(summary: RunSummary, width: int = 80) -> str:
    """Write a summary as plain text: no colour, no control codes.

    Args:
        summary: The finished run.
        width: Widest line in columns, at least 40.

    Returns:
        At most 15 lines from 60 columns on (unless names or paths are long), without a final
        newline and without trailing blanks.

    Raises:
        ValueError: If `width` is below 40.
    """
    if width < 40:
        raise ValueError(f"width must be at least 40 columns, got {width}. Try 80.")
    target = io.StringIO()
    console = Console(
        file=target, width=width, color_system=None, force_terminal=False, legacy_windows=False
    )
    console.print(render_summary(summary))
    return "\n".join(line.rstrip() for line in target.getvalue().splitlines())


def print_summary(summary: RunSummary, stream: IO[str]) -> None:
    """Write a summary to a stream: laid out on a terminal, else as plain text of 80 columns.

    Args:
        summary: The finished run.
        stream: Where to write. Characters its encoding lacks become question marks.

    Raises:
        OSError: If the stream cannot be written to, such as a pipe that was closed.
    """
    if stream.isatty():
        console = Console(file=stream)
        with console.capture() as capture:
            console.print(render_summary(summary))
        text = capture.get()
    else:
        text = summary_text(summary) + "\n"
    stream.write(encodable(text, stream))
    stream.flush()


def _compared_seconds(
    depth_costs: Sequence[DepthCost], unfrozen_median: float
) -> tuple[float, float]:
    """Seconds of all steps by their medians, and of as many unfrozen ones."""
    spent = math.fsum(cost.steps * cost.median_seconds for cost in depth_costs)
    return spent, unfrozen_median * sum(cost.steps for cost in depth_costs)


def _rows(summary: RunSummary) -> list[tuple[str, str, str]]:
    """Name, value and style of every fact."""
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
    """The measured saving with the seconds it follows from, or why there is none."""
    if summary.saving is None:
        return [("saving", _why_no_saving(summary), "")]
    timed = sorted((cost for cost in summary.depth_costs if cost.steps > 0), key=lambda c: c.frozen)
    unfrozen = timed[0].median_seconds
    spent, baseline = _compared_seconds(timed, unfrozen)
    shown = round(100 * summary.saving, 1) + 0.0  # adding 0.0 turns -0.0 into 0.0
    style = "bold green" if shown > 0 else "bold yellow"
    deepest = timed[-1]
    rows = [
        ("saving", f"{shown:.1f} % measured, against this run's own unfrozen steps", style),
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
    """What was predicted before the run, and by how much that was off."""
    if summary.predicted is None:
        return []
    text = f"{100 * summary.predicted + 0.0:.1f} % before the run"
    if summary.predicted_interval is not None:
        low, high = summary.predicted_interval
        text += f" ({100 * low:.1f} to {100 * high:.1f})"
    predicted = summary.predicted
    if summary.interrupted and summary.predicted_so_far is not None:
        predicted = summary.predicted_so_far
        text += f", {100 * predicted + 0.0:.1f} % for the steps done"
    if summary.saving is not None:
        # From what is shown, so that the three numbers agree.
        off = round(100 * summary.saving, 1) - round(100 * predicted, 1)
        word = "more" if off > 0 else "less"
        text += (
            "; measured the same"
            if round(off, 1) == 0
            else f"; measured {abs(off):.1f} points {word}"
        )
    return [("predicted", text, "")]


def _why_no_saving(summary: RunSummary) -> str:
    timed = {cost.frozen for cost in summary.depth_costs if cost.steps > 0}
    if summary.frozen_layers == 0 and timed <= {0}:
        return "none: nothing froze, so every step was an unfrozen one"
    if not timed - {0}:
        return "not known: no step with frozen layers was timed"
    if 0 not in timed:
        return "not known: this run has no unfrozen steps to compare with"
    return "not known: the unfrozen steps took no measurable time"


def _five_digits(seconds: float) -> str:
    """Enough digits to work the saving out again from the two numbers shown."""
    decimals = 1 if seconds >= 1000 else 4 - math.floor(math.log10(seconds)) if seconds > 0 else 1
    return f"{seconds:,.{max(1, decimals)}f}"


def _milliseconds(seconds: float) -> str:
    value = 1000 * seconds
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"
