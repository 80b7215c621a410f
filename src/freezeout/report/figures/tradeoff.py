"""Error against predicted saving: the paper's third figure."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

from matplotlib.axes import Axes

from freezeout.evidence.record import RunRecord
from freezeout.evidence.statistics import Estimate
from freezeout.report.arms import ArmKey, by_arm, final_runs, known
from freezeout.report.figures._drawing import Drawing, drawing_style, dress
from freezeout.report.figures._kind import FigureKind, Records
from freezeout.report.figures._points import estimate, mean_text, run_text
from freezeout.report.palette import INK, SOFT, Palette, family_of
from freezeout.report.table import Cell, Column, Table

__all__ = ["TRADEOFF"]


_CROWD = 12  # arms, from which on moving points aside would mislead


@dataclass(frozen=True)
class _Place:
    """Where an arm stands: saving in percent, error in percent."""

    key: ArmKey
    runs: list[RunRecord]
    x: Estimate
    y: Estimate


def _saving(record: RunRecord, full_steps: int | None) -> float | None:
    """Predicted saving in percent; for a shortened run, the share of steps it leaves out."""
    if record.kind == "variant":
        predicted = known(record.predicted)
        return None if predicted is None else 100 * predicted
    if record.kind == "equal-time" and full_steps:
        return 100 * (1 - record.total_steps / full_steps)
    return 0.0 if record.kind == "baseline" else None


def _full_steps(records: Records) -> int | None:
    return max((run.total_steps for run in records if run.kind == "baseline"), default=None)


def _places(records: Records) -> list[_Place]:
    full = _full_steps(records)
    places = []
    for key, runs in by_arm(final_runs(records)).items():
        runs = [run for run in runs if _saving(run, full) is not None]
        x = estimate(runs, lambda run: _saving(run, full))
        y = estimate(runs, lambda run: run.error)
        if x is not None and y is not None:
            places.append(_Place(key, runs, x, y))
    return places


def _missing(records: Records) -> str | None:
    variants = [run for run in records if run.kind == "variant"]
    if not variants:
        return "No run here freezes anything."
    if not final_runs(variants):
        return "No run that freezes is finished and tested yet."
    if not any(place.key.kind == "variant" for place in _places(records)):
        return "No saving was predicted for these runs."
    return None


def _caption(records: Records) -> str:
    places = _places(records)
    kinds = {place.key.kind for place in places}
    parts = [
        "Final test error (%, lower is better) against the saving that was predicted before the "
        "run (% of training time, further right is better).",
        "Large points are means over seeds with 95 % confidence intervals; small ones are single "
        "runs; numbers at points are t0.",
    ]
    bottom, top = _heights(places)
    if any(end < bottom or end > top for place in places for end in place.y.interval or ()):
        parts.append("Intervals that run out of the axes are cut off there.")
    if len(places) <= _CROWD:
        parts.append("Points of equal saving stand side by side.")
    if "baseline" in kinds:
        parts.append("The band is the baseline, which freezes nothing: its mean and interval.")
    if "equal-time" in kinds:
        parts.append(
            "Hollow diamonds are baselines trained for fewer epochs, at the share of steps they "
            "leave out: the alternative that freezing has to beat."
        )
    return " ".join(parts)


def _draw(records: Records, palette: Palette, width: float) -> Drawing:
    with drawing_style():
        drawing = Drawing(width, 4.4 if width >= 6 else 3.9)
        axes = drawing.figure.subplots()
        dress(axes)
        places = _places(records)
        room = 0.0 if len(places) > _CROWD else 0.032 if drawing.narrow else 0.016
        across = _beside(places, room)
        for place in places:
            if place.key.kind == "baseline":
                _draw_band(drawing, axes, place, palette, left=_left_is_free(places))
        _draw_families(
            drawing, axes, [p for p in places if p.key.kind == "variant"], palette, across
        )
        for place in places:
            if place.key.kind != "baseline":
                _draw_place(drawing, axes, place, palette, across[place.key])
        _limit(axes, places)
        axes.set_xlabel("predicted saving (% of training time)")
        axes.set_ylabel("test error (%)")
    return drawing


def _draw_band(
    drawing: Drawing, axes: Axes, place: _Place, palette: Palette, *, left: bool
) -> None:
    style = palette[place.key]
    text = mean_text(style, [("test error", place.y, "%", 2)])
    if place.y.low is not None and place.y.high is not None:
        band = axes.axhspan(
            place.y.low, place.y.high, color=style.color.light, alpha=0.09, lw=0, zorder=1
        )
        drawing.mark(band, style, text=text)
    line = axes.axhline(place.y.mean, color=style.color.light, lw=1.2, zorder=2)
    drawing.mark(line, style, text=text)
    note = axes.annotate(
        style.label if len(style.label) <= 24 else "baseline",
        (0.0 if left else 1.0, place.y.mean),
        xycoords=("axes fraction", "data"),
        xytext=(3 if left else -2, 3),
        textcoords="offset points",
        ha="left" if left else "right",
        va="bottom",
        fontsize=8.5,
        color=INK.light,
    )
    drawing.mark(note, style)


def _beside(places: list[_Place], share: float) -> dict[ArmKey, float]:
    """Where to draw each arm: at its saving, or just beside another one of the same saving."""
    savings = [place.x.mean for place in places]
    gap = share * max(max(savings, default=0.0) - min(savings, default=0.0), 5.0)
    across = {place.key: place.x.mean for place in places if place.key.kind == "baseline"}
    taken: list[float] = []
    # Variants keep their place; what they are compared with moves to the left.
    for place in sorted(places, key=lambda place: (place.key.kind != "variant", -place.x.mean)):
        if place.key.kind == "baseline":
            continue
        at = place.x.mean
        while any(abs(at - other) < 0.99 * gap for other in taken):
            at -= gap
        taken.append(at)
        across[place.key] = at
    return across


def _draw_families(
    drawing: Drawing,
    axes: Axes,
    places: list[_Place],
    palette: Palette,
    across: dict[ArmKey, float],
) -> None:
    """Join the arms that differ by t0 only."""
    families: dict[object, list[_Place]] = {}
    for place in places:
        if place.runs[0].spacing is not None:
            families.setdefault(family_of(place.runs[0]), []).append(place)
    for members in families.values():
        family = family_of(members[0].runs[0])
        members.sort(key=lambda place: -place.runs[0].t0)
        for one, other in pairwise(members):
            (line,) = axes.plot(
                [across[one.key], across[other.key]],
                [one.y.mean, other.y.mean],
                color=palette.family_color(family).light,
                lw=1.3,
                zorder=3,
            )
            if dash := palette.family_dash(family):
                line.set_dashes(dash)
            drawing.mark(line, palette[one.key], palette[other.key])


def _draw_place(drawing: Drawing, axes: Axes, place: _Place, palette: Palette, x: float) -> None:
    style = palette[place.key]
    y = place.y.mean
    aside = x - place.x.mean
    if len(place.runs) > 1:
        for run in place.runs:
            error = known(run.error)
            if error is None:
                continue
            predicted = known(run.predicted) if run.kind == "variant" else None
            at = x if predicted is None else 100 * predicted + aside
            drawing.points(axes, style, at, error, run_text(run, style), size=4, alpha=0.45)
    if place.y.low is not None and place.y.high is not None:
        drawing.bar(axes, (x, x), (place.y.low, place.y.high), style)
    facts = [("predicted saving", place.x, "%", 1), ("test error", place.y, "%", 2)]
    single = len(place.runs) == 1
    text = run_text(place.runs[0], style) if single else mean_text(style, facts)
    drawing.points(axes, style, x, y, text)
    if place.key.kind == "variant" and place.runs[0].spacing is not None:
        note = axes.annotate(
            f"{place.runs[0].t0:g}",
            (x, y),
            xytext=(6, -3 if place.runs[0].scaled else 3),
            textcoords="offset points",
            ha="left",
            va="top" if place.runs[0].scaled else "bottom",
            fontsize=8.5,
            color=SOFT.light,
            zorder=7,
        )
        drawing.mark(note, style)


def _limit(axes: Axes, places: list[_Place]) -> None:
    """Leave room around the points."""
    axes.set_ylim(*_heights(places))
    axes.set_xlim(*_widths(places))


def _heights(places: list[_Place]) -> tuple[float, float]:
    """Errors worth seeing; intervals of few runs may go beyond."""
    values = [error for p in places for run in p.runs if (error := known(run.error)) is not None]
    low, high = min(values), max(values)
    span = max(high - low, 0.05 * high, 0.1)
    ends = [end for place in places for end in (place.y.interval or ())]
    bottom = max(min([*ends, low]) - 0.1 * span, low - 1.0 * span, 0.0)
    top = min(max([*ends, high]) + 0.1 * span, high + 1.0 * span)
    return bottom, min(top, 100.0)


def _widths(places: list[_Place]) -> tuple[float, float]:
    xs = [place.x.mean for place in places]
    left, right = min([*xs, 0.0]), max(xs)
    room = max(right - left, 5.0)
    return left - 0.04 * room, right + 0.09 * room


def _left_is_free(places: list[_Place]) -> bool:
    """Whether there is more room on the left of all points than on their right."""
    xs = [place.x.mean for place in places if place.key.kind != "baseline"]
    left, right = _widths(places)
    return min(xs) - left > right - max(xs)


_COLUMNS = (
    Column("what", "what"),
    Column("arm", "arm"),
    Column("kind", "kind"),
    Column("spacing", "spacing"),
    Column("scaled", "scaled"),
    Column("t0", "t0"),
    Column("run", "run"),
    Column("seed", "seed"),
    Column("runs", "runs"),
    Column("saving_percent", "predicted saving", decimals=1, unit="%"),
    Column("error_percent", "test error", decimals=2, unit="%"),
    Column("error_interval", "95 % interval", decimals=2, unit="%", interval=True),
)


def _table(records: Records) -> Table:
    full = _full_steps(records)
    rows: list[tuple[Cell, ...]] = []
    for place in _places(records):
        first = place.runs[0]
        head: tuple[Cell, ...] = (place.key.arm, first.kind, first.spacing, first.scaled, first.t0)
        y = place.y
        rows.append(("mean", *head, None, None, y.count, place.x.mean, y.mean, y.interval))
        rows += [
            ("run", *head, run.name, run.seed, 1, _saving(run, full), run.error, None)
            for run in place.runs
        ]
    return Table("tradeoff", "Error against predicted saving", _COLUMNS, tuple(rows))


def _arms(records: Records) -> list[ArmKey]:
    return [place.key for place in _places(records)]


TRADEOFF = FigureKind(
    "tradeoff", "Error against predicted saving", _missing, _caption, _draw, _table, _arms
)
