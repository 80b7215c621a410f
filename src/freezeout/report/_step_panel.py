"""The lower panel of the picture of a run: what freezing did to the time of a step."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from itertools import groupby
from statistics import median

import numpy as np
from matplotlib.axes import Axes
from numpy.typing import NDArray

__all__ = ["INK", "draw_step_times"]

INK = "#222222"
FAINT = "#8a8a8a"
ACCENT = "#b03a2e"  # a dark red that stays apart from every viridis shade, also in grey
_MAX_POINTS = 5000
_FEW_WINDOWS = 5  # a median over fewer is drawn as uncertain


def draw_step_times(
    axes: Axes,
    step_times: Sequence[tuple[int, float, int]],
    freeze_steps: Sequence[int | None],
    palette: Sequence[str],
    total_steps: int,
    done_steps: int | None,
) -> None:
    """Draw the windows, the median per length of the frozen prefix, and the freezes."""
    axes.set_ylabel("step time (ms)", fontsize=11, color=INK)
    done = total_steps if done_steps is None else done_steps
    frozen_at = [(i, step) for i, step in enumerate(freeze_steps) if step is not None]
    for layer, step in frozen_at:
        if step <= done:
            width = 0.9 if len(frozen_at) <= 24 else 0.4
            axes.axvline(step / total_steps, color=palette[layer], lw=width, alpha=0.7, zorder=1)
    if not step_times:
        axes.set_ylim(0.0, 1.0)
        axes.set_yticks([])
        axes.text(0.5, 0.5, "no step times", ha="center", va="center", transform=axes.transAxes)
        return
    progress = np.asarray([step for step, _, _ in step_times]) / total_steps
    times = 1000 * np.asarray([seconds for _, seconds, _ in step_times])
    medians = {
        depth: median(1000 * seconds for _, seconds, frozen in step_times if frozen == depth)
        for depth in {frozen for _, _, frozen in step_times}
    }
    # A few slow windows must not squash the rest: they become marks at the upper edge. A depth with
    # few windows may have a slow median too, so only the two medians that matter bound the axis.
    last = step_times[-1][2]
    top = 1.3 * max(medians.get(0, 0.0), medians[last], float(np.percentile(times, 95)), 1e-6)
    axes.set_ylim(0.0, top)
    stride = -(-len(times) // _MAX_POINTS)
    inside = np.flatnonzero(times <= top)[::stride]
    above = np.flatnonzero(times > top)
    axes.scatter(
        progress[inside],
        times[inside],
        s=7,
        c=FAINT,
        alpha=0.45,
        lw=0,
        zorder=2,
        label="step times",
    )
    if len(above):
        axes.scatter(
            progress[above],
            np.full(len(above), 0.985 * top),
            s=14,
            marker="^",
            c=FAINT,
            alpha=0.8,
            lw=0,
            zorder=2,
            label="slower, beyond the axis",
        )
    xs, ys, depths = _median_line(step_times, medians)
    stair = np.asarray(xs) / total_steps
    _draw_stair(axes, stair, np.asarray(ys), _few(step_times, depths))
    _annotate_end(axes, stair, np.asarray(ys), medians, last)
    legend = axes.legend(loc="lower left", fontsize=9, labelcolor=INK, framealpha=0.9, ncols=2)
    legend.get_frame().set_edgecolor("none")
    legend.set_zorder(6)


def _median_line(
    step_times: Sequence[tuple[int, float, int]], medians: dict[int, float]
) -> tuple[list[int], list[float], list[int]]:
    """Corners of the stair of medians, and their depths.

    A run of equal depth begins where the last one ended.
    """
    xs: list[int] = []
    ys: list[float] = []
    depths: list[int] = []
    first = step_times[0][0]
    start = max(0, 2 * first - step_times[1][0]) if len(step_times) > 1 else 0
    for depth, run in groupby(step_times, key=lambda record: record[2]):
        end = list(run)[-1][0]
        xs += [start, end]
        ys += [medians[depth], medians[depth]]
        depths += [depth, depth]
        start = end
    return xs, ys, depths


def _few(step_times: Sequence[tuple[int, float, int]], depths: Sequence[int]) -> NDArray[np.bool_]:
    """Which corners stand for a median over few windows."""
    windows = Counter(frozen for _, _, frozen in step_times)
    return np.asarray([windows[depth] < _FEW_WINDOWS for depth in depths])


def _draw_stair(
    axes: Axes, xs: NDArray[np.float64], ys: NDArray[np.float64], few: NDArray[np.bool_]
) -> None:
    """Draw the stair of medians, dashed and thinner where few windows make it uncertain."""
    if not few.all():
        axes.plot(
            xs,
            np.where(few, np.nan, ys),
            color=ACCENT,
            lw=2.0,
            zorder=4,
            label="median per frozen depth",
        )
    if few.any():
        dashed = few.copy()  # with the risers on both sides
        dashed[1:] |= few[:-1]
        dashed[:-1] |= few[1:]
        axes.plot(
            xs,
            np.where(dashed, ys, np.nan),
            color=ACCENT,
            lw=1.0,
            ls="--",
            zorder=4,
            label=f"median of fewer than {_FEW_WINDOWS} windows",
        )


def _annotate_end(
    axes: Axes,
    xs: NDArray[np.float64],
    ys: NDArray[np.float64],
    medians: dict[int, float],
    depth: int,
) -> None:
    """Say how far the last step time lies from the unfrozen one."""
    if 0 not in medians or depth == 0 or medians[0] == 0:
        return
    axes.axhline(
        medians[0], color=ACCENT, lw=1.0, ls=(0, (1, 2)), zorder=3, label="unfrozen median"
    )
    change = round(100 * (medians[depth] / medians[0] - 1))
    axes.annotate(
        f"{change:+d} %".replace("-", "−"),
        (xs[-1], _free_height(xs, ys, medians[0], medians[depth], axes.get_ylim()[1])),
        xytext=(-4, 0),
        textcoords="offset points",
        ha="right",
        va="center",
        fontsize=12,
        fontweight="bold",
        color=ACCENT,
        zorder=6,
        bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.8, "pad": 0.5},
    )


def _free_height(
    xs: NDArray[np.float64],
    ys: NDArray[np.float64],
    unfrozen: float,
    last: float,
    top: float,
) -> float:
    """Where the middle of the label at the end keeps clear of the stair and the unfrozen median.

    As near below the last median as there is room, else anywhere near it.
    """
    near = xs[1:] >= xs[-1] - 0.12  # the label is no wider
    low = np.append(np.minimum(ys[:-1], ys[1:])[near], unfrozen)
    high = np.append(np.maximum(ys[:-1], ys[1:])[near], unfrozen)
    half = 0.08 * top  # half the label, with a gap
    heights = np.linspace(half + 0.01 * top, top - half, 60)
    free = [y for y in heights if not np.any((low < y + half) & (high > y - half))]
    below = [y for y in free if y < last]
    return float(min(below or free or [0.5 * last], key=lambda y: abs(y - last)))
