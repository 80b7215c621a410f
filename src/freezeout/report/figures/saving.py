"""Predicted against measured saving, of all runs together."""

from __future__ import annotations

from matplotlib.axes import Axes

from freezeout.evidence.record import RunRecord
from freezeout.report.arms import ArmKey, by_arm, cells, known
from freezeout.report.figures._drawing import Drawing, drawing_style, dress
from freezeout.report.figures._kind import FigureKind, Records
from freezeout.report.figures._points import run_text
from freezeout.report.palette import SOFT, Palette
from freezeout.report.table import Cell, Column, Table

__all__ = ["SAVING"]

_BAND = 3.0  # percentage points


def _shown(records: Records) -> list[RunRecord]:
    return [
        run
        for run in records
        if run.finished and known(run.predicted) is not None and known(run.measured) is not None
    ]


def _missing(records: Records) -> str | None:
    if _shown(records):
        return None
    return "No finished run has both a predicted and a measured saving."


def _caption(records: Records) -> str:
    shown = _shown(records)
    near = sum(abs(_off(run)) <= _BAND for run in shown)
    text = (
        "Measured saving against the one predicted before the run (% of training time). It is "
        "measured against the baseline of the same cell and seed where there is one, else by the "
        "run's own unfrozen steps. On the diagonal the prediction was right; the band is 3 "
        "percentage points to either side."
    )
    text += f" {near} of {len(shown)} runs lie within it."
    if any(run.predicted_interval is not None for run in shown):
        text += " Horizontal bars are 95 % intervals of the predictions"
        low, high = _range(shown)
        cut = any(end < low or end > high for end in _ends(shown))
        text += ", cut off at the edges." if cut else "."
    if len(cells(shown)) > 1:
        text += " Point at a run to see its cell."
    return text


def _off(run: RunRecord) -> float:
    """Measured less predicted saving in percentage points."""
    return 100 * ((known(run.measured) or 0.0) - (known(run.predicted) or 0.0))


def _draw(records: Records, palette: Palette, width: float) -> Drawing:
    shown = _shown(records)
    with drawing_style():
        side = 5.6 if width >= 6 else width
        drawing = Drawing(side, side)
        axes = drawing.figure.subplots()
        dress(axes, grid="both")
        low, high = _range(shown)
        axes.fill_between(
            [low, high],
            [low - _BAND, high - _BAND],
            [low + _BAND, high + _BAND],
            color=SOFT.light,
            alpha=0.12,
            lw=0,
            zorder=1,
        )
        axes.plot([low, high], [low, high], color=SOFT.light, lw=1.0, zorder=2)
        for run in shown:
            _draw_run(drawing, axes, run, palette)
        axes.set_xlim(low, high)
        axes.set_ylim(low, high)
        axes.set_aspect("equal")
        axes.set_xlabel("predicted saving (%)")
        axes.set_ylabel("measured saving (%)")
    return drawing


def _draw_run(drawing: Drawing, axes: Axes, run: RunRecord, palette: Palette) -> None:
    style = palette[run]
    predicted, measured = known(run.predicted), known(run.measured)
    if predicted is None or measured is None:
        return
    x, y = 100 * predicted, 100 * measured
    if run.predicted_interval is not None:
        low, high = run.predicted_interval
        drawing.bar(axes, (100 * low, 100 * high), (y, y), style, width=0.7, alpha=0.6)
    text = f"{run_text(run, style)}\n{run.cell}"
    drawing.points(axes, style, x, y, text, size=6)


def _range(shown: list[RunRecord]) -> tuple[float, float]:
    values = [0.0]
    for run in shown:
        values += [100 * (known(run.predicted) or 0.0), 100 * (known(run.measured) or 0.0)]
    # Intervals may take as much room again as the points, half of it on each side.
    reach = max(4.0, 0.5 * (max(values) - min(values)))
    least, most = min(values) - reach, max(values) + reach
    values += [min(max(end, least), most) for end in _ends(shown)]
    room = max(2.0, 0.08 * (max(values) - min(values)))
    return min(values) - (room if min(values) < 0 else 0.0), max(values) + room


def _ends(shown: list[RunRecord]) -> list[float]:
    """Ends of the predicted intervals in percent."""
    ends = [known(end) for run in shown for end in run.predicted_interval or ()]
    return [100 * end for end in ends if end is not None]


_COLUMNS = (
    Column("cell", "cell"),
    Column("arm", "arm"),
    Column("run", "run"),
    Column("seed", "seed"),
    Column("predicted", "predicted", decimals=1, scale=100, unit="%"),
    Column("predicted_interval", "interval", decimals=1, scale=100, unit="%", interval=True),
    Column("measured", "measured", decimals=1, scale=100, unit="%"),
)


def _table(records: Records) -> Table:
    rows: list[tuple[Cell, ...]] = [
        (
            run.cell,
            run.arm,
            run.name,
            run.seed,
            run.predicted,
            run.predicted_interval,
            run.measured,
        )
        for run in _shown(records)
    ]
    return Table("saving", "Predicted against measured saving", _COLUMNS, tuple(rows))


def _arms(records: Records) -> list[ArmKey]:
    return list(by_arm(_shown(records)))


SAVING = FigureKind(
    "saving", "Predicted against measured saving", _missing, _caption, _draw, _table, _arms
)
