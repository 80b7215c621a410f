"""A drawing with notes on its parts, and what all figures look like."""

from __future__ import annotations

import textwrap
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal

import matplotlib.style
import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.text import Annotation, Text
from matplotlib.ticker import FuncFormatter, MaxNLocator
from numpy.typing import NDArray

from freezeout.lab.report.grouping import shorten
from freezeout.lab.report.palette import GRID, INK, PAPER, SOFT, Color, Style

__all__ = ["NARROW", "WIDE", "Drawing", "Mark", "drawing_style", "dress", "number"]


WIDE, NARROW = 9.0, 3.8
"""Widths of figures in inches, on wide screens and in files, and on phones."""


@dataclass(frozen=True)
class Mark:
    """What the page knows of an artist.

    Attributes:
        arms: Ids of the styles it belongs to; it is hidden with any of them.
        text: What it shows, in lines; empty if there is nothing to say.
    """

    arms: tuple[str, ...]
    text: str


class Drawing:
    """A matplotlib figure and the notes on its artists.

    Args:
        width: Width in inches.
        height: Height in inches.
        narrow: Whether it is drawn for a phone.

    Attributes:
        figure: The matplotlib figure.
        marks: Notes by the group id (``gid``) of their artist.
    """

    def __init__(self, width: float, height: float, *, narrow: bool = False) -> None:
        self.figure = Figure(figsize=(width, height), layout="constrained")
        self.marks: dict[str, Mark] = {}
        self.narrow = narrow
        self._labels: list[tuple[Axes, Annotation]] = []

    def mark(self, artist: Artist, *styles: Style, text: str = "") -> None:
        """Note to which styles an artist belongs, and what it shows."""
        gid = f"mark-{len(self.marks)}"
        artist.set_gid(gid)
        self.marks[gid] = Mark(tuple(dict.fromkeys(style.id for style in styles)), text)

    def point(
        self,
        axes: Axes,
        style: Style,
        x: float,
        y: float,
        text: str,
        *,
        size: float = 7.0,
        alpha: float = 1.0,
    ) -> None:
        """Draw one point."""
        (point,) = axes.plot(
            [x],
            [y],
            ls="none",
            marker=style.marker,
            ms=size * (1.25 if style.marker in "*pPX^v<>" else 1.0),
            mfc=style.color.light if style.filled else PAPER.light,
            mec=PAPER.light if style.filled else style.color.light,
            mew=0.7 if style.filled else 1.5,
            alpha=alpha,
            zorder=6 if alpha == 1 else 4,
        )
        self.mark(point, style, text=text)

    def line(
        self,
        axes: Axes,
        xs: Sequence[float],
        ys: Sequence[float],
        *styles: Style,
        text: str = "",
        color: Color | None = None,
        dash: Sequence[float] | None = None,
        width: float = 1.4,
        zorder: float = 5.0,
        **how: Any,
    ) -> None:
        """Draw a line; the first of `styles` says its colour and dash where they are not given."""
        color = color or styles[0].color
        dash = styles[0].dash if dash is None and styles else dash
        (line,) = axes.plot(
            xs, ys, color=color.light, lw=width, zorder=zorder, solid_capstyle="round", **how
        )
        if dash:
            line.set_dashes(dash)
        self.mark(line, *styles, text=text)

    def note(
        self,
        axes: Axes,
        at: tuple[float, float],
        text: str,
        shift: tuple[float, float],
        *styles: Style,
        color: Color = INK,
        **how: Any,
    ) -> None:
        """Write beside a point, on the side to which `shift` points, so many points away."""
        right, up = shift
        note = axes.annotate(
            text,
            at,
            xytext=shift,
            textcoords="offset points",
            ha="left" if right > 0 else "right",
            va="bottom" if up > 0 else "top",
            fontsize=8.5,
            color=color.light,
            zorder=7,
            **how,
        )
        if styles:
            self.mark(note, *styles)

    def label(
        self, axes: Axes, at: tuple[float, float], text: str, *, color: Color = INK
    ) -> Annotation:
        """Name a point beside it; `place_labels` finds the place."""
        note = axes.annotate(
            textwrap.fill(shorten(text, 90), 30),
            at,
            xytext=(0, 0),
            textcoords="offset points",
            ha="center",
            va="center",
            fontsize=10,
            fontweight="bold",
            color=color.light,
            zorder=7,
            bbox={"facecolor": PAPER.light, "edgecolor": "none", "alpha": 0.85, "pad": 1.0},
        )
        note.set_in_layout(False)
        self._labels.append((axes, note))
        return note

    def place_labels(self) -> None:
        """Move every label to where it hides the least and stays inside its panel.

        To be called last, for only then are the places of all else known.
        """
        if self._labels:
            self.figure.draw_without_rendering()
        for axes, note in self._labels:
            right, up = _free_shift(axes, note) * 72 / self.figure.dpi
            note.set_position((right, up))

    def add_title(self, title: str) -> None:
        """Head the figure, for where no page does."""
        self.figure.suptitle(
            textwrap.fill(shorten(title, 200), 100), fontsize=10.5, color=INK.light
        )

    def add_legend(self, styles: Sequence[Style]) -> None:
        """Name the styles below the figure, for where no page does."""
        entries = [
            Line2D(
                [],
                [],
                color=style.color.light,
                lw=1.4,
                ls=(0, style.dash) if style.dash else "-",
                marker=style.marker,
                mfc=style.color.light if style.filled else PAPER.light,
                mec=style.color.light,
                ms=6,
                label=shorten(style.label, 44),
            )
            for style in styles
        ]
        widest = max(len(str(entry.get_label())) for entry in entries)
        width, height = self.figure.get_size_inches()
        columns = max(1, min(len(entries), int(13 * width / (widest + 9))))
        rows = -(-len(entries) // columns)
        self.figure.legend(
            handles=entries,
            loc="outside lower center",
            ncols=columns,
            frameon=False,
            fontsize=8.5,
            handlelength=2.6,
            labelcolor=INK.light,
        )
        self.figure.set_size_inches(width, height + 0.2 * rows)


def _free_shift(axes: Axes, note: Annotation) -> NDArray[np.float64]:
    """Return how far to move a label from its point, in pixels, so that it hides the least."""
    text = Text.get_window_extent(note)
    half = np.asarray([text.width, text.height]) / 2 + 6
    panel, point = axes.get_window_extent(), axes.transData.transform(note.xy)
    taken = _taken(axes)

    def cost(shift: NDArray[np.float64]) -> tuple[float, float]:
        low, high = point + shift - half, point + shift + half
        outside = np.maximum(0, (panel.min - low, high - panel.max)).sum()
        hidden = ((taken > low) & (taken < high)).all(axis=1).sum()
        return float(hidden + 1000 * outside), float(np.hypot(*shift))

    ways = [np.asarray((a, b)) for a in (-1, 0, 1) for b in (-1, 0, 1) if (a, b) != (0, 0)]
    return min((way * (half + 6 * ring) for ring in range(30) for way in ways), key=cost)


def _taken(axes: Axes) -> NDArray[np.float64]:
    """Return points in pixels, close together, on every line and in the legend of a panel."""
    pieces = [np.empty((0, 2))]
    for line in axes.lines:
        if line.get_zorder() < 2:  # a hairline behind the rest
            continue
        pixels = line.get_transform().transform(np.asarray(line.get_xydata(), float))
        pieces.append(pixels)
        pieces += [np.linspace(a, b, 60) for a, b in pairwise(pixels)]
    legend = axes.get_legend()
    if legend is not None:
        box = legend.get_window_extent()
        grid = np.meshgrid(np.linspace(box.x0, box.x1, 40), np.linspace(box.y0, box.y1, 12))
        pieces.append(np.stack(grid, axis=-1).reshape(-1, 2))
    return np.concatenate(pieces)


def dress(axes: Axes, *, grid: Literal["x", "y", "both"] = "y") -> None:
    """Give axes their frame, ticks and grid."""
    axes.set_facecolor("none")
    axes.spines[["top", "right"]].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color(SOFT.light)
        axes.spines[side].set_linewidth(0.8)
    axes.tick_params(color=SOFT.light, labelcolor=INK.light, width=0.8, length=3)
    for text in (axes.xaxis.label, axes.yaxis.label, axes.title):
        text.set_color(INK.light)
    axes.grid(axis=grid, color=GRID.light, lw=0.7)
    axes.set_axisbelow(True)
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(MaxNLocator(nbins=6, steps=[1, 2, 2.5, 5, 10]))
        axis.set_major_formatter(FuncFormatter(lambda value, _: number(value)))


def number(value: float, digits: int = 6) -> str:
    """Write a number with thousands separated, a true minus sign and no zeros at its end."""
    text = f"{value + 0.0:,.{digits}g}" if abs(value) < 10**digits else f"{value:,.0f}"
    return text.replace("-", "−")


@contextmanager
def drawing_style() -> Iterator[None]:
    """Draw alike whatever the reader's own matplotlib settings are."""
    settings = {
        "svg.fonttype": "none",
        "svg.hashsalt": "freezeout",
        "pdf.fonttype": 42,  # text stays text
        "path.simplify": True,
        "path.simplify_threshold": 0.5,
        "text.parse_math": False,
        "font.size": 9.0,
        "axes.labelsize": 9.0,
        "axes.titlesize": 9.5,
        "axes.formatter.use_mathtext": False,
        "lines.dash_joinstyle": "round",
    }
    with warnings.catch_warnings(), matplotlib.style.context(["default", settings]):
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        warnings.filterwarnings("ignore", message="constrained_layout not applied")
        yield
