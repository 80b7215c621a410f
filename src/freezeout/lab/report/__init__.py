"""What runs look like: on the terminal, as figures, on a page of many runs.

``terminal`` has displays and tables, ``figures`` drawings (it loads matplotlib), ``page`` the page.
"""

from __future__ import annotations

from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING

from freezeout.lab.report.page import write_report
from freezeout.lab.report.section import section_of
from freezeout.lab.report.table import Column, Section, Table

if TYPE_CHECKING:
    from freezeout.lab.report import figures as figures
    from freezeout.lab.report import terminal as terminal

__all__ = ["Column", "Section", "Table", "section_of", "write_report"]

_LATER = ("figures", "terminal")  # with matplotlib and rich, which take a moment to load


def __getattr__(name: str) -> ModuleType:
    if name in _LATER:
        return import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *_LATER})
