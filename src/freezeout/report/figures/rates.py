"""Learning rate of every layer with its freeze point, per arm: the paper's first figure."""

from __future__ import annotations

from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import BoundaryNorm, ListedColormap
from matplotlib.ticker import FixedLocator, NullLocator

from freezeout.evidence.record import RunRecord
from freezeout.report.arms import ArmKey, by_arm, known, representative, shorten
from freezeout.report.figures._drawing import Drawing, drawing_style, dress
from freezeout.report.figures._kind import FigureKind, Records
from freezeout.report.figures._points import thin
from freezeout.report.palette import INK, PAPER, Palette, layer_colors
from freezeout.report.table import Cell, Column, Table

__all__ = ["RATES"]

_MOST_PANELS = 12
_MOST_POINTS = 6000
_MOST_LABELS = 12


def _chosen(records: Records) -> list[tuple[ArmKey, RunRecord]]:
    groups = by_arm([run for run in records if run.kind == "variant" and _drawable(run)])
    return [(key, representative(runs)) for key, runs in groups.items()]


def _drawable(run: RunRecord) -> bool:
    layers = len(run.layer_names)
    return bool(
        layers
        and run.total_steps > 0
        and run.rate_steps
        and len(run.rates) == len(run.freeze_steps) == layers
        and all(len(row) == len(run.rate_steps) for row in run.rates)
    )


def _missing(records: Records) -> str | None:
    if not any(run.kind == "variant" for run in records):
        return "No run here freezes anything."
    return None if _chosen(records) else "No learning rates were recorded."


def _caption(records: Records) -> str:
    chosen = _chosen(records)
    text = (
        "Learning rate of every layer over training (progress in %), one panel per schedule and "
        "one run each. A curve ends at a dot where its layer freezes; the darker or bluer the "
        "colour, the nearer the layer is to the input."
    )
    if not _alike(chosen[:_MOST_PANELS]):
        text += " Vertical scales differ."
    if len(chosen) > _MOST_PANELS:
        text += f" Shown are the first {_MOST_PANELS} of {len(chosen)} schedules."
    return text


def _curve(run: RunRecord, layer: int, most: int) -> list[tuple[int, float]]:
    """Steps and rates of a layer up to its freeze step."""
    freeze = run.freeze_steps[layer]
    points = [
        (step, rate)
        for step, rate in zip(run.rate_steps, run.rates[layer], strict=True)
        if (freeze is None or step < freeze) and known(rate) is not None
    ]
    later = [step for step in run.rate_steps if freeze is not None and step >= freeze]
    kept = [points[i] for i in thin(len(points), most)]
    if freeze is not None and later:
        rate = known(run.rates[layer][run.rate_steps.index(later[0])])
        kept.append((freeze, 0.0 if rate is None else rate))
    return kept


def _room(chosen: list[tuple[ArmKey, RunRecord]]) -> int:
    """Points per curve, so that the page stays small with many layers."""
    curves = sum(len(run.layer_names) for _, run in chosen)
    return max(14, min(60, _MOST_POINTS // max(1, curves)))


def _draw(records: Records, palette: Palette, width: float) -> Drawing:
    chosen = _chosen(records)[:_MOST_PANELS]
    across = _across(len(chosen)) if width >= 6 else 1
    down = -(-len(chosen) // across)
    with drawing_style():
        drawing = Drawing(width, 0.7 + down * (2.5 if across > 1 or width < 6 else 3.4))
        grid = drawing.figure.subplots(
            down, across, squeeze=False, sharex=True, sharey=_alike(chosen)
        )
        most = _room(chosen)
        panels = list(grid.flat)
        for place, (axes, (key, run)) in enumerate(zip(panels, chosen, strict=False)):
            top = _highest(chosen if _alike(chosen) else [(key, run)])
            _draw_panel(drawing, axes, key, run, palette, most, top)
            if place + across >= len(chosen):
                axes.set_xlabel("progress (%)")
                axes.tick_params(labelbottom=True)
            if place % across == 0:
                axes.set_ylabel("learning rate")
        for axes in panels[len(chosen) :]:
            axes.remove()
        longest = max((run for _, run in chosen), key=lambda run: len(run.layer_names))
        _draw_scale(drawing, panels[: len(chosen)], longest, width)
    return drawing


def _across(panels: int) -> int:
    return panels if panels <= 3 else 2 if panels == 4 else 3


def _highest(chosen: list[tuple[ArmKey, RunRecord]]) -> float:
    rates = [rate for _, run in chosen for row in run.rates for rate in row]
    return max((rate for rate in rates if known(rate) is not None), default=0.0) or 1.0


def _alike(chosen: list[tuple[ArmKey, RunRecord]]) -> bool:
    """Whether all panels can have one vertical scale."""
    tops = [_highest([panel]) for panel in chosen]
    return max(tops) <= 2.5 * min(tops)


def _draw_panel(
    drawing: Drawing,
    axes: Axes,
    key: ArmKey,
    run: RunRecord,
    palette: Palette,
    most: int,
    top: float,
) -> None:
    dress(axes)
    style = palette[key]
    drawing.mark(axes, style)
    colors = layer_colors(len(run.layer_names))
    several = len(run.layer_names) <= 16
    for layer, name in enumerate(run.layer_names):
        points = _curve(run, layer, most)
        if not points:
            continue
        freeze = run.freeze_steps[layer]
        xs = [100 * step / run.total_steps for step, _ in points]
        ys = [rate for _, rate in points]
        color = colors[layer].light
        (line,) = axes.plot(xs, ys, color=color, lw=1.5 if several else 0.9, zorder=3)
        if freeze is None:
            when = "never freezes"
        else:
            when = f"freezes at {100 * freeze / run.total_steps:.1f} % (step {freeze:,})"
        drawing.mark(line, style, text=f"layer {layer}: {name}\n{when}\n{style.label}\n{run.name}")
        if freeze is not None and points[-1][0] == freeze:
            axes.plot(
                [xs[-1]],
                [ys[-1]],
                color=color,
                marker="o",
                ms=5 if several else 3,
                mfc=color,
                mec=PAPER.light,
                mew=0.5,
                clip_on=False,
                zorder=5,
            )
    axes.set_xlim(0, 100)
    axes.set_ylim(0, 1.05 * top)
    axes.set_title(shorten(style.label, 34), color=INK.light, loc="left")


def _draw_scale(drawing: Drawing, panels: list[Axes], run: RunRecord, width: float) -> None:
    """Say which colour is which layer."""
    layers = len(run.layer_names)
    colors = [color.light for color in layer_colors(layers)]
    narrow = width < 6
    scale = drawing.figure.colorbar(
        ScalarMappable(BoundaryNorm([i - 0.5 for i in range(layers + 1)], layers), _map(colors)),
        ax=panels,
        location="bottom" if narrow else "right",
        aspect=30,
        fraction=0.04,
        pad=0.03,
    )
    ticks = range(0, layers, -(-layers // _MOST_LABELS))
    axis = scale.ax.xaxis if narrow else scale.ax.yaxis
    axis.set_major_locator(FixedLocator([float(tick) for tick in ticks]))
    axis.set_minor_locator(NullLocator())
    scale.set_ticklabels([str(tick) for tick in ticks])
    scale.ax.tick_params(labelcolor=INK.light, length=0)
    scale.set_label("layer (0 = input)", color=INK.light)
    scale.outline.set_visible(False)
    if not narrow:
        scale.ax.invert_yaxis()


def _map(colors: list[str]) -> ListedColormap:
    return ListedColormap(colors)


_COLUMNS = (
    Column("arm", "arm"),
    Column("run", "run"),
    Column("layer", "layer"),
    Column("name", "name"),
    Column("freeze_step", "freeze step"),
    Column("step", "step"),
    Column("rate", "learning rate"),
)


def _table(records: Records) -> Table:
    chosen = _chosen(records)[:_MOST_PANELS]
    most = _room(chosen)
    rows: list[tuple[Cell, ...]] = [
        (key.arm, run.name, layer, name, run.freeze_steps[layer], step, rate)
        for key, run in chosen
        for layer, name in enumerate(run.layer_names)
        for step, rate in _curve(run, layer, most)
    ]
    return Table("rates", "Learning rates", _COLUMNS, tuple(rows))


RATES = FigureKind(
    "rates", "Learning rates and freeze points", _missing, _caption, _draw, _table, lambda _: []
)
