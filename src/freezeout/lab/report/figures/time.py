"""Error against measured time, with the equal-time baseline: the paper's fourth figure."""

from __future__ import annotations

import math
from functools import cached_property
from statistics import median

from freezeout.lab.evidence import RunRecord, Tested
from freezeout.lab.report.figures.drawing import Drawing, dress
from freezeout.lab.report.figures.figure import RunsFigure
from freezeout.lab.report.figures.points import ArmPoint, arms_at, draw_arm, run_text, thin
from freezeout.lab.report.grouping import ArmKey, by_arm, final_runs, known
from freezeout.lab.report.table import Cell, Column

__all__ = ["TimeFigure"]

_MOST_TESTS = 100


class TimeFigure(RunsFigure):
    """Error against measured time: every test of every run, and the arms' final errors."""

    id = "time"
    title = "Error against measured time"
    heights = (4.6, 4.0)
    columns = (
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

    @cached_property
    def _shown(self) -> list[RunRecord]:
        """Runs that were tested."""
        return [run for run in self.records if _tests(run)]

    @cached_property
    def _arms(self) -> list[ArmPoint]:
        """Arms with a final error, at their seconds."""
        return arms_at(self._shown, lambda run: run.train_seconds)

    @property
    def arms(self) -> list[ArmKey]:
        """Arms that its legend names."""
        return list(by_arm(self._shown))

    @property
    def missing(self) -> str | None:
        """Why it cannot be drawn, in one line; ``None`` if it can."""
        return None if self._shown else "No run here was tested yet."

    @cached_property
    def _unit(self) -> tuple[str, float]:
        """Unit of the time axis, and seconds in it."""
        longest = max(run.train_seconds for run in self._shown)
        if longest < 180:
            return "seconds", 1.0
        return ("minutes", 60.0) if longest < 3 * 3600 else ("hours", 3600.0)

    def caption(self) -> str:
        """Say what is seen and how to read it, as plain sentences."""
        parts = [
            "Test error (%, lower is better) against measured training time "
            f"({self._unit[0]}, testing and saving not counted; further left is better)."
        ]
        if self._arms:
            parts.append(
                "Large points are final errors: means over seeds with 95 % confidence intervals in "
                "both directions; small ones are single runs."
            )
        limits = (self._span, self._limits)
        if any(
            end < low or end > high
            for ends, (low, high) in zip(self._intervals, limits, strict=True)
            for end in ends
        ):
            parts.append("Intervals that run out of the axes are cut off there.")
        parts.append(
            "Thin lines are the runs on their way there; what lies before they come near is cut "
            "off."
        )
        kinds = {run.kind for run in self._shown}
        if "equal-time" in kinds:
            parts.append(
                "Hollow diamonds are equal-time baselines: nothing frozen, trained for fewer "
                "epochs so as to take as long as the variant of the same colour."
            )
        if "control" in kinds:
            parts.append("Hollow crosses are controls: a variant's rates, but nothing frozen.")
        return " ".join(parts)

    def rows(self) -> list[tuple[Cell, ...]]:
        """Return the drawn numbers: means, single runs and their tests."""
        rows: list[tuple[Cell, ...]] = []
        for arm in self._arms:
            head, x, error = (arm.key.arm, arm.key.kind), arm.x, arm.error
            values = (x.mean, x.interval, error.mean, error.interval)
            rows.append(("mean", *head, None, None, error.count, None, *values))
            for run in arm.runs:
                about = (*head, run.name, run.seed, 1, run.steps)
                rows.append(("run", *about, run.train_seconds, None, run.error, None))
        for key, runs in by_arm(self._shown).items():
            for run in runs:
                for test in _tests(run):
                    about = (key.arm, key.kind, run.name, run.seed, 1, test.step)
                    rows.append(("test", *about, test.seconds, None, test.error, None))
        return rows

    def fill(self, drawing: Drawing) -> None:
        """Draw the way of every run and the final errors of the arms."""
        axes = drawing.figure.subplots()
        dress(axes)
        unit, scale = self._unit
        axes.set_ylim(*self._limits)
        axes.set_xlim(*(end / scale for end in self._span))
        for run in self._shown:
            tests = _tests(run)
            drawing.line(
                axes,
                [test.seconds / scale for test in tests],
                [test.error for test in tests],
                self.palette[run],
                text=run_text(run, self.palette[run]),
                width=0.8,
                alpha=0.4,
                zorder=3,
            )

        def across(run: RunRecord) -> float:
            return run.train_seconds / scale

        for arm in arms_at(self._shown, across):
            style, x, error = self.palette[arm.key], arm.x, arm.error
            if x.low is not None and x.high is not None:
                ends = (x.low, x.high)
                drawing.line(axes, ends, (error.mean, error.mean), style, dash=(), width=1.3)
            if error.low is not None and error.high is not None:
                ends = (error.low, error.high)
                drawing.line(axes, (x.mean, x.mean), ends, style, dash=(), width=1.3)
            draw_arm(drawing, axes, arm, style, across, ("training time", unit, 2))
        axes.set_xlabel(f"training time ({unit})")
        axes.set_ylabel("test error (%)")

    @cached_property
    def _intervals(self) -> tuple[list[float], list[float]]:
        """Ends of the intervals of arms, in seconds and in percent of error."""
        seconds = [end for arm in self._arms for end in arm.x.interval or ()]
        return seconds, [end for arm in self._arms for end in arm.error.interval or ()]

    @cached_property
    def _limits(self) -> tuple[float, float]:
        """Errors worth seeing: the final ones, with some of the way there."""
        finals = [_tests(run)[-1].error for run in final_runs(self._shown)]
        if not finals:
            finals = [_tests(run)[-1].error for run in self._shown]
            finals = [error for error in finals if error <= 2 * median(finals) + 1]
        low, high = min(finals), max(finals)
        span = max(high - low, 0.05 * high, 0.1)
        least, most = _reach(self._intervals[1])
        bottom = min(low - 0.4 * span, max(least - 0.1 * span, low - 1.0 * span))
        top = max(high + 1.4 * span, min(most + 0.1 * span, high + 2.0 * span))
        return max(0.0, bottom), min(100.0, top)

    @cached_property
    def _span(self) -> tuple[float, float]:
        """Seconds worth seeing: from where runs come into view to their ends."""
        top = self._limits[1]
        seen = [t.seconds for run in self._shown for t in _tests(run) if t.error <= top]
        last = max(max(run.train_seconds, _tests(run)[-1].seconds, 1e-6) for run in self._shown)
        left = 0.85 * min(seen, default=0.0)
        left = left if left > 0.2 * last else 0.0  # what comes into view early is shown whole
        least, most = _reach(self._intervals[0])
        right = max(last, min(most, 1.25 * last))
        return max(0.0, min(left, 0.97 * least)), 1.03 * right


def _tests(record: RunRecord) -> list[Tested]:
    """Return the tests of a run that gave a number, at most `_MOST_TESTS`."""
    tests = [test for test in record.tested if known(test.error) is not None]
    return [tests[i] for i in thin(len(tests), _MOST_TESTS)]


def _reach(ends: list[float]) -> tuple[float, float]:
    """Return the lowest and the highest; without any, what changes no limit."""
    return min(ends, default=math.inf), max(ends, default=-math.inf)
