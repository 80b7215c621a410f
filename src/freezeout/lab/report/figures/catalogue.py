"""All figures of a report: a new one is a file here and a line below."""

from freezeout.lab.report.figures.figure import RunsFigure
from freezeout.lab.report.figures.rates import RatesFigure
from freezeout.lab.report.figures.saving import SavingFigure
from freezeout.lab.report.figures.steps import StepsFigure
from freezeout.lab.report.figures.time import TimeFigure
from freezeout.lab.report.figures.tradeoff import TradeoffFigure

__all__ = ["CELL_FIGURES", "CROSS_FIGURES"]

CELL_FIGURES: tuple[type[RunsFigure], ...] = (TradeoffFigure, TimeFigure, RatesFigure, StepsFigure)
"""Drawn once per cell."""

CROSS_FIGURES: tuple[type[RunsFigure], ...] = (SavingFigure,)
"""Drawn once, of all cells together."""
