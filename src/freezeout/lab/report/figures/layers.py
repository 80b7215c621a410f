"""The layers of a run over its progress: rates, freeze points, and which colour is which layer."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import BoundaryNorm, ListedColormap
from matplotlib.ticker import FixedLocator, NullLocator

from freezeout.lab.evidence import RunRecord
from freezeout.lab.report.figures.drawing import Drawing
from freezeout.lab.report.figures.points import thin
from freezeout.lab.report.grouping import clean, known
from freezeout.lab.report.palette import INK, PAPER, Style, layer_colors
from freezeout.text import percent

__all__ = ["draw_layer_scale", "draw_rates", "has_rates", "highest_rate", "rate_curve"]

FEW_LAYERS = 16
"""With more layers, curves and dots are smaller, and colours are shared by neighbours."""

_MOST_LABELS = 12
_NAME_ROOM = 18  # characters


def has_rates(run: RunRecord) -> bool:
    """Return whether the rates of every layer are known and fit together."""
    layers = len(run.layer_names)
    return bool(
        layers
        and run.total_steps > 0
        and run.rate_steps
        and len(run.rates) == len(run.freeze_steps) == layers
        and all(len(row) == len(run.rate_steps) for row in run.rates)
    )


def highest_rate(runs: Sequence[RunRecord]) -> float:
    """Return the highest rate of any layer, or 1 if all are 0."""
    rates = [rate for run in runs for row in run.rates for rate in row]
    return max((rate for rate in rates if known(rate) is not None), default=0.0) or 1.0


def rate_curve(run: RunRecord, layer: int, most: int) -> list[tuple[int, float]]:
    """Return at most `most` steps and rates of a layer, and where it freezes its freeze step."""
    freeze = run.freeze_steps[layer]
    points = [
        (step, rate)
        for step, rate in zip(run.rate_steps, run.rates[layer], strict=True)
        if (freeze is None or step < freeze) and known(rate) is not None
    ]
    kept = [points[i] for i in thin(len(points), most)]
    later = [i for i, step in enumerate(run.rate_steps) if freeze is not None and step >= freeze]
    if freeze is not None and later:
        kept.append((freeze, known(run.rates[layer][later[0]]) or 0.0))
    return kept


def draw_rates(
    drawing: Drawing, axes: Axes, run: RunRecord, *styles: Style, most: int, about: str
) -> None:
    """Draw one curve per layer over progress in percent, up to a dot where it freezes.

    The dot is hollow where the run did not get that far.

    Args:
        drawing: Where.
        axes: Its axes.
        run: A run that `has_rates`.
        styles: What it belongs to in the legend.
        most: Most points along a curve.
        about: Said of every layer.
    """
    few = len(run.layer_names) <= FEW_LAYERS
    colors = layer_colors(len(run.layer_names))
    for layer, (name, color) in enumerate(zip(run.layer_names, colors, strict=True)):
        points = rate_curve(run, layer, most)
        if not points:
            continue
        freeze = run.freeze_steps[layer]
        xs = [100 * step / run.total_steps for step, _ in points]
        ys = [rate for _, rate in points]
        when = "never freezes"
        if freeze is not None:
            when = f"freezes at {percent(freeze / run.total_steps)} (step {freeze:,})"
        text = f"layer {layer}: {name}\n{when}\n{about}"
        width = 1.5 if few else 0.9
        drawing.line(axes, xs, ys, *styles, text=text, color=color, width=width, zorder=3)
        if freeze is not None and points[-1][0] == freeze:
            reached = freeze <= run.steps
            axes.plot(
                xs[-1:],
                ys[-1:],
                ls="none",
                marker="o",
                ms=5 if few else 3,
                mfc=color.light if reached else PAPER.light,
                mec=PAPER.light if reached else color.light,
                mew=0.5 if reached else 1.0,
                clip_on=False,
                zorder=5,
            )


def draw_layer_scale(
    drawing: Drawing, panels: Sequence[Axes], names: Sequence[str], *, named: bool = False
) -> None:
    """Say which colour is which layer.

    Args:
        drawing: Where.
        panels: The axes it stands beside; below them on a phone.
        names: Names of the layers.
        named: Whether to write the names of few layers, where they have room.
    """
    layers = len(names)
    colors = ListedColormap([color.light for color in layer_colors(layers)])
    scale = drawing.figure.colorbar(
        ScalarMappable(BoundaryNorm([i - 0.5 for i in range(layers + 1)], layers), colors),
        ax=list(panels),
        location="bottom" if drawing.narrow else "right",
        aspect=30,
        fraction=0.04,
        pad=0.03,
    )
    named = named and layers <= FEW_LAYERS and not drawing.narrow
    ticks = range(0, layers, 1 if named else -(-layers // _MOST_LABELS))
    axis = scale.ax.xaxis if drawing.narrow else scale.ax.yaxis
    axis.set_major_locator(FixedLocator([float(tick) for tick in ticks]))
    axis.set_minor_locator(NullLocator())
    scale.set_ticklabels([f"{i}  {_tail(names[i])}" if named else f"{i}" for i in ticks])
    scale.ax.tick_params(labelcolor=INK.light, length=0)
    scale.set_label("layer (0 = input)", color=INK.light)
    scale.outline.set_visible(False)
    if not drawing.narrow:
        scale.ax.invert_yaxis()


def _tail(name: str) -> str:
    """Return the end of a name, where dotted names differ."""
    name = clean(name)
    return name if len(name) <= _NAME_ROOM else f"…{name[1 - _NAME_ROOM :]}"
