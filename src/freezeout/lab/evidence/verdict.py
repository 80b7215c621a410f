"""The verdict on one variant, in plain words."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from freezeout.lab.evidence.arms import Arm, error_difference, time_ratio, time_saved
from freezeout.lab.evidence.decision import NEAR, Outcome, Question, Reason, decide, more_seeds
from freezeout.lab.evidence.statistics import Estimate
from freezeout.text import fixed, percent

__all__ = ["Verdict", "judge", "level_text"]

_SAME = 1e-9  # percentage points; the same count of errors, up to rounding


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """Whether freezing paid.

    Attributes:
        variant: Name of the variant.
        outcome: ``"paid"``, ``"did not pay"``, ``"no difference"`` or ``"undecided"``.
        sentence: The outcome and what it rests on, in plain words and ASCII (but for names).
        reason: What the outcome rests on.
        level: Confidence of the intervals that decided it, in (0, 1).
        difference: Error of the variant minus that of its equal-time baseline in percentage points,
            with an interval of that level; ``None`` without paired seeds.
        more_seeds: How many more paired seeds could settle an undecided one; ``None`` if seeds
            would not help or too many are needed.
        as_control: Seeds in which the rate-only control ended with exactly the variant's error.
        unlike_control: Seeds in which it ended with another.
    """

    variant: str
    outcome: Outcome
    sentence: str
    reason: Reason
    level: float
    difference: Estimate | None
    more_seeds: int | None
    as_control: tuple[int, ...]
    unlike_control: tuple[int, ...]

    @property
    def control_sentence(self) -> str:
        """What the control shows where it ended as it must; empty without one."""
        count = len(self.as_control)
        if not count or self.unlike_control:
            return ""
        return (
            "Rates alone, with nothing frozen, end with the same error in "
            f"{'all ' if count > 1 else ''}{count} seed{'s' if count > 1 else ''}."
        )


def judge(
    variant: Arm,
    *,
    baseline: Arm | None,
    equal_time: Arm | None,
    control: Arm | None,
    level: float,
    verdict_level: float,
    margin: float,
) -> Verdict:
    """Judge one variant.

    Args:
        variant: The variant.
        baseline: The full-length baseline, if there is one.
        equal_time: The variant's equal-time baseline, if there is one.
        control: Its rate-only control, if there is one.
        level: Confidence of the intervals shown, in (0, 1).
        verdict_level: Confidence of those that decide, at least `level`.
        margin: Percentage points of error that count as no difference, above 0.

    Returns:
        The verdict.
    """

    def question(at: float) -> Question:
        return Question(
            difference=error_difference(variant, equal_time, at),
            saving=time_saved(variant, baseline, at),
            ratio=None if equal_time is None else time_ratio(equal_time, variant, at),
            has_equal_time=equal_time is not None,
            margin=margin,
            level=at,
        )

    asked, alone = question(verdict_level), question(level)
    outcome, reason = decide(asked)
    more = more_seeds(asked, reason) if outcome == "undecided" else None
    parts = [
        _finding(asked, outcome, reason, more),
        *_alone(outcome, decide(alone)[0], level),
        *_equal_time(asked, reason),
        *_against_full(alone, error_difference(variant, baseline, level)),
    ]
    shared = () if control is None else sorted(variant.errors.keys() & control.errors.keys())
    same = {s for s in shared if control and abs(control.errors[s] - variant.errors[s]) <= _SAME}
    return Verdict(
        variant=variant.name,
        outcome=outcome,
        sentence=" ".join(parts),
        reason=reason,
        level=verdict_level,
        difference=asked.difference,
        more_seeds=more,
        as_control=tuple(seed for seed in shared if seed in same),
        unlike_control=tuple(seed for seed in shared if seed not in same),
    )


# --- Words --------------------------------------------------------------------------------------


def level_text(level: float) -> str:
    """Return a level in percent with at most four digits: ``"95 %"``, ``"98.33 %"``."""
    return f"{100 * level:.4g} %"


def _finding(asked: Question, outcome: Outcome, reason: Reason, more: int | None) -> str:
    """Say the outcome and what it rests on."""
    if reason == "no time saved":
        return "Freezing did not pay: it saved no time."
    if reason == "no equal-time baseline":
        return (
            "Whether freezing pays is open without an equal-time baseline: a plain run, shortened "
            "to the variant's time, might do as well."
        )
    difference = asked.difference
    if difference is None or difference.low is None:
        return (
            "Whether freezing pays cannot be told yet: "
            f"{'no' if difference is None else 'only one'} seed is paired with the equal-time "
            "baseline. At least 2 are needed, 5 are recommended."
        )
    plain = "a plain run of the same time"
    seen = _compared(difference, plain, f"{level_text(asked.level)} interval ")
    if outcome == "paid":
        return f"Freezing paid: {seen}."
    if outcome == "did not pay":
        return f"Freezing did not pay: {seen}. Training for fewer epochs does better."
    if outcome == "no difference":
        return (
            f"Freezing made no difference: {seen}, so the same to within {asked.margin:g} points."
        )
    if reason == "unequal times":
        seen = _compared(difference, "a plain run", f"{level_text(asked.level)} interval ")
    obstacle = _obstacle(reason, f"{difference.count} paired seeds", more)
    return f"Whether freezing pays cannot be told yet: {seen}{obstacle}"


def _obstacle(reason: Reason, seeds: str, more: int | None) -> str:
    """Say why nothing could be decided although there is an interval."""
    if reason == "unequal times":
        return ", but the times were not equal."
    if reason == "saving unknown":
        return ", but without paired times of the full run it is not known to have saved time."
    if reason == "saving uncertain":
        return ", but that it saved time at all is uncertain."
    hope = (
        "More than 10,000 seeds would be needed to tell."
        if more is None
        else f"About {more:,} more seed{'' if more == 1 else 's'} could tell."
    )
    if reason == "equal differences":
        return f", the same in all {seeds}, which does not show how much it varies. {hope}"
    return f", with {seeds}. {hope}"


def _alone(outcome: Outcome, alone: Outcome, level: float) -> Iterator[str]:
    """Say what sharing the level among several variants changed."""
    if alone != outcome:
        yield (
            f"As the only variant, at {level_text(level)}, it would have counted as "
            f'"{alone}"; with several, chance has more to choose from.'
        )


def _equal_time(asked: Question, reason: Reason) -> Iterator[str]:
    """Say how equal the times really were, where that is in doubt."""
    if reason in ("no time saved", "too few seeds") or not asked.has_equal_time:
        return
    if asked.ratio is None:
        yield "Whether the equal-time baseline took as long as the variant is not known."
        return
    off = asked.ratio.mean - 1
    if abs(off) > NEAR:
        yield (
            f"The equal-time baseline took {percent(abs(off))} "
            + ("longer" if off > 0 else "less time")
            + " than the variant, so the comparison "
            + ("is hard on freezing." if off > 0 else "flatters freezing.")
        )


def _against_full(alone: Question, difference: Estimate | None) -> Iterator[str]:
    """Say time and error against the full-length baseline."""
    if alone.saving is None:
        if difference is not None:
            yield f"{_compared(difference, 'the full run', '').capitalize()}."
        return
    # A single pair says what was, not what is.
    pair = "" if alone.saving.interval else "In this one pair of runs "
    text = f"{pair}{'freezing' if pair else 'Freezing'} took {_time(alone.saving)}"
    if difference is not None:
        size = f"{abs(difference.mean):.2f}"
        word = "higher" if difference.mean > 0 else "lower"
        text += (
            " and ended with the same error to two decimals"
            if float(size) == 0
            else f" and ended {size} points {word}"
        )
        text += f" ({_range(difference)})" if difference.interval else ""
    yield f"{text}."


def _compared(difference: Estimate, other: str, label: str) -> str:
    """Write ``"its error is 0.42 points lower than that of ... (-0.74 to -0.10)"``."""
    size = f"{abs(difference.mean):.2f}"
    word = "higher" if difference.mean > 0 else "lower"
    text = (
        f"its error is that of {other} to two decimals"
        if float(size) == 0
        else f"its error is {size} points {word} than that of {other}"
    )
    return f"{text} ({label}{_range(difference)})" if difference.interval else text


def _range(estimate: Estimate) -> str:
    return " to ".join(fixed(end, 2) for end in estimate.interval or ())


def _time(saving: Estimate) -> str:
    """Say the time against the full run; numbers count in the direction that is named."""
    sign = -1 if saving.mean < 0 else 1
    ends = sorted(100 * sign * end for end in saving.interval or ())
    text = f"{percent(abs(saving.mean))} {'more' if sign < 0 else 'less'} time than the full run"
    return f"{text} ({' to '.join(fixed(end, 1) for end in ends)})" if ends else text
