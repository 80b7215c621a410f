"""Step time and memory along a run, per arm."""

from __future__ import annotations

from functools import cached_property
from itertools import groupby
from statistics import median

from matplotlib.axes import Axes

from freezeout.lab.evidence import RunRecord, StepTime
from freezeout.lab.report.figures.drawing import NARROW, WIDE, Drawing, dress
from freezeout.lab.report.figures.figure import RunsFigure
from freezeout.lab.report.figures.points import run_text, thin
from freezeout.lab.report.grouping import ArmKey, by_arm, known, representative
from freezeout.lab.report.table import Cell, Column

__all__ = ["StepsFigure"]

_MOST_POINTS = 200


class StepsFigure(RunsFigure):
    """Step time and memory, one run per arm."""

    id = "steps"
    title = "Step time and memory"
    columns = (
        Column("quantity", "quantity"),
        Column("arm", "arm"),
        Column("run", "run"),
        Column("step", "step"),
        Column("frozen", "frozen layers"),
        Column("seconds", "step time"),
        Column("bytes", "peak memory"),
    )

    @cached_property
    def _shown(self) -> list[tuple[ArmKey, RunRecord]]:
        """One run per arm."""
        runs = [
            run for run in self.records if run.total_steps > 0 and (run.step_times or run.memory)
        ]
        return [(key, representative(group)) for key, group in by_arm(runs).items()]

    @cached_property
    def _timed(self) -> bool:
        """Whether there are step times."""
        return any(run.step_times for _, run in self._shown)

    @cached_property
    def _remembered(self) -> bool:
        """Whether there are peaks of memory."""
        return any(run.memory for _, run in self._shown)

    @property
    def arms(self) -> list[ArmKey]:
        """Arms that its legend names."""
        return [key for key, _ in self._shown]

    @property
    def missing(self) -> str | None:
        """Why it cannot be drawn, in one line; ``None`` if it can."""
        return None if self._shown else "Neither step times nor memory were recorded."

    def caption(self) -> str:
        """Say what is seen and how to read it, as plain sentences."""
        parts = []
        if self._timed:
            parts.append(
                "Typical time of a training step (ms, lower is better); in short runs every point "
                "is a single step."
            )
        if self._remembered:
            parts.append("Peak memory since the point before (MB, lower is better).")
        both = "Both" if len(parts) == 2 else "It"
        parts.append(f"{both} along a run (progress in % of its own steps).")
        if len(self._shown) < len({run.name for run in self.records}):
            parts.append("One run per arm, of the lowest seed that is finished.")
        if any(_slow(_times(run)) for _, run in self._shown):
            parts.append("Single steps that were far slower than usual lie beyond the upper edge.")
        return " ".join(parts)

    def rows(self) -> list[tuple[Cell, ...]]:
        """Return the drawn step times and peaks."""
        rows: list[tuple[Cell, ...]] = []
        for key, run in self._shown:
            rows += [
                ("step time", key.arm, run.name, time.step, time.frozen, time.seconds, None)
                for time in _times(run)
            ]
            rows += [
                ("peak memory", key.arm, run.name, step, None, None, peak)
                for step, peak in _memory(run)
            ]
        return rows

    def size(self, *, narrow: bool) -> tuple[float, float]:
        """Return width and height in inches."""
        return (NARROW, 0.6 + 2.5 * (self._timed + self._remembered)) if narrow else (WIDE, 3.6)

    def fill(self, drawing: Drawing) -> None:
        """Draw a panel for the times and one for the memory."""
        count = self._timed + self._remembered
        shape = (count, 1) if drawing.narrow else (1, count)
        panels = list(drawing.figure.subplots(*shape, squeeze=False).flat)
        for axes in panels:
            dress(axes)
            axes.set_xlim(0, 100)
            axes.set_xlabel("progress (%)")
        if self._timed:
            self._draw_times(drawing, panels[0])
        if self._remembered:
            self._draw_memory(drawing, panels[-1])

    def _draw_times(self, drawing: Drawing, axes: Axes) -> None:
        """Draw the step times of every run."""
        top = 1e-6
        for key, run in self._shown:
            times = _times(run)
            if not times:
                continue
            xs = [100 * time.step / run.total_steps for time in times]
            ys = [1000 * time.seconds for time in times]
            style, text = self.palette[key], run_text(run, self.palette[key])
            drawing.line(axes, xs, ys, style, text=text, width=1.2, alpha=0.9)
            if len(xs) == 1:
                drawing.point(axes, style, xs[0], ys[0], text)
            top = max(top, 1000 * _usual(times))
        axes.set_ylim(0, 1.15 * top)
        axes.set_ylabel("step time (ms)")

    def _draw_memory(self, drawing: Drawing, axes: Axes) -> None:
        """Draw the peaks of memory of every run."""
        largest = 1e-6
        for key, run in self._shown:
            points = _memory(run)
            if not points:
                continue
            # A peak holds from the entry before on.
            xs = [0.0, *(100 * step / run.total_steps for step, _ in points)]
            peaks = [1e-6 * peak for _, peak in points]
            style, text = self.palette[key], run_text(run, self.palette[key])
            ys = [peaks[0], *peaks]
            drawing.line(axes, xs, ys, style, text=text, drawstyle="steps-pre")
            largest = max(largest, 1e-6 * max(peak for _, peak in run.memory))
        axes.set_ylim(0, 1.1 * largest)
        axes.set_ylabel("peak memory (MB)")


def _times(run: RunRecord) -> list[StepTime]:
    """Return step times, at most `_MOST_POINTS`: medians of neighbours of equal frozen depth."""
    times = [time for time in run.step_times if known(time.seconds) is not None]
    size = -(-len(times) // _MOST_POINTS) if times else 1
    merged: list[StepTime] = []
    for frozen, equal in groupby(times, key=lambda time: time.frozen):
        group = list(equal)
        for start in range(0, len(group), size):
            part = group[start : start + size]
            merged.append(StepTime(part[-1].step, median(time.seconds for time in part), frozen))
    return [merged[i] for i in thin(len(merged), _MOST_POINTS)]


def _memory(run: RunRecord) -> list[tuple[int, int]]:
    """Return steps and peaks of memory, at most `_MOST_POINTS`."""
    return [run.memory[i] for i in thin(len(run.memory), _MOST_POINTS)]


def _usual(times: list[StepTime]) -> float:
    """Return the seconds that only a few steps exceed."""
    return sorted(time.seconds for time in times)[int(0.97 * (len(times) - 1))]


def _slow(times: list[StepTime]) -> bool:
    """Return whether some step lies beyond the upper edge."""
    return bool(times) and max(time.seconds for time in times) > 1.15 * _usual(times)
