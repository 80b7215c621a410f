"""A figure as PNG, which stands alone: with its title and its legend."""

from __future__ import annotations

import io

from PIL import Image

from freezeout.report.figures._drawing import drawing_style
from freezeout.report.figures._kind import FigureKind, Records
from freezeout.report.palette import PAPER, Palette

__all__ = ["WIDE", "figure_png"]

WIDE = 9.0
"""Width in inches on wide screens and in files."""

_DPI = 130
_COLOURS = 128


def figure_png(kind: FigureKind, records: Records, palette: Palette, title: str) -> bytes:
    """Draw a figure into the bytes of a PNG file.

    Args:
        kind: What to draw.
        records: Runs it can be drawn of: ``kind.missing(records)`` is ``None``.
        palette: Colours.
        title: Heading.

    Returns:
        The same bytes for the same runs with the same version of matplotlib.
    """
    drawing = kind.draw(records, palette, WIDE)
    with drawing_style():
        drawing.add_title(title)
        if arms := kind.arms(records):
            drawing.add_legend([palette[key] for key in arms])
        target = io.BytesIO()
        drawing.figure.savefig(
            target, format="png", dpi=_DPI, facecolor=PAPER.light, metadata={"Software": None}
        )
    return _fewer_colours(target)


def _fewer_colours(drawn: io.BytesIO) -> bytes:
    """The same picture in a third of the bytes, for such figures have few colours."""
    picture = Image.open(drawn).convert("RGB")
    few = picture.quantize(_COLOURS, dither=Image.Dither.NONE)
    target = io.BytesIO()
    few.save(target, format="png", optimize=True)
    return target.getvalue()
