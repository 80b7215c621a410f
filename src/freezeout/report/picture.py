"""The picture of a run: learning rates with freeze points above, step times below.

The upper panel follows the first figure of the paper (Brock et al., "FreezeOut", 2017,
arXiv:1706.04983): the rate of every layer over progress, which falls to zero where the layer
freezes. The lower one shows what freezing did to the time of a step.

Figures are drawn without ``pyplot``: nothing here opens a window or leaves a global figure behind.
"""

from __future__ import annotations

import os
import textwrap
from collections.abc import Sequence
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import BoundaryNorm, ListedColormap, to_hex
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from freezeout.report._save import save_figure
from freezeout.report._step_panel import INK, draw_step_times

__all__ = ["build_figure", "draw_run"]

_FAINT = "#8a8a8a"
_NAMED_LAYERS = 16


def draw_run(
    path: str | os.PathLike[str],
    *,
    layer_names: Sequence[str],
    steps: Sequence[int],
    rates: Sequence[Sequence[float]],
    freeze_steps: Sequence[int | None],
    step_times: Sequence[tuple[int, float, int]],
    total_steps: int,
    title: str,
    base_rate: float | None = None,
    done_steps: int | None = None,
) -> None:
    """Draw a run into a file.

    The file is complete or not there: it is written beside its place and moved. The same arguments
    give the same bytes with the same version of matplotlib.

    Args:
        path: Where to write, ending in ``.png`` or ``.svg``; its folder must exist.
        layer_names: See `build_figure`, as for all that follow.
        steps: Steps at which the rates are known.
        rates: Rate of each layer at each of `steps`.
        freeze_steps: Step at which each layer freezes, or ``None``.
        step_times: Step, seconds per step, frozen layers.
        total_steps: Steps of the whole run.
        title: Heading.
        base_rate: Rate the layers' rates derive from.
        done_steps: Steps done, if the run was cut short.

    Raises:
        ValueError: If the suffix is another, or the arguments do not fit together.
        OSError: If the file cannot be written; an older one is then left as it was.
    """
    save_figure(
        Path(path),
        ("png", "svg"),
        lambda: build_figure(
            layer_names=layer_names,
            steps=steps,
            rates=rates,
            freeze_steps=freeze_steps,
            step_times=step_times,
            total_steps=total_steps,
            title=title,
            base_rate=base_rate,
            done_steps=done_steps,
        ),
    )


def build_figure(
    *,
    layer_names: Sequence[str],
    steps: Sequence[int],
    rates: Sequence[Sequence[float]],
    freeze_steps: Sequence[int | None],
    step_times: Sequence[tuple[int, float, int]],
    total_steps: int,
    title: str,
    base_rate: float | None = None,
    done_steps: int | None = None,
) -> Figure:
    """Build the picture of a run.

    Args:
        layer_names: One name per layer, from the input on.
        steps: Steps, rising, at which the rates are known; of the whole run or a part of it.
        rates: Learning rate of each layer at each of `steps`; shape (layers, len(steps)).
        freeze_steps: Step at which each layer freezes; ``None`` for one that never does.
        step_times: One record per timed window in order of time: the step at its end, seconds per
            step, length of the frozen prefix. May be empty.
        total_steps: Steps of the whole run, at least 1; they make progress 1.
        title: Heading; long ones are wrapped.
        base_rate: Rate the layers' rates derive from, drawn as a line.
        done_steps: Steps done, if the run was cut short: what lies behind is shaded.

    Returns:
        A figure whose first two axes are the rates and the step times.

    Raises:
        ValueError: If the arguments do not fit together.
    """
    _check(layer_names, steps, rates, freeze_steps, total_steps)
    layers = len(layer_names)
    palette = [
        to_hex(rgba) for rgba in matplotlib.colormaps["viridis"](np.linspace(0, 0.9, layers))
    ]
    figure = Figure(figsize=(9.6, 7.2), dpi=110, layout="constrained", facecolor="white")
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=[3, 2])
    _draw_rates(upper, steps, rates, freeze_steps, palette, total_steps, done_steps, base_rate)
    draw_step_times(lower, step_times, freeze_steps, palette, total_steps, done_steps)
    for axes in (upper, lower):
        if done_steps is not None and done_steps < total_steps:
            axes.axvspan(done_steps / total_steps, 1.0, color="#000000", alpha=0.05, lw=0)
            axes.axvline(done_steps / total_steps, color=INK, lw=0.8, ls=(0, (4, 3)))
        axes.spines[["top", "right"]].set_visible(False)
        axes.tick_params(labelsize=10, colors=INK)
    if done_steps is not None and done_steps < total_steps:
        _note(upper, done_steps / total_steps, f"stopped at step {done_steps:,}")
    _draw_progress_axis(lower, total_steps)
    _draw_layer_scale(figure, [upper, lower], layer_names, palette)
    heading = textwrap.shorten(title, 240, placeholder=" …")
    figure.suptitle(textwrap.fill(heading, 88), fontsize=12, color=INK, parse_math=False)
    return figure


def _draw_rates(
    axes: Axes,
    steps: Sequence[int],
    rates: Sequence[Sequence[float]],
    freeze_steps: Sequence[int | None],
    palette: Sequence[str],
    total_steps: int,
    done_steps: int | None,
    base_rate: float | None,
) -> None:
    """Draw one curve per layer up to its freeze point, the input's on top."""
    layers = len(rates)
    done = total_steps if done_steps is None else done_steps
    dots: list[tuple[float, float]] = []
    faces: list[str] = []
    edges: list[str] = []
    for layer in range(layers):
        xs, ys = _curve(steps, rates[layer], freeze_steps[layer])
        axes.plot(
            np.asarray(xs) / total_steps,
            ys,
            color=palette[layer],
            lw=2.0 if layers <= _NAMED_LAYERS else 1.0,
            zorder=3,
        )
        freeze = freeze_steps[layer]
        if freeze is not None and xs and xs[-1] == freeze:
            dots.append((freeze / total_steps, ys[-1]))
            faces.append(palette[layer] if freeze <= done else "white")
            edges.append("white" if freeze <= done and layers <= 40 else palette[layer])
    if dots:
        axes.scatter(
            [x for x, _ in dots],
            [y for _, y in dots],
            s=46 if layers <= _NAMED_LAYERS else 16,
            c=faces,
            edgecolors=edges,
            linewidths=0.8,
            zorder=5,
            clip_on=False,
            label="freeze points",
        )
    if base_rate is not None:
        axes.axhline(base_rate, color=_FAINT, lw=1.0, ls=(0, (1, 2)), zorder=2, label="base rate")
        axes.annotate(
            f"base rate {base_rate:g}",
            (1.0, base_rate),
            xytext=(0, 3),
            textcoords="offset points",
            ha="right",
            va="bottom",
            fontsize=9,
            color=INK,
        )
    axes.set_ylim(bottom=0.0)
    axes.set_ylabel("learning rate", fontsize=11, color=INK)


def _curve(
    steps: Sequence[int], rates: Sequence[float], freeze: int | None
) -> tuple[list[int], list[float]]:
    """A layer's rates up to its freeze step, where the first rate known from then on stands."""
    if freeze is None:
        return list(steps), list(rates)
    xs = [step for step in steps if step < freeze]
    ys = list(rates[: len(xs)])
    if len(xs) < len(steps):
        xs.append(freeze)
        ys.append(rates[len(ys)])
    return xs, ys


def _note(axes: Axes, x: float, text: str) -> None:
    left = x > 0.75
    axes.annotate(
        text,
        (x, 1.0),
        xycoords=("data", "axes fraction"),
        xytext=(-5 if left else 5, -3),
        textcoords="offset points",
        ha="right" if left else "left",
        va="top",
        fontsize=9,
        color=INK,
        zorder=7,
    )


def _draw_progress_axis(axes: Axes, total_steps: int) -> None:
    """Label the shared axis with progress and, below it, with steps."""
    axes.set_xlim(0.0, 1.0)
    axes.xaxis.set_major_locator(FixedLocator([0.0, 0.2, 0.4, 0.6, 0.8, 1.0]))
    axes.xaxis.set_major_formatter(
        FuncFormatter(lambda x, _position: f"{x:g}\n{round(x * total_steps):,}")
    )
    axes.set_xlabel("progress, with optimizer steps below", fontsize=11, color=INK)


def _draw_layer_scale(
    figure: Figure,
    axes: list[Axes],
    layer_names: Sequence[str],
    palette: Sequence[str],
) -> None:
    """Draw the colour of each layer; with its name if there are few."""
    layers = len(layer_names)
    norm = BoundaryNorm(np.arange(layers + 1) - 0.5, layers)
    scale = figure.colorbar(
        ScalarMappable(norm, ListedColormap(palette)), ax=axes, aspect=45, pad=0.02, fraction=0.05
    )
    named = layers <= _NAMED_LAYERS
    every = 1 if named else -(-layers // 12)
    ticks = list(range(0, layers, every))
    scale.ax.yaxis.set_major_locator(FixedLocator(ticks))
    scale.ax.yaxis.set_minor_locator(NullLocator())
    labels = [f"{i}  {_tail(layer_names[i])}" if named else f"{i}" for i in ticks]
    scale.set_ticklabels(labels, fontsize=9, color=INK, parse_math=False)
    scale.set_label("layer (0 = input)", fontsize=11, color=INK)
    scale.outline.set_visible(False)


def _tail(name: str, room: int = 18) -> str:
    return name if len(name) <= room else "…" + name[1 - room :]


def _check(
    layer_names: Sequence[str],
    steps: Sequence[int],
    rates: Sequence[Sequence[float]],
    freeze_steps: Sequence[int | None],
    total_steps: int,
) -> None:
    layers = len(layer_names)
    if not layers or len(rates) != layers or len(freeze_steps) != layers:
        raise ValueError(
            "layer_names, rates and freeze_steps must have one entry per layer, got "
            f"{layers}, {len(rates)} and {len(freeze_steps)}. Give rates as rows, one per layer."
        )
    wrong = next((row for row in rates if len(row) != len(steps)), None)
    if wrong is not None:
        raise ValueError(
            f"every row of rates must have one value per step, {len(steps)} in all, got "
            f"{len(wrong)}. Give the rates at exactly the steps in `steps`."
        )
    if total_steps < 1:
        raise ValueError(f"total_steps must be at least 1, got {total_steps}. Count all epochs.")
