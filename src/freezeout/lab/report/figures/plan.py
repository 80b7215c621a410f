"""Predicted saving against `t0`, beside what the paper would have expected.

Two panels share their axes, so that the same schedule stands at the same place in both: one has the
prediction from costs measured on this machine, the other the paper's own estimate (Brock et al.,
"FreezeOut", 2017, arXiv:1706.04983), which counts operations and takes the backward pass to be as
cheap as the forward pass.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from itertools import pairwise

import numpy as np
from matplotlib.axes import Axes

from freezeout.lab.report.figures.drawing import Drawing, dress
from freezeout.lab.report.figures.figure import Figure
from freezeout.lab.report.palette import HUES, INK, SOFT, Style
from freezeout.lab.report.table import Cell, Column
from freezeout.planning import Plan, paper_saving

__all__ = ["PlanFigure"]

_MARKERS = "os^vPX"
_BUDGET = Style("budget", "for a budget (by first layer's freeze time)", SOFT, "D", (4, 2), False)


class PlanFigure(Figure):
    """What schedules are predicted to save.

    Args:
        plans: Plans by `t0`; each spacing is a curve.
        paper_costs: Costs of layers that the paper's formula takes; without any above 0 there is
            no estimate.
        budgets: Plans made for a wanted saving, by rising saving.
        chosen: The plan to point at.
    """

    id = "savings"
    title = "Predicted saving"
    heights = (4.4, 6.4)
    columns = (
        Column("spacing", "spacing"),
        Column("t0", "t0"),
        Column("first_freeze_time", "freeze time of the first layer"),
        Column("saving", "predicted saving", decimals=1, scale=100, unit="%"),
        Column("interval", "95 % interval", decimals=1, scale=100, unit="%", interval=True),
        Column("paper", "paper's estimate", decimals=1, scale=100, unit="%"),
    )

    def __init__(
        self,
        plans: Sequence[Plan],
        paper_costs: Sequence[float] = (),
        *,
        budgets: Sequence[Plan] = (),
        chosen: Plan | None = None,
    ) -> None:
        self._curves: dict[str, list[Plan]] = {}
        for plan in plans:
            self._curves.setdefault(plan.spacing, []).append(plan)
        for curve in self._curves.values():
            curve.sort(key=lambda plan: plan.schedule.t0)
        self._paper_costs = paper_costs if sum(paper_costs) > 0 else ()
        self._budgets = list(budgets)
        for i, (one, other) in enumerate(pairwise(budgets)):
            if other.freeze_times[0] >= one.freeze_times[0]:
                del self._budgets[i + 1 :]  # the first layer is at its least: only later ones move
                break
        self._chosen = chosen

    @property
    def missing(self) -> str | None:
        """Why it cannot be drawn, in one line; ``None`` if it can."""
        return None if self._curves else "No schedule has a predicted saving."

    @cached_property
    def _styles(self) -> dict[str, Style]:
        """The style of every curve."""
        return {
            name: Style(f"s{i}", name, HUES[i % len(HUES)], _MARKERS[i % len(_MARKERS)])
            for i, name in enumerate(self._curves)
        }

    @property
    def legend(self) -> list[Style]:
        """What its legend names."""
        return [*self._styles.values(), *([_BUDGET] if self._budgets else [])]

    def _paper(self, plan: Plan) -> float | None:
        """Return the paper's estimate of a plan."""
        if not self._paper_costs:
            return None
        schedule = plan.schedule
        return paper_saving(self._paper_costs, schedule.t0, spacing=schedule.spacing)

    @property
    def _measured(self) -> bool:
        """Whether intervals are known."""
        return any(plan.interval for plans in self._curves.values() for plan in plans)

    def caption(self) -> str:
        """Say what is seen and how to read it, as plain sentences."""
        text = (
            "Predicted saving (% of training time) against t0: from costs measured on this "
            "machine, and by the paper's formula, which counts operations and takes the backward "
            "pass to be as cheap as the forward pass."
        )
        if self._measured:
            text += " Bands are 95 % intervals."
        if self._budgets:
            text += " Schedules made for a budget stand at the freeze time of their first layer."
        return text

    def rows(self) -> list[tuple[Cell, ...]]:
        """Return the drawn savings, as fractions."""
        rows: list[tuple[Cell, ...]] = [
            (name, p.schedule.t0, p.freeze_times[0], p.saving, p.interval, self._paper(p))
            for name, plans in self._curves.items()
            for p in plans
        ]
        rows += [
            (p.spacing, None, p.freeze_times[0], p.saving, p.interval, None) for p in self._budgets
        ]
        return rows

    def fill(self, drawing: Drawing) -> None:
        """Draw this machine's savings beside the paper's."""
        shape = (2, 1) if drawing.narrow else (1, 2)
        here, there = drawing.figure.subplots(*shape, sharex=True, sharey=True)
        for axes in (here, there):
            dress(axes)
            axes.axhline(0.0, color=SOFT.light, lw=1.0, zorder=1)
            axes.margins(x=0.04, y=0.07)
            axes.tick_params(labelleft=True, labelbottom=True)
            if axes is there or not drawing.narrow:
                axes.set_xlabel("t0 (first layer's freeze time before spacing)")
        here.set_ylabel("predicted saving (%)")
        here.set_title("this machine (measured costs)", color=INK.light)
        there.set_title("the paper's estimate (FLOPs, backward = forward)", color=INK.light)
        for name, plans in self._curves.items():
            style, t0s = self._styles[name], [plan.schedule.t0 for plan in plans]
            self._draw_interval(drawing, here, plans, style)
            self._draw_curve(drawing, here, t0s, plans, [plan.saving for plan in plans], style)
            if self._paper_costs:
                estimates = [self._paper(plan) or 0.0 for plan in plans]
                self._draw_curve(drawing, there, t0s, plans, estimates, style)
        if not self._paper_costs:
            there.text(0.5, 0.5, "no estimate", ha="center", transform=there.transAxes)
        if self._budgets:
            xs = [plan.freeze_times[0] for plan in self._budgets]
            savings = [plan.saving for plan in self._budgets]
            self._draw_curve(drawing, here, xs, self._budgets, savings, _BUDGET)
        if self._chosen is not None:
            self._draw_chosen(drawing, here, self._chosen)

    def _draw_curve(
        self,
        drawing: Drawing,
        axes: Axes,
        xs: Sequence[float],
        plans: Sequence[Plan],
        savings: Sequence[float],
        style: Style,
    ) -> None:
        """Draw a line with a point for every plan."""
        ys = [100 * saving for saving in savings]
        drawing.line(axes, xs, ys, style, width=1.6, zorder=4)
        for x, y, plan in zip(xs, ys, plans, strict=True):
            name = plan.spacing if style is _BUDGET else f"{plan.spacing}, t0 = {x:g}"
            text = f"{name}\nfirst layer freezes at {plan.freeze_times[0]:.3g}\nsaving {y:.1f} %"
            drawing.point(axes, style, x, y, text.replace("-", "−"), size=5.5)

    def _draw_interval(
        self, drawing: Drawing, axes: Axes, plans: Sequence[Plan], style: Style
    ) -> None:
        """Draw the band of the intervals that are known."""
        known = [(plan.schedule.t0, *plan.interval) for plan in plans if plan.interval]
        if known:
            t0s, low, high = np.asarray(known).T
            band = axes.fill_between(
                t0s, 100 * low, 100 * high, color=style.color.light, alpha=0.18, lw=0, zorder=2
            )
            drawing.mark(band, style)

    def _draw_chosen(self, drawing: Drawing, axes: Axes, plan: Plan) -> None:
        """Ring the plan that was asked for, and name it."""
        custom = plan.schedule.times is not None
        x = plan.freeze_times[0] if custom else plan.schedule.t0
        y = 100 * plan.saving
        axes.plot([x], [y], marker="o", ms=12, mfc="none", mec=INK.light, mew=1.8, zorder=7)
        drawing.label(axes, (x, y), f"{plan.spacing}: {y:.1f} %")
