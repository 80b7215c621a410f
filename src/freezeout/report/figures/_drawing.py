"""A figure with notes on its parts, and what all figures of a report look like."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

import matplotlib.style
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, MaxNLocator

from freezeout.report.arms import shorten
from freezeout.report.palette import GRID, INK, PAPER, SOFT, ArmStyle

__all__ = ["Drawing", "Mark", "drawing_style", "number"]

NARROW = 6.0
"""Figures below this many inches are drawn for a phone."""


@dataclass(frozen=True)
class Mark:
    """What the page knows of an artist.

    Attributes:
        arms: Ids of the arms it belongs to; it is hidden with any of them.
        text: What it shows, in lines; empty if there is nothing to say.
    """

    arms: tuple[str, ...]
    text: str


class Drawing:
    """A figure and the notes on its artists.

    Args:
        width: Width in inches.
        height: Height in inches.

    Attributes:
        figure: The figure.
        marks: Notes by the group id (``gid``) of their artist.
        narrow: Whether it is drawn for a phone.
    """

    def __init__(self, width: float, height: float) -> None:
        self.figure = Figure(figsize=(width, height), layout="constrained")
        self.marks: dict[str, Mark] = {}
        self.narrow = width < NARROW

    def mark(self, artist: Artist, *arms: ArmStyle, text: str = "") -> None:
        """Note to which arms an artist belongs, and what it shows."""
        gid = f"mark-{len(self.marks)}"
        artist.set_gid(gid)
        self.marks[gid] = Mark(tuple(dict.fromkeys(arm.id for arm in arms)), text)

    def points(
        self,
        axes: Axes,
        style: ArmStyle,
        x: float,
        y: float,
        text: str,
        *,
        size: float = 7.0,
        alpha: float = 1.0,
    ) -> None:
        """Draw one point of an arm."""
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
        *styles: ArmStyle,
        text: str = "",
        width: float = 1.4,
        alpha: float = 1.0,
        zorder: float = 5.0,
    ) -> None:
        """Draw a line of an arm (the first of `styles` says how it looks)."""
        (line,) = axes.plot(
            xs,
            ys,
            color=styles[0].color.light,
            lw=width,
            alpha=alpha,
            zorder=zorder,
            solid_capstyle="round",
        )
        if styles[0].dash:
            line.set_dashes(styles[0].dash)
        self.mark(line, *styles, text=text)

    def bar(
        self,
        axes: Axes,
        xs: tuple[float, float],
        ys: tuple[float, float],
        style: ArmStyle,
        *,
        width: float = 1.3,
        alpha: float = 1.0,
    ) -> None:
        """Draw an interval: a line from one end to the other."""
        (line,) = axes.plot(xs, ys, color=style.color.light, lw=width, alpha=alpha, zorder=5)
        self.mark(line, style)

    def add_title(self, title: str) -> None:
        """Head the figure, for where no page does."""
        self.figure.suptitle(shorten(title, 100), fontsize=10.5, color=INK.light)

    def add_legend(self, styles: Sequence[ArmStyle]) -> None:
        """Name the arms below the figure, for where no page does."""
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


def dress(axes: Axes, *, grid: Literal["x", "y", "both"] = "y") -> None:
    """Give axes their frame, ticks and grid."""
    axes.set_facecolor("none")
    axes.spines[["top", "right"]].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color(SOFT.light)
        axes.spines[side].set_linewidth(0.8)
    axes.tick_params(color=SOFT.light, labelcolor=INK.light, width=0.8, length=3)
    axes.xaxis.label.set_color(INK.light)
    axes.yaxis.label.set_color(INK.light)
    axes.title.set_color(INK.light)
    axes.grid(axis=grid, color=GRID.light, lw=0.7)
    axes.set_axisbelow(True)
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(MaxNLocator(nbins=6, steps=[1, 2, 2.5, 5, 10]))
        axis.set_major_formatter(FuncFormatter(lambda value, _: number(value)))


def number(value: float, digits: int = 6) -> str:
    """A number with thousands separated, a true minus sign and no zeros at its end."""
    text = f"{value + 0.0:,.{digits}g}" if abs(value) < 10**digits else f"{value:,.0f}"
    return text.replace("-", "−")


@contextmanager
def drawing_style() -> Iterator[None]:
    """Draws alike whatever the reader's own matplotlib settings are."""
    settings = {
        "svg.fonttype": "none",
        "svg.hashsalt": "freezeout",
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
