"""Predicted against measured saving, of all runs together."""

from __future__ import annotations

from functools import cached_property
from typing import NamedTuple

from freezeout.lab.evidence import RunRecord
from freezeout.lab.report.figures.drawing import NARROW, Drawing, dress
from freezeout.lab.report.figures.figure import RunsFigure
from freezeout.lab.report.figures.points import run_text
from freezeout.lab.report.grouping import ArmKey, by_arm, cells, known
from freezeout.lab.report.palette import SOFT
from freezeout.lab.report.table import Cell, Column

__all__ = ["SavingFigure"]

_BAND = 3.0  # percentage points


class _Place(NamedTuple):
    """A run with both savings, in percent."""

    run: RunRecord
    predicted: float
    measured: float


class SavingFigure(RunsFigure):
    """Predicted against measured saving, one point per run."""

    id = "saving"
    title = "Predicted against measured saving"
    columns = (
        Column("cell", "cell"),
        Column("arm", "arm"),
        Column("run", "run"),
        Column("seed", "seed"),
        Column("predicted", "predicted", decimals=1, scale=100, unit="%"),
        Column("predicted_interval", "interval", decimals=1, scale=100, unit="%", interval=True),
        Column("measured", "measured", decimals=1, scale=100, unit="%"),
    )

    @cached_property
    def _shown(self) -> list[_Place]:
        """Finished runs with both savings."""
        places = []
        for run in self.records:
            predicted, measured = known(run.predicted), known(run.measured)
            if run.finished and predicted is not None and measured is not None:
                places.append(_Place(run, 100 * predicted, 100 * measured))
        return places

    @property
    def arms(self) -> list[ArmKey]:
        """Arms that its legend names."""
        return list(by_arm(place.run for place in self._shown))

    @property
    def missing(self) -> str | None:
        """Why it cannot be drawn, in one line; ``None`` if it can."""
        if self._shown:
            return None
        return "No finished run has both a predicted and a measured saving."

    def caption(self) -> str:
        """Say what is seen and how to read it, as plain sentences."""
        near = sum(abs(place.measured - place.predicted) <= _BAND for place in self._shown)
        text = (
            "Measured saving against the one predicted before the run (% of training time). It is "
            "measured against the baseline of the same cell and seed where there is one, else by "
            "the run's own unfrozen steps. On the diagonal the prediction was right; the band is 3 "
            f"percentage points to either side. {near} of {len(self._shown)} runs lie within it."
        )
        if any(place.run.predicted_interval is not None for place in self._shown):
            low, high = self._range
            cut = any(end < low or end > high for end in self._ends)
            text += " Horizontal bars are 95 % intervals of the predictions"
            text += ", cut off at the edges." if cut else "."
        if len(cells(place.run for place in self._shown)) > 1:
            text += " Point at a run to see its cell."
        return text

    def rows(self) -> list[tuple[Cell, ...]]:
        """Return both savings of every run, as fractions."""
        runs = [place.run for place in self._shown]
        return [
            (r.cell, r.arm, r.name, r.seed, r.predicted, r.predicted_interval, r.measured)
            for r in runs
        ]

    def size(self, *, narrow: bool) -> tuple[float, float]:
        """Return width and height in inches."""
        return (NARROW, NARROW) if narrow else (5.6, 5.6)

    def fill(self, drawing: Drawing) -> None:
        """Draw the runs around the diagonal."""
        axes = drawing.figure.subplots()
        dress(axes, grid="both")
        low, high = ends = self._range
        below, above = [low - _BAND, high - _BAND], [low + _BAND, high + _BAND]
        axes.fill_between(ends, below, above, color=SOFT.light, alpha=0.12, lw=0, zorder=1)
        axes.plot(ends, ends, color=SOFT.light, lw=1.0, zorder=2)
        for run, x, y in self._shown:
            style = self.palette[run]
            if run.predicted_interval is not None:
                xs = [100 * end for end in run.predicted_interval]
                drawing.line(axes, xs, (y, y), style, dash=(), width=0.7, alpha=0.6)
            drawing.point(axes, style, x, y, f"{run_text(run, style)}\n{run.cell}", size=6)
        axes.set_xlim(low, high)
        axes.set_ylim(low, high)
        axes.set_aspect("equal")
        axes.set_xlabel("predicted saving (%)")
        axes.set_ylabel("measured saving (%)")

    @cached_property
    def _range(self) -> tuple[float, float]:
        """Limits of both axes."""
        values = [0.0, *(v for _, *both in self._shown for v in both)]
        # Intervals may take as much room again as the points, half of it on each side.
        reach = max(4.0, 0.5 * (max(values) - min(values)))
        least, most = min(values) - reach, max(values) + reach
        values += [min(max(end, least), most) for end in self._ends]
        room = max(2.0, 0.08 * (max(values) - min(values)))
        return min(values) - (room if min(values) < 0 else 0.0), max(values) + room

    @cached_property
    def _ends(self) -> list[float]:
        """Ends of the predicted intervals in percent."""
        ends = [known(e) for place in self._shown for e in place.run.predicted_interval or ()]
        return [100 * end for end in ends if end is not None]
