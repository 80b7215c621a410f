"""Learning rate of every layer with its freeze point, per arm: the paper's first figure."""

from __future__ import annotations

from functools import cached_property

from freezeout.lab.evidence import RunRecord
from freezeout.lab.report.figures.drawing import NARROW, WIDE, Drawing, dress
from freezeout.lab.report.figures.figure import RunsFigure
from freezeout.lab.report.figures.layers import (
    draw_layer_scale,
    draw_rates,
    has_rates,
    highest_rate,
    rate_curve,
)
from freezeout.lab.report.grouping import ArmKey, by_arm, representative, shorten
from freezeout.lab.report.palette import INK
from freezeout.lab.report.table import Cell, Column

__all__ = ["RatesFigure"]

_MOST_PANELS = 12
_MOST_POINTS = 6000


class RatesFigure(RunsFigure):
    """Learning rates and freeze points, one panel per schedule."""

    id = "rates"
    title = "Learning rates and freeze points"
    columns = (
        Column("arm", "arm"),
        Column("run", "run"),
        Column("layer", "layer"),
        Column("name", "name"),
        Column("freeze_step", "freeze step"),
        Column("step", "step"),
        Column("rate", "learning rate"),
    )

    @cached_property
    def _all(self) -> list[tuple[ArmKey, RunRecord]]:
        """One run per variant with rates."""
        runs = [run for run in self.records if run.kind == "variant" and has_rates(run)]
        return [(key, representative(group)) for key, group in by_arm(runs).items()]

    @cached_property
    def _shown(self) -> list[tuple[ArmKey, RunRecord]]:
        """Those that have a panel."""
        return self._all[:_MOST_PANELS]

    @property
    def missing(self) -> str | None:
        """Why it cannot be drawn, in one line; ``None`` if it can."""
        if not any(run.kind == "variant" for run in self.records):
            return "No run here freezes anything."
        return None if self._all else "No learning rates were recorded."

    @cached_property
    def _alike(self) -> bool:
        """Whether all panels can have one vertical scale."""
        tops = [highest_rate([run]) for _, run in self._shown]
        return max(tops) <= 2.5 * min(tops)

    @cached_property
    def _most(self) -> int:
        """Points per curve, so that the page stays small with many layers."""
        curves = sum(len(run.layer_names) for _, run in self._shown)
        return max(14, min(60, _MOST_POINTS // curves))

    def caption(self) -> str:
        """Say what is seen and how to read it, as plain sentences."""
        text = (
            "Learning rate of every layer over training (progress in %), one panel per schedule "
            "and one run each. A curve ends at a dot where its layer freezes; the darker or bluer "
            "the colour, the nearer the layer is to the input."
        )
        if not self._alike:
            text += " Vertical scales differ."
        if len(self._all) > _MOST_PANELS:
            text += f" Shown are the first {_MOST_PANELS} of {len(self._all)} schedules."
        return text

    def rows(self) -> list[tuple[Cell, ...]]:
        """Return the drawn rates."""
        return [
            (key.arm, run.name, layer, name, run.freeze_steps[layer], step, rate)
            for key, run in self._shown
            for layer, name in enumerate(run.layer_names)
            for step, rate in rate_curve(run, layer, self._most)
        ]

    def _grid(self, *, narrow: bool) -> tuple[int, int]:
        """Return the number of panels down and across."""
        count = len(self._shown)
        across = 1 if narrow else count if count <= 3 else 2 if count == 4 else 3
        return -(-count // across), across

    def size(self, *, narrow: bool) -> tuple[float, float]:
        """Return width and height in inches."""
        down, across = self._grid(narrow=narrow)
        return (NARROW if narrow else WIDE), 0.7 + down * (2.5 if across > 1 or narrow else 3.4)

    def fill(self, drawing: Drawing) -> None:
        """Draw a panel per schedule."""
        down, across = self._grid(narrow=drawing.narrow)
        runs = [run for _, run in self._shown]
        panels = list(
            drawing.figure.subplots(
                down, across, squeeze=False, sharex=True, sharey=self._alike
            ).flat
        )
        for place, (axes, (key, run)) in enumerate(zip(panels, self._shown, strict=False)):
            dress(axes)
            style = self.palette[key]
            drawing.mark(axes, style)
            about = f"{style.label}\n{run.name}"
            draw_rates(drawing, axes, run, style, most=self._most, about=about)
            axes.set_xlim(0, 100)
            axes.set_ylim(0, 1.05 * highest_rate(runs if self._alike else [run]))
            axes.set_title(shorten(style.label, 34), color=INK.light, loc="left")
            if place + across >= len(runs):
                axes.set_xlabel("progress (%)")
                axes.tick_params(labelbottom=True)
            if place % across == 0:
                axes.set_ylabel("learning rate")
        for axes in panels[len(runs) :]:
            axes.remove()
        longest = max((run.layer_names for run in runs), key=len)
        draw_layer_scale(drawing, panels[: len(runs)], longest)
