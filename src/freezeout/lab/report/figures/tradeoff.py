"""Error against predicted saving: the paper's third figure."""

from __future__ import annotations

from functools import cached_property
from itertools import pairwise
from typing import Any

from matplotlib.axes import Axes

from freezeout.lab.evidence import RunRecord
from freezeout.lab.report.figures.drawing import Drawing, dress
from freezeout.lab.report.figures.figure import RunsFigure
from freezeout.lab.report.figures.points import ArmPoint, arm_text, arms_at, draw_arm
from freezeout.lab.report.grouping import ArmKey, final_runs, known
from freezeout.lab.report.palette import SOFT, family_of
from freezeout.lab.report.table import Cell, Column

__all__ = ["TradeoffFigure"]

_CROWD = 12  # arms, from which on moving points aside would mislead


class TradeoffFigure(RunsFigure):
    """Error against predicted saving, one point per arm."""

    id = "tradeoff"
    title = "Error against predicted saving"
    heights = (4.4, 3.9)
    columns = (
        Column("what", "what"),
        Column("arm", "arm"),
        Column("kind", "kind"),
        Column("spacing", "spacing"),
        Column("scaled", "scaled"),
        Column("t0", "t0"),
        Column("run", "run"),
        Column("seed", "seed"),
        Column("runs", "runs"),
        Column("saving_percent", "predicted saving", decimals=1, unit="%"),
        Column("error_percent", "test error", decimals=2, unit="%"),
        Column("error_interval", "95 % interval", decimals=2, unit="%", interval=True),
    )

    @cached_property
    def _full_steps(self) -> int | None:
        """Steps of the baseline."""
        steps = (run.total_steps for run in self.records if run.kind == "baseline")
        return max(steps, default=None)

    def _saving(self, run: RunRecord) -> float | None:
        """Return the predicted saving in percent; the share of steps a shortened run leaves out."""
        if run.kind == "variant":
            predicted = known(run.predicted)
            return None if predicted is None else 100 * predicted
        if run.kind == "equal-time" and self._full_steps:
            return 100 * (1 - run.total_steps / self._full_steps)
        return 0.0 if run.kind == "baseline" else None

    @cached_property
    def _arms(self) -> list[ArmPoint]:
        """Arms that have a place."""
        return arms_at(self.records, self._saving)

    @property
    def _beside(self) -> list[ArmPoint]:
        """Arms that are drawn as points; a baseline is a band."""
        return [arm for arm in self._arms if arm.key.kind != "baseline"]

    @property
    def arms(self) -> list[ArmKey]:
        """Arms that its legend names."""
        return [arm.key for arm in self._arms]

    @property
    def missing(self) -> str | None:
        """Why it cannot be drawn, in one line; ``None`` if it can."""
        variants = [run for run in self.records if run.kind == "variant"]
        if not variants:
            return "No run here freezes anything."
        if not final_runs(variants):
            return "No run that freezes is finished and tested yet."
        if not any(arm.key.kind == "variant" for arm in self._arms):
            return "No saving was predicted for these runs."
        return None

    def caption(self) -> str:
        """Say what is seen and how to read it, as plain sentences."""
        kinds = {arm.key.kind for arm in self._arms}
        parts = [
            "Final test error (%, lower is better) against the saving that was predicted before "
            "the run (% of training time, further right is better).",
            "Large points are means over seeds with 95 % confidence intervals; small ones are "
            "single runs; numbers at points are t0.",
        ]
        bottom, top = self._heights()
        if any(end < bottom or end > top for arm in self._arms for end in arm.error.interval or ()):
            parts.append("Intervals that run out of the axes are cut off there.")
        if len(self._arms) <= _CROWD:
            parts.append("Points of equal saving stand side by side.")
        if "baseline" in kinds:
            parts.append("The band is the baseline, which freezes nothing: its mean and interval.")
        if "equal-time" in kinds:
            parts.append(
                "Hollow diamonds are baselines trained for fewer epochs, at the share of steps "
                "they leave out: the alternative that freezing has to beat."
            )
        return " ".join(parts)

    def rows(self) -> list[tuple[Cell, ...]]:
        """Return the drawn numbers: means and single runs."""
        rows: list[tuple[Cell, ...]] = []
        for arm in self._arms:
            first, error = arm.runs[0], arm.error
            head = (arm.key.arm, first.kind, first.spacing, first.scaled, first.t0)
            mean = (error.count, arm.x.mean, error.mean, error.interval)
            rows.append(("mean", *head, None, None, *mean))
            rows += [
                ("run", *head, run.name, run.seed, 1, self._saving(run), run.error, None)
                for run in arm.runs
            ]
        return rows

    def fill(self, drawing: Drawing) -> None:
        """Draw the arms, the baseline as a band."""
        axes = drawing.figure.subplots()
        dress(axes)
        for arm in self._arms:
            if arm.key.kind == "baseline":
                self._draw_band(drawing, axes, arm)
        crowded = len(self._arms) > _CROWD
        places = self._places(0.0 if crowded else 0.032 if drawing.narrow else 0.016)
        self._draw_families(drawing, axes, places)
        for arm in self._beside:
            self._draw_arm(drawing, axes, arm, places[arm.key])
        axes.set_ylim(*self._heights())
        axes.set_xlim(*self._widths())
        axes.set_xlabel("predicted saving (% of training time)")
        axes.set_ylabel("test error (%)")

    def _draw_band(self, drawing: Drawing, axes: Axes, arm: ArmPoint) -> None:
        """Draw the baseline's mean and interval, and name it where there is room."""
        style, error = self.palette[arm.key], arm.error
        color = style.color.light
        text = arm_text(arm, style, [("test error", error, "%", 2)])
        if error.low is not None and error.high is not None:
            band = axes.axhspan(error.low, error.high, color=color, alpha=0.09, lw=0, zorder=1)
            drawing.mark(band, style, text=text)
        drawing.mark(axes.axhline(error.mean, color=color, lw=1.2, zorder=2), style, text=text)
        xs = [arm.x.mean for arm in self._beside]
        least, most = self._widths()
        left = min(xs) - least > most - max(xs)
        name = style.label if len(style.label) <= 24 else "baseline"
        at, shift = (0.0 if left else 1.0, error.mean), (3 if left else -2, 3)
        drawing.note(axes, at, name, shift, style, xycoords=("axes fraction", "data"))

    def _places(self, share: float) -> dict[ArmKey, float]:
        """Return where to draw each arm: at its saving, or just beside another one of the same."""
        savings = [arm.x.mean for arm in self._arms]
        gap = share * max(max(savings) - min(savings), 5.0)
        places: dict[ArmKey, float] = {}
        # Variants keep their place; what they are compared with moves to the left.
        for arm in sorted(self._beside, key=lambda arm: (arm.key.kind != "variant", -arm.x.mean)):
            at = arm.x.mean
            while any(abs(at - other) < 0.99 * gap for other in places.values()):
                at -= gap
            places[arm.key] = at
        return places

    def _draw_families(self, drawing: Drawing, axes: Axes, places: dict[ArmKey, float]) -> None:
        """Join the variants that differ by t0 only."""
        families: dict[Any, list[ArmPoint]] = {}
        for arm in self._arms:
            if arm.key.kind == "variant" and arm.runs[0].spacing is not None:
                families.setdefault(family_of(arm.runs[0]), []).append(arm)
        for family, members in families.items():
            members.sort(key=lambda arm: -arm.runs[0].t0)
            for one, other in pairwise(members):
                drawing.line(
                    axes,
                    [places[one.key], places[other.key]],
                    [one.error.mean, other.error.mean],
                    self.palette[one.key],
                    self.palette[other.key],
                    color=self.palette.family_color(family),
                    dash=self.palette.family_dash(family),
                    width=1.3,
                    zorder=3,
                )

    def _draw_arm(self, drawing: Drawing, axes: Axes, arm: ArmPoint, x: float) -> None:
        """Draw the points and the interval of an arm, with its t0."""
        style, error, first = self.palette[arm.key], arm.error, arm.runs[0]
        if error.low is not None and error.high is not None:
            drawing.line(axes, (x, x), (error.low, error.high), style, dash=(), width=1.3)
        aside = x - arm.x.mean

        def across(run: RunRecord) -> float:
            return self._saving(run) or 0.0

        draw_arm(drawing, axes, arm, style, across, ("predicted saving", "%", 1), aside=aside)
        if arm.key.kind == "variant" and first.spacing is not None:
            shift = (6, -3 if first.scaled else 3)
            drawing.note(axes, (x, error.mean), f"{first.t0:g}", shift, style, color=SOFT)

    def _heights(self) -> tuple[float, float]:
        """Return the errors worth seeing; intervals of few runs may go beyond."""
        values = [run.error for arm in self._arms for run in arm.runs if run.error is not None]
        low, high = min(values), max(values)
        span = max(high - low, 0.05 * high, 0.1)
        ends = [end for arm in self._arms for end in (arm.error.interval or ())]
        bottom = max(min([*ends, low]) - 0.1 * span, low - 1.0 * span, 0.0)
        top = min(max([*ends, high]) + 0.1 * span, high + 1.0 * span)
        return bottom, min(top, 100.0)

    def _widths(self) -> tuple[float, float]:
        """Return the savings to show."""
        xs = [arm.x.mean for arm in self._arms]
        left, right = min([*xs, 0.0]), max(xs)
        room = max(right - left, 5.0)
        return left - 0.04 * room, right + 0.09 * room
