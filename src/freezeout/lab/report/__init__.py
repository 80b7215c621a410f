"""What runs look like: on the terminal, as figures, on a page of many runs.

``terminal`` has displays and tables, ``figures`` drawings (it loads matplotlib), ``page`` the page.
"""

from typing import TYPE_CHECKING

from freezeout.lab.report.page import write_report
from freezeout.lab.report.section import section_of
from freezeout.lab.report.table import Column, Section, Table
from freezeout.lazy import lazy_names

if TYPE_CHECKING:
    from freezeout.lab.report import figures as figures
    from freezeout.lab.report import terminal as terminal

__all__ = ["Column", "Section", "Table", "section_of", "write_report"]

if not TYPE_CHECKING:  # with matplotlib and rich, which take a moment to load
    __getattr__, __dir__ = lazy_names(__name__, {}, rooms=("figures", "terminal"))
