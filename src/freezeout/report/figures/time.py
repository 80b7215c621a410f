"""Error against measured time, with the equal-time baseline: the paper's fourth figure."""

from __future__ import annotations

import math
from statistics import median

from matplotlib.axes import Axes

from freezeout.evidence.record import RunRecord, Tested
from freezeout.report.arms import ArmKey, by_arm, final_runs, known
from freezeout.report.figures._drawing import Drawing, drawing_style, dress
from freezeout.report.figures._kind import FigureKind, Records
from freezeout.report.figures._points import estimate, mean_text, run_text, thin
from freezeout.report.palette import Palette
from freezeout.report.table import Cell, Column, Table

__all__ = ["TIME"]

_MOST_TESTS = 100


def _tests(record: RunRecord) -> list[Tested]:
    tests = [test for test in record.tested if known(test.error) is not None]
    return [tests[i] for i in thin(len(tests), _MOST_TESTS)]


def _tested(records: Records) -> list[RunRecord]:
    return [run for run in records if _tests(run)]


def _unit(records: Records) -> tuple[str, float]:
    """Unit of the time axis, and seconds in it."""
    longest = max(run.train_seconds for run in records)
    if longest < 180:
        return "seconds", 1.0
    return ("minutes", 60.0) if longest < 3 * 3600 else ("hours", 3600.0)


def _missing(records: Records) -> str | None:
    return None if _tested(records) else "No run here was tested yet."


def _caption(records: Records) -> str:
    shown = _tested(records)
    unit, _ = _unit(shown)
    parts = [f"Test error (%, lower is better) against measured training time ({unit}, testing"]
    parts[0] += " and saving not counted; further left is better)."
    if final_runs(shown):
        parts.append(
            "Large points are final errors: means over seeds with 95 % confidence intervals in "
            "both directions; small ones are single runs."
        )
    if _cut(shown):
        parts.append("Intervals that run out of the axes are cut off there.")
    parts.append(
        "Thin lines are the runs on their way there; what lies before they come near is cut off."
    )
    if any(run.kind == "equal-time" for run in shown):
        parts.append(
            "Hollow diamonds are equal-time baselines: nothing frozen, trained for fewer epochs so "
            "as to take as long as the variant of the same colour."
        )
    if any(run.kind == "control" for run in shown):
        parts.append("Hollow crosses are controls: a variant's rates, but nothing frozen.")
    return " ".join(parts)


def _draw(records: Records, palette: Palette, width: float) -> Drawing:
    with drawing_style():
        drawing = Drawing(width, 4.6 if width >= 6 else 4.0)
        axes = drawing.figure.subplots()
        dress(axes)
        shown = _tested(records)
        unit, scale = _unit(shown)
        bottom, top = _limits(shown)
        axes.set_ylim(bottom, top)
        left, right = _span(shown)
        axes.set_xlim(left / scale, right / scale)
        for run in shown:
            _draw_curve(drawing, axes, run, palette, scale)
        for key, runs in by_arm(final_runs(shown)).items():
            _draw_arm(drawing, axes, key, runs, palette, scale, unit)
        axes.set_xlabel(f"training time ({unit})")
        axes.set_ylabel("test error (%)")
    return drawing


def _draw_curve(
    drawing: Drawing, axes: Axes, run: RunRecord, palette: Palette, scale: float
) -> None:
    tests = _tests(run)
    drawing.line(
        axes,
        [test.seconds / scale for test in tests],
        [test.error for test in tests],
        palette[run],
        text=run_text(run, palette[run]),
        width=0.8,
        alpha=0.4,
        zorder=3,
    )


def _draw_arm(
    drawing: Drawing,
    axes: Axes,
    key: ArmKey,
    runs: list[RunRecord],
    palette: Palette,
    scale: float,
    unit: str,
) -> None:
    style = palette[key]
    x = estimate(runs, lambda run: run.train_seconds / scale)
    y = estimate(runs, lambda run: run.error)
    if x is None or y is None:
        return
    if len(runs) > 1:
        for run in runs:
            if (error := known(run.error)) is not None:
                at = run.train_seconds / scale
                drawing.points(axes, style, at, error, run_text(run, style), size=4, alpha=0.45)
    if x.low is not None and x.high is not None:
        drawing.bar(axes, (x.low, x.high), (y.mean, y.mean), style)
    if y.low is not None and y.high is not None:
        drawing.bar(axes, (x.mean, x.mean), (y.low, y.high), style)
    facts = [("training time", x, unit, 2), ("test error", y, "%", 2)]
    text = run_text(runs[0], style) if len(runs) == 1 else mean_text(style, facts)
    drawing.points(axes, style, x.mean, y.mean, text)


def _ends(records: Records) -> list[float]:
    return [max(run.train_seconds, _tests(run)[-1].seconds, 1e-6) for run in records]


def _left(records: Records, top: float) -> float:
    """Seconds at which the first run comes into view; 0 if that is early."""
    seen = [test.seconds for run in records for test in _tests(run) if test.error <= top]
    first = 0.85 * min(seen, default=0.0)
    return first if first > 0.2 * max(_ends(records)) else 0.0


def _limits(records: Records) -> tuple[float, float]:
    """Errors worth seeing: the final ones, with some of the way there."""
    finals = [_tests(run)[-1].error for run in final_runs(records)]
    if not finals:
        finals = [_tests(run)[-1].error for run in records]
        finals = [error for error in finals if error <= 2 * median(finals) + 1]
    low, high = min(finals), max(finals)
    span = max(high - low, 0.05 * high, 0.1)
    least, most = _reach(_intervals(records)[1])
    bottom = min(low - 0.4 * span, max(least - 0.1 * span, low - 1.0 * span))
    top = max(high + 1.4 * span, min(most + 0.1 * span, high + 2.0 * span))
    return max(0.0, bottom), min(100.0, top)


def _span(records: Records) -> tuple[float, float]:
    """Seconds worth seeing: from where runs come into view to their ends."""
    left, last = _left(records, _limits(records)[1]), max(_ends(records))
    least, most = _reach(_intervals(records)[0])
    right = max(last, min(most, 1.25 * last))
    return max(0.0, min(left, 0.97 * least)), 1.03 * right


def _intervals(records: Records) -> tuple[list[float], list[float]]:
    """Ends of the intervals of arms, in seconds and in percent of error."""
    seconds: list[float] = []
    errors: list[float] = []
    for runs in by_arm(final_runs(records)).values():
        for ends, value in ((seconds, _seconds), (errors, _error)):
            found = estimate(runs, value)
            ends += found.interval or () if found else ()
    return seconds, errors


def _seconds(run: RunRecord) -> float:
    return run.train_seconds


def _error(run: RunRecord) -> float | None:
    return run.error


def _reach(ends: list[float]) -> tuple[float, float]:
    """Lowest and highest; without any, what changes no limit."""
    return min(ends, default=math.inf), max(ends, default=-math.inf)


def _cut(records: Records) -> bool:
    """Whether an interval runs out of the axes."""
    limits = (_span(records), _limits(records))
    return any(
        end < low or end > high
        for ends, (low, high) in zip(_intervals(records), limits, strict=True)
        for end in ends
    )


_COLUMNS = (
    Column("what", "what"),
    Column("arm", "arm"),
    Column("kind", "kind"),
    Column("run", "run"),
    Column("seed", "seed"),
    Column("runs", "runs"),
    Column("step", "step"),
    Column("seconds", "training time", decimals=1, unit="s"),
    Column("seconds_interval", "95 % interval", decimals=1, unit="s", interval=True),
    Column("error_percent", "test error", decimals=2, unit="%"),
    Column("error_interval", "95 % interval", decimals=2, unit="%", interval=True),
)


def _table(records: Records) -> Table:
    rows: list[tuple[Cell, ...]] = []
    shown = _tested(records)
    for key, runs in by_arm(final_runs(shown)).items():
        x = estimate(runs, lambda run: run.train_seconds)
        y = estimate(runs, lambda run: run.error)
        if x is None or y is None:
            continue
        values = (x.mean, x.interval, y.mean, y.interval)
        rows.append(("mean", key.arm, key.kind, None, None, y.count, None, *values))
        for run in runs:
            head = (key.arm, key.kind, run.name, run.seed, 1, run.steps)
            rows.append(("run", *head, run.train_seconds, None, run.error, None))
    for key, runs in by_arm(shown).items():
        for run in runs:
            for test in _tests(run):
                head = (key.arm, key.kind, run.name, run.seed, 1, test.step)
                rows.append(("test", *head, test.seconds, None, test.error, None))
    return Table("time", "Error against measured time", _COLUMNS, tuple(rows))


def _arms(records: Records) -> list[ArmKey]:
    return list(by_arm(_tested(records)))


TIME = FigureKind("time", "Error against measured time", _missing, _caption, _draw, _table, _arms)
