"""Whether freezing paid, decided from intervals alone. The words for it are in `verdict`."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, TypeAlias

from freezeout.lab.evidence.statistics import (
    Estimate,
    difference_found,
    seeds_needed,
    seeds_to_narrow,
    spread_of,
)

__all__ = ["FAR", "NEAR", "Outcome", "Question", "Reason", "decide", "more_seeds"]

Outcome: TypeAlias = Literal["paid", "did not pay", "no difference", "undecided"]
"""Whether freezing paid; ``"no difference"``: a plain run of the same time does as well."""

Reason: TypeAlias = Literal[
    "lower error",
    "higher error",
    "same error",
    "no time saved",
    "no equal-time baseline",
    "too few seeds",
    "equal differences",
    "wide interval",
    "unequal times",
    "saving unknown",
    "saving uncertain",
]
"""What an outcome rests on."""

NEAR, FAR = 0.03, 0.10
"""How far the times of a variant and its equal-time baseline may differ, as fractions.

Beyond the first the verdict says so; beyond the second it is not given where that may have made it.
"""

_RECOMMENDED_SEEDS = 5
_NO_SPREAD = 1e-9  # in percentage points; errors are differences of counts, up to rounding


@dataclass(frozen=True, kw_only=True)
class Question:
    """What a verdict rests on.

    Attributes:
        difference: Error of the variant minus that of its equal-time baseline, in percentage
            points; ``None`` without paired seeds.
        saving: Fraction of the full run's time that the variant saves; ``None`` if unknown.
        ratio: Time of the equal-time baseline over the variant's; ``None`` if unknown.
        has_equal_time: Whether there is an equal-time baseline.
        margin: Percentage points of error that count as no difference, above 0.
        level: Confidence of the intervals, in (0, 1).
    """

    difference: Estimate | None
    saving: Estimate | None
    ratio: Estimate | None
    has_equal_time: bool
    margin: float
    level: float


def decide(question: Question) -> tuple[Outcome, Reason]:
    r"""Decide whether freezing paid, and say what that rests on.

    With $d$ the interval of the difference at equal time and $m$ the margin: paid if $d < 0$ and
    the whole interval of the saving is above 0; did not pay if $d > 0$ or the whole interval of the
    saving is at or below 0; no difference if $d$ lies within $\pm m$; else undecided.

    A wrong decision about the error needs an interval that misses the true difference, so it has at
    most the chance of 1 - `level`. That holds also for ``"no difference"``, which is a test for
    equivalence (Schuirmann 1987) at half that chance on each side.

    Differences that are all equal, as with a small test set, have no spread for Student's t to go
    by. Then the signs decide: without a difference, $n$ equal signs have a chance of $2^{1-n}$.

    Args:
        question: The intervals.

    Returns:
        Outcome and reason.

    Example:
        >>> decide(
        ...     Question(
        ...         difference=Estimate(-0.4, -0.6, -0.2, 5),
        ...         saving=Estimate(0.17, 0.16, 0.18, 5),
        ...         ratio=None,
        ...         has_equal_time=True,
        ...         margin=0.25,
        ...         level=0.95,
        ...     )
        ... )
        ('paid', 'lower error')
    """
    saving = question.saving
    if saving is not None and saving.high is not None and saving.high <= 0:
        return "did not pay", "no time saved"
    if not question.has_equal_time:
        return "undecided", "no equal-time baseline"
    outcome, reason = _at_equal_time(question)
    if _made_by_unequal_times(outcome, question.ratio):
        return "undecided", "unequal times"
    if outcome == "paid" and saving is None:
        return "undecided", "saving unknown"
    if outcome == "paid" and saving is not None and difference_found(saving) != "higher":
        return "undecided", "saving uncertain"
    return outcome, reason


def _at_equal_time(question: Question) -> tuple[Outcome, Reason]:
    difference = question.difference
    if difference is None or difference.low is None or difference.high is None:
        return "undecided", "too few seeds"
    if difference.high - difference.low < _NO_SPREAD and difference.count < _signs_needed(
        question.level
    ):
        return "undecided", "equal differences"
    found = difference_found(difference)
    if found == "lower":
        return "paid", "lower error"
    if found == "higher":
        return "did not pay", "higher error"
    if -question.margin <= difference.low and difference.high <= question.margin:
        return "no difference", "same error"
    return "undecided", "wide interval"


def _made_by_unequal_times(outcome: Outcome, ratio: Estimate | None) -> bool:
    if ratio is None:
        return False
    if outcome == "paid":
        return ratio.mean < 1 - FAR
    return outcome in ("did not pay", "no difference") and ratio.mean > 1 + FAR


def more_seeds(question: Question, reason: Reason) -> int | None:
    """Return how many more paired seeds could settle an undecided question.

    For a wide interval: enough for a chance of 80 % to find a difference as large as the one seen
    or as the margin, whichever is larger. If there are already as many, enough for an interval
    narrower than the margin, which settles it in any case.

    Args:
        question: The intervals.
        reason: Why it is undecided.

    Returns:
        A number of at least 1; ``None`` if seeds would not help or more than 10,000 are needed.
    """
    difference = question.difference
    count = 0 if difference is None else difference.count
    if reason == "too few seeds":
        return _RECOMMENDED_SEEDS - count
    if reason == "equal differences":
        return _signs_needed(question.level) - count
    if reason != "wide interval" or difference is None:
        return None
    spread = spread_of(difference, question.level)
    delta = max(abs(difference.mean), question.margin)
    needed = seeds_needed(spread, delta, question.level)
    if needed is not None and needed <= count:
        needed = seeds_to_narrow(spread, question.margin / 2, question.level)
    return None if needed is None else max(1, needed - count)


def _signs_needed(level: float) -> int:
    return 1 + math.ceil(-math.log2(1 - level))
