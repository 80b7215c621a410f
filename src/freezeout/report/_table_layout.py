"""How a table of one line per row is laid out: columns that fit a width, bars, numbers with units.

What the rows are about is not known here: columns come with their text.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from rich.cells import cell_len, set_cell_size
from rich.console import Console, ConsoleOptions, RenderableType
from rich.text import Text

from freezeout.durations import format_seconds
from freezeout.report._text import tail

__all__ = [
    "Column",
    "bar_texts",
    "byte_unit",
    "bytes_text",
    "check_width",
    "counted_column",
    "decimals_for",
    "equal_decimals",
    "fit_columns",
    "fitted_name",
    "fixed",
    "flops_unit",
    "folded",
    "has_blocks",
    "left_out_note",
    "percent_text",
    "print_tables",
    "short_seconds",
    "table_lines",
    "time_unit",
    "total_width",
]

_EIGHTHS = " ▏▎▍▌▋▊▉█"
_MIN_WIDTH = 40


def print_tables(tables: Sequence[RenderableType], console: Console) -> None:
    for position, table in enumerate(tables):
        if position:
            console.print()
        console.print(table)


def folded(text: Text, width: int, console: Console) -> Text:
    lines = text.wrap(console, width)
    for line in lines:
        line.rstrip()
    return Text("\n").join(lines)


def check_width(width: int | None) -> None:
    if width is not None and width < _MIN_WIDTH:
        raise ValueError(f"width must be at least {_MIN_WIDTH} columns, got {width}. Try 80.")


# --- Columns ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Column:
    """A column of ready text; `title` names it where there was no room for it."""

    title: str
    header: tuple[str, ...]
    cells: tuple[str, ...]
    align: Literal["left", "right"] = "right"
    style: str = ""

    @property
    def width(self) -> int:
        return max(cell_len(text) for text in (*self.header, *self.cells))


def total_width(widths: Sequence[int], gap: int) -> int:
    return sum(widths) + gap * (len(widths) - 1)


def fit_columns(
    columns: Sequence[Column], width: int, spare: Sequence[str], beside: Mapping[int, int]
) -> tuple[list[Column], int, list[str]]:
    """Choose columns and the gap between them so that a line fits.

    Args:
        columns: All columns in order.
        width: Room in terminal columns.
        spare: Titles of columns that may be left out, first to go first.
        beside: Gaps to try, best first, with the room that is taken beside these columns.

    Returns:
        The columns that stay, the gap, the titles left out.
    """
    kept = list(columns)
    left_out: list[str] = []
    for title in (*spare, None):
        for gap, taken in beside.items():
            if total_width([column.width for column in kept], gap) + taken <= width:
                return kept, gap, left_out
        if title is not None:
            kept = [column for column in kept if column.title != title]
            left_out.append(title)
    return kept, min(beside), left_out


def table_lines(
    columns: Sequence[Column], gap: int, rule: str, rules_before: Sequence[int]
) -> Iterator[Text]:
    """Header, rule, and one line per row; a rule before each row (or the end) of `rules_before`."""
    depth = max(len(column.header) for column in columns)
    widths = [column.width for column in columns]
    thin = Text(rule * total_width(widths, gap), style="dim")
    for level in range(depth):
        line = Text()
        for column, width in zip(columns, widths, strict=True):
            texts = ("",) * (depth - len(column.header)) + column.header
            _append(line, texts[level], width, column.align, "bold", gap)
        yield _clipped(line)
    yield _clipped(thin)
    rows = len(columns[0].cells)
    for row in range(rows + 1):
        if row in rules_before:
            yield _clipped(thin)
        if row == rows:
            return
        line = Text()
        for column, width in zip(columns, widths, strict=True):
            _append(line, column.cells[row], width, column.align, column.style, gap)
        yield _clipped(line)


def _append(line: Text, text: str, width: int, align: str, style: str, gap: int) -> None:
    blanks = " " * (width - cell_len(text))
    line.append(" " * gap if line.plain else "")
    line.append(blanks + text if align == "right" else text + blanks, style=style)


def _clipped(line: Text) -> Text:
    line.no_wrap, line.overflow = True, "crop"
    line.rstrip()
    return line


def left_out_note(titles: Sequence[str]) -> Iterator[Text]:
    if titles:
        yield Text(f"No room at this width for: {', '.join(titles)}.", style="dim")


def counted_column(
    title: str,
    head: str,
    values: Sequence[int],
    total: int,
    unit_of: Callable[[float], tuple[str, float]],
) -> Column:
    """A column of counts in one unit; what is too small to show is said to be smaller."""
    unit, scale = unit_of(max(*values, total))
    decimals = 0 if scale == 1 else decimals_for(max(values) * scale, digits=3)

    def cell(value: int) -> str:
        text = fixed(value * scale, decimals)
        return f"<{10.0**-decimals:.{decimals}f}" if value > 0 and float(text) == 0 else text

    return Column(title, (head, unit), (*(cell(value) for value in values), "", cell(total)))


# --- Names and bars -----------------------------------------------------------------------------


def bar_texts(shares: Sequence[float], room: int, *, blocks: bool) -> list[str]:
    """One bar per share; the largest fills the room, and what is not above 0 has none."""
    largest = max((share for share in shares if math.isfinite(share)), default=0.0)
    lengths = [
        room * share / largest if math.isfinite(share) and share > 0 else 0.0 for share in shares
    ]
    if not blocks:
        return ["#" * round(length) for length in lengths]
    eighths = [round(8 * length) for length in lengths]
    return ["█" * (n // 8) + _EIGHTHS[n % 8].strip() for n in eighths]


def has_blocks(options: ConsoleOptions) -> bool:
    if options.legacy_windows:
        return False
    try:
        (_EIGHTHS + "─…µ").encode(options.encoding)
    except (UnicodeEncodeError, LookupError):
        return False
    return True


def fitted_name(name: str, room: int, *, ascii_only: bool) -> str:
    """The end of a name in so many terminal columns, also where characters are wide."""
    if room < 4:
        return set_cell_size(name, room)
    for characters in range(room, 0, -1):
        text = tail(name, characters, ascii_only=ascii_only)
        if cell_len(text) <= room:
            return text
    return ""


# --- Numbers ------------------------------------------------------------------------------------


def fixed(value: float, decimals: int) -> str:
    text = f"{value:.{decimals}f}"
    return text.removeprefix("-") if float(text) == 0 else text


def percent_text(fraction: float) -> str:
    return f"{fixed(100 * fraction, 1)} %"


def decimals_for(largest: float, digits: int = 4) -> int:
    """Decimals that give the largest value so many digits."""
    before = math.floor(math.log10(largest)) + 1 if largest >= 1 and math.isfinite(largest) else 1
    return max(0, digits - before)


def time_unit(largest: float, *, ascii_only: bool) -> tuple[str, float]:
    """Unit and units per second."""
    size = abs(largest)
    if size >= 10:
        return "s", 1.0
    return ("us" if ascii_only else "µs", 1e6) if size < 1e-3 else ("ms", 1e3)


def byte_unit(largest: float) -> tuple[str, float]:
    """Unit and units per byte."""
    for power, unit in ((4, "TiB"), (3, "GiB"), (2, "MiB"), (1, "KiB")):
        if largest >= 1024**power:
            return unit, 1.0 / 1024**power
    return "B", 1.0


def flops_unit(largest: float) -> tuple[str, float]:
    for power, unit in ((15, "peta"), (12, "tera"), (9, "giga"), (6, "mega"), (3, "kilo")):
        if largest >= 10**power:
            return unit, 1.0 / 10**power
    return "", 1.0


def bytes_text(number: int) -> str:
    unit, scale = byte_unit(number)
    value = number * scale
    return f"{value:.0f} {unit}" if scale == 1 or value >= 99.95 else f"{value:.1f} {unit}"


def short_seconds(seconds: float) -> str:
    """A duration of any size; short ones in milliseconds."""
    if not math.isfinite(seconds) or abs(seconds) >= 9.995:
        return format_seconds(seconds)
    if abs(seconds) >= 0.9995:
        return f"{seconds:.2f} s"
    return f"{fixed(1e3 * seconds, max(1, decimals_for(1e3 * abs(seconds), 3)))} ms"


def equal_decimals(values: Sequence[float | None]) -> tuple[str, ...]:
    """Equally many decimals for all, as few as they need, at most four."""
    known = [f"{value:.4f}".rstrip("0") for value in values if value is not None]
    decimals = max((len(text.partition(".")[2]) for text in known), default=0)
    return tuple("-" if value is None else f"{value:.{decimals}f}" for value in values)
