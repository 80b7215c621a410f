"""A table of one line per row that fits its terminal, and how its numbers are written."""

from __future__ import annotations

import math
from collections.abc import Container, Sequence
from dataclasses import dataclass
from typing import Literal

from rich.bar import Bar
from rich.box import HORIZONTALS, Box
from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from freezeout.lab.report.terminal.formats import shortened
from freezeout.lab.report.terminal.output import has_blocks
from freezeout.text import fixed, unit_for

__all__ = ["FittedColumn", "FittedTable", "counted_column", "decimals_for", "time_unit"]

_ASCII_RULES = Box(str(HORIZONTALS).replace("─", "-"), ascii=True)
_LEAST_NAME = 16
_LEAST_BAR, _MOST_BAR = 6, 24


@dataclass(frozen=True)
class FittedColumn:
    """A column; `title` names it where there was no room for it.

    Cells are numbers as text, which are never shortened; names, which may be; or shares, which
    become bars, the largest as long as there is room.
    """

    title: str
    header: str
    cells: Sequence[str] | Sequence[float]
    justify: Literal["left", "right"] = "right"
    style: str = ""
    kind: Literal["text", "name", "bar"] = "text"

    @property
    def width(self) -> int:
        """Columns of the terminal that its text takes."""
        cells = [] if self.kind == "bar" else map(str, self.cells)
        return max(map(cell_len, (*self.header.split("\n"), *cells)))

    def least_width(self) -> int:
        """Room in which names still differ from each other."""
        names = {str(cell) for cell in self.cells}
        for room in range(min(_LEAST_NAME, self.width), self.width):
            if len({shortened(name, room, ascii_only=True) for name in names}) == len(names):
                return room
        return self.width


@dataclass(frozen=True)
class FittedTable:
    """A table with rules under its header and between its sections, but no frame.

    Where a terminal is narrow, gaps and bars shrink, then names, and then columns that can be
    spared are left out and named below. Numbers are never wrapped or shortened.

    Args:
        columns: All columns.
        spare: Titles of columns that may be left out, the first to go first.
        sections: Rows with a rule above them.
    """

    columns: Sequence[FittedColumn]
    spare: Sequence[str] = ()
    sections: Container[int] = ()

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        box = HORIZONTALS if has_blocks(console, options) else _ASCII_RULES
        ways = ((2, True), (1, True), (1, False))
        for left_out, (gap, whole) in (
            (count, way) for count in range(len(self.spare) + 1) for way in ways
        ):
            table = self._table(self.spare[:left_out], box, gap, whole=whole)
            least = table.__rich_measure__(console, options.update_width(10_000)).minimum
            if least <= options.max_width:
                break
        # Where even that is too wide, the console cuts the lines.
        yield from console.render(table, options.update_width(max(least, options.max_width)))
        if left_out:
            names = ", ".join(self.spare[:left_out])
            yield Text(f"No room at this width for: {names}.", style="dim")

    def _table(self, without: Sequence[str], box: Box, gap: int, *, whole: bool) -> Table:
        """Build the table with bars that shrink or, if names are not kept `whole`, with names."""
        table = Table(
            box=box,
            show_edge=False,
            pad_edge=False,
            padding=(0, gap - 1, 0, 0),  # the box itself has one blank between columns
            border_style="dim",
        )
        columns = [column for column in self.columns if column.title not in without]
        for column in columns:
            least, most = column.width, None
            if column.kind == "bar":
                least, most = _LEAST_BAR, _MOST_BAR if whole else _LEAST_BAR
            elif column.kind == "name" and not whole:
                least = column.least_width()
            table.add_column(
                Text(column.header),
                justify=column.justify,
                style=column.style,
                vertical="bottom",
                no_wrap=column.kind != ("bar" if whole else "name"),  # rich shrinks the others
                min_width=least,
                max_width=most,
            )
        for row, cells in enumerate(zip(*(_rendered(column) for column in columns), strict=True)):
            if row in self.sections:
                table.add_section()
            table.add_row(*cells)
        return table


def _rendered(column: FittedColumn) -> list[RenderableType]:
    if column.kind == "bar":
        shares = [float(cell) for cell in column.cells]
        largest = max(filter(math.isfinite, shares), default=0.0)
        return [_Bar(share / largest if largest > 0 and share > 0 else 0.0) for share in shares]
    return [_Name(str(cell)) for cell in column.cells]


@dataclass(frozen=True)
class _Name:
    """Text without its middle where its column is narrow."""

    text: str

    def __rich_measure__(self, console: Console, options: ConsoleOptions) -> Measurement:
        return Measurement(1, cell_len(self.text))

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        ascii_only = not has_blocks(console, options)
        text = shortened(self.text, options.max_width, ascii_only=ascii_only)
        yield Text(text, no_wrap=True, overflow="crop")


@dataclass(frozen=True)
class _Bar:
    """A bar of a length from 0 to 1 times the width of its column."""

    length: float

    def __rich_measure__(self, console: Console, options: ConsoleOptions) -> Measurement:
        return Measurement(_LEAST_BAR, _MOST_BAR)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        if has_blocks(console, options):
            yield Bar(1.0, 0.0, self.length, color="cyan")
        else:
            yield Text("#" * round(self.length * options.max_width))


# --- Numbers ------------------------------------------------------------------------------------


def counted_column(
    title: str, head: str, values: Sequence[int], total: int, *, flops: bool = False
) -> FittedColumn:
    """Build a column of bytes or FLOPs in one unit, with an empty row and the total at its end.

    What is too small to show is said to be smaller.
    """
    unit, scale = unit_for(max(*values, total), "FLOPs" if flops else "bytes")
    decimals = 0 if scale == 1 else decimals_for(max(values) * scale, digits=3)

    def cell(value: int) -> str:
        text = fixed(value * scale, decimals)
        return f"<{10.0**-decimals:.{decimals}f}" if value > 0 and float(text) == 0 else text

    return FittedColumn(title, f"{head}\n{unit}", [*map(cell, values), "", cell(total)])


def time_unit(largest: float, *, ascii_only: bool) -> tuple[str, float]:
    """Choose a unit for seconds up to `largest`, and what makes them numbers of it."""
    if abs(largest) >= 10:
        return "s", 1.0
    return ("us" if ascii_only else "µs", 1e6) if abs(largest) < 1e-3 else ("ms", 1e3)


def decimals_for(largest: float, digits: int = 4) -> int:
    """Return the decimals that give the largest value so many digits."""
    before = math.floor(math.log10(largest)) + 1 if largest >= 1 and math.isfinite(largest) else 1
    return max(0, digits - before)
