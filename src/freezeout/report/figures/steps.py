"""Step time and memory along a run, per arm."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from statistics import median

from matplotlib.axes import Axes

from freezeout.evidence.record import RunRecord, StepTime
from freezeout.report.arms import ArmKey, by_arm, known, representative
from freezeout.report.figures._drawing import Drawing, drawing_style, dress
from freezeout.report.figures._kind import FigureKind, Records
from freezeout.report.figures._points import run_text, thin
from freezeout.report.palette import Palette
from freezeout.report.table import Cell, Column, Table

__all__ = ["STEPS"]

_MOST_POINTS = 200


def _chosen(records: Records) -> list[tuple[ArmKey, RunRecord]]:
    """One run per arm."""
    shown = [run for run in records if run.total_steps > 0 and (run.step_times or run.memory)]
    return [(key, representative(runs)) for key, runs in by_arm(shown).items()]


def _times(run: RunRecord) -> list[StepTime]:
    """Step times, at most `_MOST_POINTS`: medians of neighbours with equally many frozen layers."""
    times = [time for time in run.step_times if known(time.seconds) is not None]
    size = -(-len(times) // _MOST_POINTS) if times else 1
    merged: list[StepTime] = []
    for frozen, equal in groupby(times, key=lambda time: time.frozen):
        group = list(equal)
        for start in range(0, len(group), size):
            part = group[start : start + size]
            middle = median(time.seconds for time in part)
            merged.append(StepTime(part[-1].step, middle, frozen))
    return [merged[i] for i in thin(len(merged), _MOST_POINTS)]


def _memory(run: RunRecord) -> list[tuple[int, int]]:
    return [run.memory[i] for i in thin(len(run.memory), _MOST_POINTS)]


def _missing(records: Records) -> str | None:
    return None if _chosen(records) else "Neither step times nor memory were recorded."


def _caption(records: Records) -> str:
    chosen = [run for _, run in _chosen(records)]
    parts = []
    if any(run.step_times for run in chosen):
        parts.append(
            "Typical time of a training step (ms, lower is better); in short runs every point is a "
            "single step."
        )
    if any(run.memory for run in chosen):
        parts.append("Peak memory since the point before (MB, lower is better).")
    parts.append("Both" if len(parts) == 2 else "It")
    parts[-1] += " along a run (progress in % of its own steps)."
    if len(chosen) < len({run.name for run in records}):
        parts.append("One run per arm, of the lowest seed that is finished.")
    if any(_slow(_times(run)) for run in chosen):
        parts.append("Single steps that were far slower than usual lie beyond the upper edge.")
    return " ".join(parts)


def _draw(records: Records, palette: Palette, width: float) -> Drawing:
    chosen = _chosen(records)
    parts = [
        any(run.step_times for _, run in chosen),
        any(run.memory for _, run in chosen),
    ]
    count = sum(parts)
    wide = width >= 6
    with drawing_style():
        drawing = Drawing(width, 3.6 if wide else 0.6 + 2.5 * count)
        shape = (1, count) if wide else (count, 1)
        panels = list(drawing.figure.subplots(*shape, squeeze=False).flat)
        for axes in panels:
            dress(axes)
            axes.set_xlim(0, 100)
            axes.set_xlabel("progress (%)")
        if parts[0]:
            _draw_times(drawing, panels[0], chosen, palette)
        if parts[1]:
            _draw_memory(drawing, panels[-1], chosen, palette)
    return drawing


def _draw_times(
    drawing: Drawing, axes: Axes, chosen: list[tuple[ArmKey, RunRecord]], palette: Palette
) -> None:
    tops = []
    for key, run in chosen:
        times = _times(run)
        if not times:
            continue
        xs = [100 * time.step / run.total_steps for time in times]
        ys = [1000 * time.seconds for time in times]
        text = run_text(run, palette[key])
        drawing.line(axes, xs, ys, palette[key], text=text, width=1.2, alpha=0.9)
        if len(xs) == 1:
            drawing.points(axes, palette[key], xs[0], ys[0], text)
        usual = sorted(ys)[int(0.97 * (len(ys) - 1))]
        tops.append(usual)
    axes.set_ylim(0, 1.15 * max([*tops, 1e-6]))
    axes.set_ylabel("step time (ms)")


def _slow(times: Sequence[StepTime]) -> bool:
    if not times:
        return False
    seconds = sorted(time.seconds for time in times)
    return seconds[-1] > 1.15 * seconds[int(0.97 * (len(seconds) - 1))]


def _draw_memory(
    drawing: Drawing, axes: Axes, chosen: list[tuple[ArmKey, RunRecord]], palette: Palette
) -> None:
    largest = max(peak for _, run in chosen for _, peak in run.memory)
    scale = 1e-6
    for key, run in chosen:
        points = _memory(run)
        if not points:
            continue
        # A peak holds from the entry before on.
        xs = [0.0, *(100 * step / run.total_steps for step, _ in points)]
        peaks = [scale * peak for _, peak in points]
        (line,) = axes.plot(
            xs,
            [peaks[0], *peaks],
            drawstyle="steps-pre",
            color=palette[key].color.light,
            lw=1.4,
            zorder=5,
        )
        if palette[key].dash:
            line.set_dashes(palette[key].dash)
        drawing.mark(line, palette[key], text=run_text(run, palette[key]))
    axes.set_ylim(0, 1.1 * scale * max(largest, 1))
    axes.set_ylabel("peak memory (MB)")


_COLUMNS = (
    Column("quantity", "quantity"),
    Column("arm", "arm"),
    Column("run", "run"),
    Column("step", "step"),
    Column("frozen", "frozen layers"),
    Column("seconds", "step time"),
    Column("bytes", "peak memory"),
)


def _table(records: Records) -> Table:
    rows: list[tuple[Cell, ...]] = []
    for key, run in _chosen(records):
        rows += [
            ("step time", key.arm, run.name, time.step, time.frozen, time.seconds, None)
            for time in _times(run)
        ]
        rows += [
            ("peak memory", key.arm, run.name, step, None, None, peak)
            for step, peak in _memory(run)
        ]
    return Table("steps", "Step time and memory", _COLUMNS, tuple(rows))


def _arms(records: Records) -> list[ArmKey]:
    return [key for key, _ in _chosen(records)]


STEPS = FigureKind("steps", "Step time and memory", _missing, _caption, _draw, _table, _arms)
