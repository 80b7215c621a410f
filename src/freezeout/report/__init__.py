"""What runs look like: a live display, a closing summary, a picture, a page of many runs.

Everything here takes plain numbers and names and knows nothing of how runs are made. ``rich`` and
``matplotlib`` (the ``cli`` extra) are imported in this package only; ``matplotlib`` only once a
picture is asked for, because loading it takes a noticeable moment.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from freezeout.report.choose import DisplayMode, make_display
from freezeout.report.display import Display, EpochLine, LineDisplay, SilentDisplay, Status
from freezeout.report.live import LiveDisplay
from freezeout.report.page import write_report
from freezeout.report.section import Section
from freezeout.report.summary import (
    DepthCost,
    RunSummary,
    format_seconds,
    measured_saving,
    print_summary,
    render_summary,
    summary_text,
)
from freezeout.report.table import Column, Table

if TYPE_CHECKING:
    from freezeout.report.picture import build_figure, draw_run

__all__ = [
    "Column",
    "DepthCost",
    "Display",
    "DisplayMode",
    "EpochLine",
    "LineDisplay",
    "LiveDisplay",
    "RunSummary",
    "Section",
    "SilentDisplay",
    "Status",
    "Table",
    "build_figure",
    "draw_run",
    "format_seconds",
    "make_display",
    "measured_saving",
    "print_summary",
    "render_summary",
    "summary_text",
    "write_report",
]


def __getattr__(name: str) -> Any:
    if name in {"build_figure", "draw_run"}:
        from freezeout.report import picture

        return getattr(picture, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
