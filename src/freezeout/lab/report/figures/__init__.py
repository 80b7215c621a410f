"""Figures: each is described once and drawn into a file or onto a page. Loads ``matplotlib``."""

from freezeout.lab.report.figures.catalogue import CELL_FIGURES, CROSS_FIGURES
from freezeout.lab.report.figures.drawing import Drawing, Mark
from freezeout.lab.report.figures.figure import Figure, FileKind, RunsFigure
from freezeout.lab.report.figures.plan import PlanFigure
from freezeout.lab.report.figures.rates import RatesFigure
from freezeout.lab.report.figures.run import RunFigure
from freezeout.lab.report.figures.saving import SavingFigure
from freezeout.lab.report.figures.steps import StepsFigure
from freezeout.lab.report.figures.svg import marker_path
from freezeout.lab.report.figures.time import TimeFigure
from freezeout.lab.report.figures.tradeoff import TradeoffFigure

__all__ = [
    "CELL_FIGURES",
    "CROSS_FIGURES",
    "Drawing",
    "Figure",
    "FileKind",
    "Mark",
    "PlanFigure",
    "RatesFigure",
    "RunFigure",
    "RunsFigure",
    "SavingFigure",
    "StepsFigure",
    "TimeFigure",
    "TradeoffFigure",
    "marker_path",
]
