"""The figures of a report: runs in, drawings out. Loads ``matplotlib``."""

from freezeout.report.figures._drawing import Drawing, Mark
from freezeout.report.figures._kind import FigureKind
from freezeout.report.figures._png import WIDE, figure_png
from freezeout.report.figures._svg import inline_svg
from freezeout.report.figures.rates import RATES
from freezeout.report.figures.saving import SAVING
from freezeout.report.figures.steps import STEPS
from freezeout.report.figures.time import TIME
from freezeout.report.figures.tradeoff import TRADEOFF

__all__ = [
    "CELL_FIGURES",
    "CROSS_FIGURES",
    "RATES",
    "SAVING",
    "STEPS",
    "TIME",
    "TRADEOFF",
    "WIDE",
    "Drawing",
    "FigureKind",
    "Mark",
    "figure_png",
    "inline_svg",
]

CELL_FIGURES = (TRADEOFF, TIME, RATES, STEPS)
"""Drawn once per cell."""

CROSS_FIGURES = (SAVING,)
"""Drawn once, of all cells together."""
