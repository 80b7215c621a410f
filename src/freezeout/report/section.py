"""What a caller has to say of a cell: sentences and tables above its figures."""

from __future__ import annotations

from dataclasses import dataclass

from freezeout.report.table import Table

__all__ = ["Section"]


@dataclass(frozen=True)
class Section:
    """Part of a report.

    Attributes:
        cell: The cell it is about, as in the records; ``None`` for what is said of all cells.
        title: Heading.
        sentences: What was found, the most important first; shown at the top of the page as well.
        tables: Tables shown below the figures of the cell.
    """

    cell: str | None
    title: str
    sentences: tuple[str, ...] = ()
    tables: tuple[Table, ...] = ()
