"""One run: its learning rates with freeze points above, its step times below.

The upper panel follows the first figure of the paper (Brock et al., "FreezeOut", 2017,
arXiv:1706.04983); the lower one shows what freezing did to the time of a step.
"""

from __future__ import annotations

from dataclasses import replace
from functools import cached_property
from itertools import groupby
from statistics import median
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FixedLocator, FuncFormatter

from freezeout.lab.evidence import RunRecord, StepTime
from freezeout.lab.report.figures.drawing import Drawing, dress, number
from freezeout.lab.report.figures.figure import Figure
from freezeout.lab.report.figures.layers import (
    FEW_LAYERS,
    draw_layer_scale,
    draw_rates,
    has_rates,
    rate_curve,
)
from freezeout.lab.report.figures.points import thin
from freezeout.lab.report.grouping import known
from freezeout.lab.report.palette import HUES, INK, PAPER, SOFT, layer_colors
from freezeout.lab.report.table import Cell, Column

__all__ = ["RunFigure"]

_MOST_POINTS = 500  # along a curve
_MOST_TIMES = 4000
_FEW_TIMES = 5  # a median over fewer is drawn as uncertain
_ACCENT = HUES[1]  # stays apart from the colours of layers


class RunFigure(Figure):
    """Learning rates and step times of a run, finished or cut short.

    Args:
        record: The run.
    """

    id = "run"
    title = "Learning rates and step times"
    heights = (6.6, 5.6)
    columns = (
        Column("quantity", "quantity"),
        Column("layer", "layer"),
        Column("name", "name"),
        Column("freeze_step", "freeze step"),
        Column("step", "step"),
        Column("rate", "learning rate"),
        Column("frozen", "frozen layers"),
        Column("seconds", "step time"),
    )

    def __init__(self, record: RunRecord) -> None:
        if record.kind == "control":  # its rates fall to 0 where a variant would freeze
            record = replace(record, freeze_steps=(None,) * len(record.freeze_steps))
        self.record = record

    @property
    def missing(self) -> str | None:
        """Why it cannot be drawn, in one line; ``None`` if it can."""
        return None if has_rates(self.record) else "No learning rates were recorded."

    @cached_property
    def _times(self) -> list[StepTime]:
        """Step times that are numbers."""
        return [time for time in self.record.step_times if known(time.seconds) is not None]

    @cached_property
    def _by_depth(self) -> dict[int, list[float]]:
        """Milliseconds by the length of the frozen prefix."""
        groups: dict[int, list[float]] = {}
        for time in self._times:
            groups.setdefault(time.frozen, []).append(1000 * time.seconds)
        return groups

    @property
    def _cut(self) -> bool:
        """Whether the run was cut short."""
        return self.record.steps < self.record.total_steps

    def caption(self) -> str:
        """Say what is seen and how to read it, as plain sentences."""
        text = (
            "Above, the learning rate of every layer over training; a curve ends at a dot where "
            "its layer freezes, and the darker or bluer the colour, the nearer the layer is to the "
            "input. Below, the time of a step (ms, lower is better) with its median for each "
            "number of frozen layers; upright lines are freezes."
        )
        if self._cut:
            text += " What the run did not reach is shaded; freezes to come are hollow dots."
        return text

    def rows(self) -> list[tuple[Cell, ...]]:
        """Return the drawn rates and step times."""
        run = self.record
        rows: list[tuple[Cell, ...]] = [
            ("rate", layer, name, run.freeze_steps[layer], step, rate, None, None)
            for layer, name in enumerate(run.layer_names)
            for step, rate in rate_curve(run, layer, _MOST_POINTS)
        ]
        rows += [
            ("step time", None, None, None, time.step, None, time.frozen, time.seconds)
            for time in self._times
        ]
        return rows

    def fill(self, drawing: Drawing) -> None:
        """Draw the rates above the times."""
        run, total = self.record, self.record.total_steps
        upper, lower = drawing.figure.subplots(2, 1, sharex=True, height_ratios=[3, 2])
        for axes in (upper, lower):
            dress(axes)
            if self._cut:
                done = 100 * run.steps / total
                axes.axvspan(done, 100, color=INK.light, alpha=0.06, lw=0)
                axes.axvline(done, color=INK.light, lw=0.8, ls=(0, (4, 3)), zorder=1)
        draw_rates(drawing, upper, run, most=_MOST_POINTS, about=run.name)
        self._draw_notes(drawing, upper)
        upper.set_ylim(bottom=0.0)
        upper.set_ylabel("learning rate")
        self._draw_freezes(lower)
        self._draw_times(drawing, lower)
        lower.set_ylabel("step time (ms)")
        lower.set_xlim(0, 100)
        lower.xaxis.set_major_locator(FixedLocator([0, 20, 40, 60, 80, 100]))
        lower.xaxis.set_major_formatter(
            FuncFormatter(lambda x, _: f"{number(x)}\n{round(x * total / 100):,}")
        )
        lower.set_xlabel("progress (%), with optimizer steps below")
        draw_layer_scale(drawing, [upper, lower], run.layer_names, named=True)

    def _draw_notes(self, drawing: Drawing, axes: Axes) -> None:
        """Draw the base rate, and say where the run stopped."""
        run = self.record
        rate = run.base_rate
        axes.axhline(rate, color=SOFT.light, lw=1.0, ls=(0, (1, 2)), zorder=2)
        drawing.note(axes, (100, rate), f"base rate {rate:g}", (-1, 3))
        if self._cut:
            at = (100 * run.steps / run.total_steps, 1.0)
            shift = (-5 if at[0] > 75 else 5, -3)
            text = f"stopped at step {run.steps:,}"
            drawing.note(axes, at, text, shift, xycoords=("data", "axes fraction"))

    def _draw_freezes(self, axes: Axes) -> None:
        """Draw a hairline at every freeze."""
        run = self.record
        for color, step in zip(layer_colors(len(run.layer_names)), run.freeze_steps, strict=True):
            if step is not None and step <= run.steps:
                width = 0.9 if len(run.layer_names) <= FEW_LAYERS else 0.4
                at = 100 * step / run.total_steps
                axes.axvline(at, color=color.light, lw=width, alpha=0.7, zorder=1)

    def _draw_times(self, drawing: Drawing, axes: Axes) -> None:
        """Draw single step times, the median per frozen depth, and how far it fell."""
        if not self._times:
            axes.set_ylim(0.0, 1.0)
            axes.set_yticks([])
            axes.text(0.5, 0.5, "no step times", ha="center", transform=axes.transAxes)
            return
        medians = {depth: median(times) for depth, times in self._by_depth.items()}
        last = self._times[-1].frozen
        xs = np.asarray([100 * time.step / self.record.total_steps for time in self._times])
        ys = np.asarray([1000 * time.seconds for time in self._times])
        # A few slow steps must not squash the rest: they become marks at the upper edge. A depth
        # with few times may have a slow median too, so only the two that matter bound the axis.
        top = 1.3 * max(medians.get(0, 0.0), medians[last], float(np.percentile(ys, 95)), 1e-6)
        axes.set_ylim(0.0, top)
        inside, above = np.flatnonzero(ys <= top), np.flatnonzero(ys > top)
        inside = inside[thin(len(inside), _MOST_TIMES)]
        dots: dict[str, Any] = {
            "ls": "none",
            "color": SOFT.light,
            "mew": 0,
            "alpha": 0.45,
            "zorder": 1.5,
        }
        axes.plot(xs[inside], ys[inside], marker="o", ms=2.6, label="step times", **dots)
        if len(above):
            edge = np.full(len(above), 0.985 * top)
            axes.plot(xs[above], edge, marker="^", ms=4, label="slower, beyond the axis", **dots)
        self._draw_medians(drawing, axes, medians)
        if medians.get(0) and last:
            change = round(100 * (medians[last] / medians[0] - 1))
            unfrozen = axes.axhline(medians[0], color=_ACCENT.light, lw=1.0, ls=(0, (1, 2)))
            unfrozen.set(zorder=3, label="unfrozen median")
            text = f"{change:+d} %".replace("-", "−")
            drawing.label(axes, (float(xs[-1]), medians[last]), text, color=_ACCENT)
        columns = 1 if drawing.narrow else 2
        legend = axes.legend(
            loc="lower left", fontsize=8.5, labelcolor=INK.light, framealpha=0.85, ncols=columns
        )
        legend.get_frame().set(facecolor=PAPER.light, edgecolor="none")
        legend.set(zorder=6, in_layout=False)

    def _draw_medians(self, drawing: Drawing, axes: Axes, medians: dict[int, float]) -> None:
        """Draw the stair of medians, dashed and thinner where few times make it uncertain."""
        times = self._times
        xs: list[int] = []
        depths: list[int] = []
        start = max(0, 2 * times[0].step - times[1].step) if len(times) > 1 else 0
        for depth, group in groupby(times, key=lambda time: time.frozen):
            end = list(group)[-1].step
            xs += [start, end]  # equal depths begin where the last ones ended
            depths += [depth, depth]
            start = end
        across = [100 * x / self.record.total_steps for x in xs]
        ys = np.asarray([medians[depth] for depth in depths])
        few = np.asarray([len(self._by_depth[depth]) < _FEW_TIMES for depth in depths])
        text = "\n".join(
            ["median step time", *(f"{k} frozen: {ms:.3g} ms" for k, ms in sorted(medians.items()))]
        )
        look: dict[str, Any] = {"text": text, "color": _ACCENT, "zorder": 4}
        if not few.all():
            solid = np.where(few, np.nan, ys).tolist()
            label = "median per frozen depth"
            drawing.line(axes, across, solid, width=2.0, label=label, **look)
        if few.any():
            wide = few.copy()  # with the risers on both sides
            wide[1:] |= few[:-1]
            wide[:-1] |= few[1:]
            dashed = np.where(wide, ys, np.nan).tolist()
            label = f"median of fewer than {_FEW_TIMES} times"
            drawing.line(axes, across, dashed, width=1.0, dash=(4, 2), label=label, **look)
