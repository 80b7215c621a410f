"""Small pieces of HTML: tables, legends, links. Every text is escaped here."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape

from freezeout.report.arms import clean
from freezeout.report.palette import COLORS, ArmStyle
from freezeout.report.table import Cell, Column, Table, cell_text

__all__ = ["color_css", "legend_html", "prose", "table_html", "text"]

_WHOLE = 40
"""Names without spaces of up to this many characters stay on one line on wide screens, as do other
texts; longer ones are broken."""


def text(value: str) -> str:
    """A text as HTML, also fit for attributes in double quotes."""
    return escape(clean(value), quote=True)


def prose(value: str) -> str:
    """A sentence as HTML; numbers stay on the line of their percent sign."""
    return text(value).replace(" %", "\N{NO-BREAK SPACE}%")


def table_html(table: Table, link: str, *, fold: bool = False) -> str:
    """Write a table with its caption, its note and a link to its CSV file.

    Args:
        table: The table.
        link: Relative address of the CSV file.
        fold: Whether it starts folded.

    Returns:
        HTML; the table scrolls inside its own box where it is too wide.
    """
    head = "".join(
        f'<th scope="col"{_aligned(table, i)}>{text(column.title)}</th>'
        for i, column in enumerate(table.columns)
    )
    rows = "".join(
        "<tr>"
        + "".join(_cell(table, i, column, row) for i, column in enumerate(table.columns))
        + "</tr>\n"
        for row in table.rows
    )
    note = f'<p class="note">{prose(table.note)}</p>' if table.note else ""
    download = f'<a href="{text(link)}" download>CSV</a>'
    body = (
        f'<div class="scroll" role="region" tabindex="0" aria-label="{text(table.title)}"><table>\n'
        f"<thead><tr>{head}</tr></thead>\n<tbody>\n{rows}</tbody></table></div>{note}"
    )
    body += f'<p class="files">{download}</p>'
    if fold:
        rows_in_all = f"{len(table.rows)} row{'' if len(table.rows) == 1 else 's'}"
        summary = f"{text(table.title)} ({rows_in_all})"
        return f'<details class="table"><summary>{summary}</summary>{body}</details>'
    return f'<div class="table"><h3>{text(table.title)}</h3>{body}</div>'


def _cell(table: Table, place: int, column: Column, row: Sequence[Cell]) -> str:
    shown = text(cell_text(column, row[place]))
    if place == 0:
        name = str(row[place])
        whole = ' class="whole"' if " " not in name and len(name) <= _WHOLE else ""
        return f'<th scope="row"{_aligned(table, place) or whole}>{shown}</th>'
    long = ' class="long"' if isinstance(row[place], str) and len(shown) > _WHOLE else ""
    return f"<td{_aligned(table, place) or long}>{shown}</td>"


def _aligned(table: Table, place: int) -> str:
    values = [row[place] for row in table.rows if row[place] is not None]
    numeric = values and all(
        isinstance(value, (int, float, tuple)) and not isinstance(value, bool) for value in values
    )
    return ' class="number"' if numeric else ""


def legend_html(styles: Sequence[ArmStyle]) -> str:
    """Write the legend of a section: one button per arm, which a script brings to life."""
    buttons = "".join(
        f'<li><button type="button" data-arm="{style.id}" aria-pressed="true" disabled>'
        f"{_swatch(style)}<span>{text(style.label)}</span></button></li>"
        for style in styles
    )
    return (
        '<nav class="legend" aria-label="Legend: show or hide arms"><ul>'
        f'{buttons}<li><button type="button" class="all" hidden>show all</button></li></ul></nav>'
    )


_SHAPES = {
    "o": "M-4 0a4 4 0 1 0 8 0a4 4 0 1 0-8 0z",
    "^": "M0-4.5L4.5 4H-4.5z",
    "v": "M0 4.5L4.5-4H-4.5z",
    "<": "M-4.5 0L4-4.5V4.5z",
    ">": "M4.5 0L-4-4.5V4.5z",
    "s": "M-3.7-3.7H3.7V3.7H-3.7z",
    "D": "M0-5L5 0L0 5L-5 0z",
    "P": "M-1.7-5H1.7V-1.7H5V1.7H1.7V5H-1.7V1.7H-5V-1.7H-1.7z",
    "X": "M-2.5-5L0-2.5L2.5-5L5-2.5L2.5 0L5 2.5L2.5 5L0 2.5L-2.5 5L-5 2.5L-2.5 0L-5-2.5z",
}


def _regular(corners: int, inner: float) -> str:
    """A regular shape; with an `inner` radius below 1 a star."""
    points = []
    for i in range(2 * corners):
        radius = 5.2 if i % 2 == 0 else 5.2 * inner
        angle = math.pi * i / corners
        points.append(f"{radius * math.sin(angle):.1f} {-radius * math.cos(angle):.1f}")
    return "M" + "L".join(points) + "z"


_SHAPES["p"] = _regular(5, math.cos(math.pi / 5))
_SHAPES["h"] = _regular(6, math.cos(math.pi / 6))
_SHAPES["*"] = _regular(5, 0.4)


def _swatch(style: ArmStyle) -> str:
    color = f"var(--{style.color.name})"
    dash = (
        f' stroke-dasharray="{" ".join(f"{1.3 * d:g}" for d in style.dash)}"' if style.dash else ""
    )
    fill = color if style.filled else "var(--paper)"
    return (
        '<svg class="swatch" viewBox="-14 -7 28 14" aria-hidden="true">'
        f'<path d="M-13 0H13" style="stroke:{color};stroke-width:1.8"{dash}/>'
        f'<path d="{_SHAPES[style.marker]}" style="fill:{fill};stroke:{color};stroke-width:1.3"/>'
        "</svg>"
    )


def color_css() -> str:
    """The palette as custom properties, for both colour schemes; paper is white in print."""
    light = ";".join(f"--{color.name}:{color.light}" for color in COLORS)
    dark = ";".join(f"--{color.name}:{color.dark}" for color in COLORS)
    return f":root{{{light}}}\n@media screen and (prefers-color-scheme: dark){{:root{{{dark}}}}}\n"
