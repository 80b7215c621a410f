"""The picture of a plan: predicted saving against `t0`, and what the paper would have expected.

Two panels share their axes, so that the same schedule stands at the same place in both: on the left
the prediction from costs measured on this machine, on the right the paper's own estimate (Brock et
al., "FreezeOut", 2017, arXiv:1706.04983), which counts operations and takes the backward pass to be
as cheap as the forward pass.
"""

from __future__ import annotations

import math
import os
import textwrap
import warnings
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.text import Text
from matplotlib.ticker import FuncFormatter, MaxNLocator
from numpy.typing import NDArray

from freezeout.report._save import save_figure
from freezeout.report._step_panel import ACCENT, FAINT, INK

__all__ = ["build_savings_figure", "draw_savings"]

# Okabe and Ito's colours, told apart also without red or green; marks tell them apart in grey.
_STYLES = {
    "linear": ("#0072B2", "o"),
    "squared": ("#D98A00", "s"),
    "cubic": ("#009E73", "^"),
}
_FURTHER = (("#CC79A7", "v"), ("#56B4E9", "P"), ("#7A6A00", "X"))
_DPI = 110
_SIZE = (1200, 600)  # pixels
_FEW_POINTS = 25  # with more, marks would hide the line

Curve = Sequence[tuple[float, float, "float | None", "float | None"]]


def draw_savings(
    path: str | os.PathLike[str],
    *,
    curves: Mapping[str, Curve],
    paper: Mapping[str, Sequence[tuple[float, float]]],
    budget: Sequence[tuple[float, float]] | None = None,
    title: str,
    chosen: tuple[float, float, str] | None = None,
) -> None:
    """Draw predicted savings into a file of 1200 by 600 pixels.

    The file is complete or not there: it is written beside its place and moved. The same arguments
    give the same bytes with the same version of matplotlib.

    Args:
        path: Where to write, ending in ``.png``; its folder must exist.
        curves: See `build_savings_figure`, as for all that follow.
        paper: The paper's estimates.
        budget: Schedules made for a wanted saving.
        title: Heading.
        chosen: The point to mark.

    Raises:
        ValueError: If the suffix is another, or the arguments do not fit together.
        OSError: If the file cannot be written; an older one is then left as it was.
    """
    save_figure(
        Path(path),
        ("png",),
        lambda: build_savings_figure(
            curves=curves, paper=paper, budget=budget, title=title, chosen=chosen
        ),
    )


def build_savings_figure(
    *,
    curves: Mapping[str, Curve],
    paper: Mapping[str, Sequence[tuple[float, float]]],
    budget: Sequence[tuple[float, float]] | None = None,
    title: str,
    chosen: tuple[float, float, str] | None = None,
) -> Figure:
    """Build the picture of predicted savings.

    Args:
        curves: For each spacing its points by rising `t0`: `t0`, predicted saving, lower and upper
            end of its interval. Savings are fractions; an interval may be ``None``.
        paper: For each spacing `t0` and the paper's own estimate of the saving; may be empty.
        budget: Freeze time of the first layer (not `t0`) and predicted saving of schedules made
            for a wanted saving, or ``None``.
        title: Heading; long ones are wrapped.
        chosen: `t0` (or the freeze time of the first layer), saving and name of a point to mark.

    Returns:
        A figure whose first two axes are this machine's savings and the paper's, in percent.

    Raises:
        ValueError: If there is no point to draw, or `t0` does not rise along a curve.
    """
    _check(curves, paper)
    size = (_SIZE[0] / _DPI, _SIZE[1] / _DPI)
    figure = Figure(figsize=size, dpi=_DPI, layout="constrained", facecolor="white")
    here, there = figure.subplots(1, 2, sharex=True, sharey=True)
    styles = _styles([*curves, *paper])
    for spacing, points in curves.items():
        _draw_curve(here, spacing, points, styles[spacing])
    for spacing, estimates in paper.items():
        _draw_line(there, spacing, estimates, styles[spacing])
    if budget:
        _draw_budget(here, budget)
    if chosen is not None:
        x, saving, _ = chosen
        here.plot(
            [x],
            [100 * saving],
            ls="none",
            marker="o",
            ms=13,
            mfc="none",
            mec=ACCENT,
            mew=2.0,
            zorder=6,
            label="_chosen",
        )
    if not any(paper.values()):
        there.text(0.5, 0.5, "no estimate", ha="center", va="center", transform=there.transAxes)
    here.set_title("this machine (measured costs)", fontsize=11, color=INK)
    there.set_title("the paper's estimate (FLOPs, backward = forward)", fontsize=11, color=INK)
    _draw_axes(here, there)
    _draw_legend(figure, here, there, shaded=_shaded(curves))
    heading = textwrap.shorten(title, 240, placeholder=" …")
    figure.suptitle(textwrap.fill(heading, 96), fontsize=12, color=INK, parse_math=False)
    if chosen is not None:
        _draw_name(figure, here, chosen)
    return figure


def _draw_curve(axes: Axes, spacing: str, points: Curve, style: tuple[str, str]) -> None:
    """Draw a curve, and its intervals as a band where they are known."""
    _draw_line(axes, spacing, [(t0, saving) for t0, saving, _, _ in points], style)
    ends = [(t0, low, high) for t0, _, low, high in points]
    if any(low is not None and high is not None for _, low, high in ends):
        low, high = (
            100 * np.asarray([math.nan if end[side] is None else end[side] for end in ends], float)
            for side in (1, 2)
        )
        axes.fill_between(
            [t0 for t0, _, _ in ends],
            low,
            high,
            color=style[0],
            alpha=0.18,
            lw=0,
            zorder=2,
            label=f"_interval {spacing}",
        )


def _draw_line(
    axes: Axes, spacing: str, points: Sequence[tuple[float, float]], style: tuple[str, str]
) -> None:
    color, marker = style
    axes.plot(
        [x for x, _ in points],
        [100 * saving for _, saving in points],
        color=color,
        lw=2.0,
        marker=marker if len(points) <= _FEW_POINTS else None,
        ms=5.5,
        mec="white",
        mew=0.6,
        zorder=4,
        label=spacing,
    )


def _draw_budget(axes: Axes, budget: Sequence[tuple[float, float]]) -> None:
    points = sorted(budget, key=lambda point: point[1])  # several may freeze at the earliest time
    axes.plot(
        [x for x, _ in points],
        [100 * saving for _, saving in points],
        color=INK,
        lw=1.4,
        ls=(0, (4, 2)),
        marker="D",
        ms=5.0,
        mfc="white",
        mec=INK,
        zorder=3,
        label="made for a budget (across: freeze time of the first layer, not t0)",
    )


def _draw_axes(here: Axes, there: Axes) -> None:
    for axes in (here, there):
        axes.set_xlabel("t0 (first layer's freeze time before spacing)", fontsize=11, color=INK)
        axes.spines[["top", "right"]].set_visible(False)
        axes.tick_params(labelsize=10, colors=INK)
        axes.grid(axis="y", color=FAINT, alpha=0.25, lw=0.7)
        axes.axhline(0.0, color=FAINT, lw=1.0, zorder=1, label="_none saved")
        axes.set_axisbelow(True)
    here.set_ylabel("predicted saving (%)", fontsize=11, color=INK)
    here.yaxis.set_major_locator(MaxNLocator(nbins=8, steps=[1, 2, 5, 10]))
    here.yaxis.set_major_formatter(FuncFormatter(lambda y, _: f"{y:g}".replace("-", "−")))
    here.margins(x=0.04, y=0.07)
    there.margins(x=0.04, y=0.07)
    there.tick_params(labelleft=True)


def _draw_legend(figure: Figure, here: Axes, there: Axes, *, shaded: bool) -> None:
    """Draw one legend for both panels below them, where it covers nothing."""
    entries: dict[str, Artist] = {}
    for axes in (here, there):
        for line in axes.lines:
            label = str(line.get_label())
            if not label.startswith("_"):
                entries.setdefault(label, line)
    if shaded:
        entries["interval"] = Patch(facecolor=FAINT, alpha=0.3, lw=0)
    legend = figure.legend(
        list(entries.values()),
        list(entries),
        loc="outside lower center",
        ncols=len(entries) if len(entries) <= 6 else 4,
        fontsize=10,
        labelcolor=INK,
        frameon=False,
        handlelength=2.2,
        columnspacing=1.6,
    )
    for text in legend.get_texts():
        text.set_parse_math(False)


def _draw_name(figure: Figure, axes: Axes, chosen: tuple[float, float, str]) -> None:
    """Write the chosen point's name where it hides the least and stays inside its panel."""
    x, saving, name = chosen
    note = axes.annotate(
        textwrap.fill(textwrap.shorten(name, 90, placeholder=" …"), 30),
        (x, 100 * saving),
        xytext=(0, 0),
        textcoords="offset points",
        fontsize=10,
        fontweight="bold",
        color=ACCENT,
        zorder=7,
        ha="center",
        va="center",
        parse_math=False,
        bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.85, "pad": 1.5},
        arrowprops={"arrowstyle": "-", "color": ACCENT, "lw": 1.0, "shrinkA": 0, "shrinkB": 8},
    )
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        figure.draw_without_rendering()  # only now are the places of panels and texts known
        text = Text.get_window_extent(note)
    panel = axes.get_window_extent()
    point = axes.transData.transform((x, 100 * saving))
    drawn = _drawn_points(axes)
    half = np.asarray([text.width, text.height]) / 2 + 6

    def cost(shift: NDArray[np.float64]) -> tuple[float, float]:
        low, high = point + shift - half, point + shift + half
        outside = np.maximum(0, (panel.min - low, high - panel.max)).sum()
        hidden = ((drawn > low) & (drawn < high)).all(axis=1).sum()
        return float(hidden + 1000 * outside), float(np.hypot(*shift))

    ways = np.asarray([(a, b) for a in (-1, 0, 1) for b in (-1, 0, 1) if (a, b) != (0, 0)], float)
    shifts = [way * (half + 12 + 22 * ring) for ring in range(8) for way in ways]
    right, up = min(shifts, key=cost) * 72 / figure.dpi
    note.set_position((right, up))


def _drawn_points(axes: Axes) -> NDArray[np.float64]:
    """Points in pixels, closely spaced along every curve and mark of a panel."""
    pieces = []
    for line in axes.lines:
        if str(line.get_label()).startswith("_"):
            continue
        pixels = axes.transData.transform(np.asarray(line.get_xydata(), float))
        pieces.append(pixels)
        pieces += [np.linspace(a, b, 40) for a, b in pairwise(pixels)]
    return np.concatenate(pieces)


def _styles(spacings: Sequence[str]) -> dict[str, tuple[str, str]]:
    names = list(dict.fromkeys(spacings))
    others = [name for name in names if name not in _STYLES]
    return {
        name: _STYLES[name] if name in _STYLES else _FURTHER[others.index(name) % len(_FURTHER)]
        for name in names
    }


def _shaded(curves: Mapping[str, Curve]) -> bool:
    return any(
        low is not None and high is not None
        for points in curves.values()
        for _, _, low, high in points
    )


def _check(curves: Mapping[str, Curve], paper: Mapping[str, Sequence[tuple[float, float]]]) -> None:
    if not any(curves.values()):
        raise ValueError(
            f"curves must hold at least one point, got none in {list(curves)}. "
            "Predict the saving of at least one schedule."
        )
    for name, group in (("curves", curves), ("paper", paper)):
        for spacing, points in group.items():
            t0s = [point[0] for point in points]
            if any(not a < b for a, b in pairwise(t0s)):
                raise ValueError(
                    f"t0 must rise along each of {name}, got {t0s} for {spacing!r}. "
                    "Sort the points and give each t0 once."
                )
