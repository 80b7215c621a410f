"""What the terminal shows: a run as it goes on, its summary, costs, plans and comparisons."""

from freezeout.lab.report.terminal.comparison_tables import ComparisonTables
from freezeout.lab.report.terminal.display import DisplayMode, LineDisplay, make_display
from freezeout.lab.report.terminal.live import LiveDisplay
from freezeout.lab.report.terminal.output import LastingConsole, plain_text, print_to
from freezeout.lab.report.terminal.plan_tables import LayerTable, PlanTable
from freezeout.lab.report.terminal.summary import render_summary

__all__ = [
    "ComparisonTables",
    "DisplayMode",
    "LastingConsole",
    "LayerTable",
    "LineDisplay",
    "LiveDisplay",
    "PlanTable",
    "make_display",
    "plain_text",
    "print_to",
    "render_summary",
]
