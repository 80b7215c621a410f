"""A figure: described once, drawn into a PNG, PDF or SVG file or onto a page."""

from __future__ import annotations

import io
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar, Literal, TypeAlias, get_args

from PIL import Image

from freezeout.lab.evidence import RunRecord
from freezeout.lab.report.figures.drawing import NARROW, WIDE, Drawing, drawing_style
from freezeout.lab.report.figures.svg import page_svg, svg_file
from freezeout.lab.report.grouping import ArmKey
from freezeout.lab.report.palette import PAPER, Palette, Style
from freezeout.lab.report.table import Cell, Column, Table
from freezeout.storage import write_atomically

__all__ = ["Figure", "FileKind", "RunsFigure"]

FileKind: TypeAlias = Literal["png", "pdf", "svg"]

_DPI = 130
_COLOURS = 128
_METADATA: dict[FileKind, dict[str, None]] = {  # neither a date nor a version in the file
    "png": {"Software": None},
    "pdf": {"CreationDate": None, "Creator": None, "Producer": None},
}


class Figure(ABC):
    """Something to show, bound to what it shows.

    Attributes:
        id: Short name, for file names.
        title: Heading.
        heights: Height in inches, on a wide screen and on a phone.
        columns: Columns of the table behind it.
    """

    id: ClassVar[str]
    title: ClassVar[str]
    heights: ClassVar[tuple[float, float]]
    columns: ClassVar[tuple[Column, ...]]

    @property
    def missing(self) -> str | None:
        """Why it cannot be drawn, in one line; ``None`` if it can."""
        return None

    @property
    def legend(self) -> Sequence[Style]:
        """What its legend names; the marks that belong to an entry can be hidden on a page."""
        return ()

    @abstractmethod
    def caption(self) -> str:
        """Say what is seen and how to read it, as plain sentences."""

    @abstractmethod
    def rows(self) -> Sequence[tuple[Cell, ...]]:
        """Return the drawn numbers, one value per column."""

    @abstractmethod
    def fill(self, drawing: Drawing) -> None:
        """Draw it, laid out for ``drawing.narrow``."""

    def size(self, *, narrow: bool) -> tuple[float, float]:
        """Return width and height in inches, on a wide screen or on a phone."""
        return (NARROW, self.heights[1]) if narrow else (WIDE, self.heights[0])

    def table(self) -> Table:
        """Return the table behind it."""
        return Table(self.id, self.title, self.columns, tuple(self.rows()))

    def draw(self, *, narrow: bool = False) -> Drawing:
        """Draw it.

        Raises:
            ValueError: If something is `missing`.
        """
        if self.missing is not None:
            raise ValueError(f"figure {self.id!r} cannot be drawn: {self.missing} Check `missing`.")
        with drawing_style():
            drawing = Drawing(*self.size(narrow=narrow), narrow=narrow)
            self.fill(drawing)
        return drawing

    def on_page(self, prefix: str, label: str, *, narrow: bool = False) -> str:
        """Draw it as an ``<svg>`` element of a page.

        Args:
            prefix: Put before every id; unique within the page.
            label: What the figure shows, for those who do not see it.
            narrow: Whether for a phone.

        Returns:
            HTML without references to anything outside; the same figure gives the same text.
        """
        return page_svg(self.draw(narrow=narrow), prefix, label)

    def render(self, kind: FileKind, title: str = "") -> bytes:
        """Draw it as a file that stands alone: with its title and its legend.

        Args:
            kind: Kind of file.
            title: Heading; by default that of the figure.

        Returns:
            The same bytes for the same figure with the same version of matplotlib.
        """
        drawing = self.draw()
        with drawing_style():
            drawing.add_title(title or self.title)
            if self.legend:
                drawing.add_legend(self.legend)
            if kind == "svg":
                return svg_file(drawing, title or self.title).encode()
            drawing.place_labels()
            target = io.BytesIO()
            drawing.figure.savefig(
                target, format=kind, dpi=_DPI, facecolor=PAPER.light, metadata=_METADATA[kind]
            )
        return _fewer_colours(target) if kind == "png" else target.getvalue()

    def save(self, path: Path, title: str = "") -> None:
        """Write it into a file that is complete or not there.

        Args:
            path: Where to write, ending in ``.png``, ``.pdf`` or ``.svg``; its folder must exist.
            title: Heading; by default that of the figure.

        Raises:
            ValueError: If the suffix is another.
            RunError: If the disk does not take it; an older file is left as it was.
        """
        kinds = {f".{kind}": kind for kind in get_args(FileKind)}
        kind = kinds.get(path.suffix.lower())
        if kind is None:
            raise ValueError(
                f"path must end in {', '.join(kinds)}, got {path.name!r}. Choose another name."
            )
        content = self.render(kind, title)
        write_atomically(path, lambda file: file.write(content))


class RunsFigure(Figure):
    """A figure of many runs.

    Args:
        records: The runs.
        palette: The style of every arm of the report; by default made for these runs.
    """

    def __init__(self, records: Sequence[RunRecord], palette: Palette | None = None) -> None:
        self.records = records
        self.palette = palette or Palette(records)

    @property
    def arms(self) -> Sequence[ArmKey]:
        """Arms that its legend names."""
        return ()

    @property
    def legend(self) -> Sequence[Style]:
        """The style of each of its arms."""
        return [self.palette[key] for key in self.arms]


def _fewer_colours(drawn: io.BytesIO) -> bytes:
    """Return the same picture in a third of the bytes, for such figures have few colours."""
    few = Image.open(drawn).convert("RGB").quantize(_COLOURS, dither=Image.Dither.NONE)
    target = io.BytesIO()
    few.save(target, format="png", optimize=True)
    return target.getvalue()
