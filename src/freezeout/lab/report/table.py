"""Tables as plain values, shown rounded and saved in full, and what is said beside them."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import chain
from typing import TypeAlias

from freezeout.lab.report.grouping import clean, known
from freezeout.text import csv_text

__all__ = ["Cell", "Column", "Section", "Table", "cell_text"]

Cell: TypeAlias = "str | bool | int | float | tuple[float, float] | None"
"""A value of a table; a pair is an interval, ``None`` is unknown."""


@dataclass(frozen=True)
class Column:
    """One column.

    Attributes:
        key: Name in the CSV file; an interval fills ``key_low`` and ``key_high``.
        title: Heading on the page.
        decimals: Decimals shown; ``None`` shows text and whole numbers as they are.
        scale: Shown are values times this; 100 shows fractions as percentages.
        unit: Written behind every shown number.
        signed: Whether positive numbers are shown with a plus.
        interval: Whether values are pairs, the ends of intervals.
    """

    key: str
    title: str
    decimals: int | None = None
    scale: float = 1.0
    unit: str = ""
    signed: bool = False
    interval: bool = False


@dataclass(frozen=True)
class Table:
    """A table.

    Attributes:
        id: Short name, unique within its section: letters, digits and hyphens; its CSV file's name
            ends in it.
        title: Caption.
        columns: Columns; the first one names the row.
        rows: One value per column in each.
        note: What to know when reading it, shown below; may be empty.

    Raises:
        ValueError: If a row is longer or shorter than `columns`, or an interval is no pair.
    """

    id: str
    title: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[Cell, ...], ...]
    note: str = ""

    def __post_init__(self) -> None:
        for row in self.rows:
            if len(row) != len(self.columns):
                raise ValueError(
                    f"every row of table {self.id!r} must have one value per column, "
                    f"{len(self.columns)} in all, got {len(row)} in {row!r}. Use None for unknown "
                    "values."
                )
            for column, value in zip(self.columns, row, strict=True):
                if value is not None and column.interval != isinstance(value, tuple):
                    wanted = "a pair of numbers" if column.interval else "one value"
                    raise ValueError(
                        f"column {column.key!r} of table {self.id!r} must hold {wanted} or None, "
                        f"got {value!r}. Set interval=True for columns of pairs."
                    )

    def csv(self) -> str:
        """Write it as CSV: numbers as they are, in full precision, unscaled; unknown ones empty."""
        keys = (
            [f"{column.key}_low", f"{column.key}_high"] if column.interval else [column.key]
            for column in self.columns
        )
        rows = (map(_plain, self.columns, row) for row in self.rows)
        return csv_text(chain.from_iterable(cells) for cells in (keys, *rows))

    def numeric(self, place: int) -> bool:
        """Return whether a column holds numbers alone, which line up on the right."""
        values = [row[place] for row in self.rows if row[place] is not None]
        return bool(values) and not any(isinstance(value, (str, bool)) for value in values)


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


def cell_text(column: Column, value: Cell) -> str:
    """Write a value as the page shows it.

    Args:
        column: How to write it.
        value: The value.

    Returns:
        Text with a true minus sign; ``"–"`` for what is unknown or not finite.

    Example:
        >>> cell_text(Column("saving", "saving", decimals=1, scale=100, unit="%"), 0.236)
        '23.6 %'
    """
    if isinstance(value, tuple):
        low, high = (_number(column, known(end)) for end in value)
        text = f"{low} to {high}"
    elif isinstance(value, bool):
        return "yes" if value else "no"
    elif isinstance(value, str):
        return clean(value)
    elif known(value) is None:
        return "–"
    else:
        text = _number(column, value)
    return f"{text} {column.unit}" if column.unit else text


def _number(column: Column, value: float | None) -> str:
    """Write a number as the page shows it, without its unit."""
    if value is None:
        return "–"
    sign = "+" if column.signed else ""
    if column.decimals is None:
        text = f"{value:{sign},}" if isinstance(value, int) else f"{column.scale * value:{sign}g}"
    else:
        # Adding 0.0 turns -0.0 into 0.0.
        text = f"{round(column.scale * value, column.decimals) + 0.0:{sign},.{column.decimals}f}"
    return text.replace("-", "−")


def _plain(column: Column, value: Cell) -> tuple[object, ...]:
    """Return a value as the cells of a CSV file: two for an interval, else one."""
    if column.interval:
        return value if isinstance(value, tuple) else (None, None)
    if isinstance(value, bool):
        return ("yes" if value else "no",)
    return (clean(value) if isinstance(value, str) else value,)
