r"""Means, paired differences and ratios of runs with their confidence intervals; how many to run.

Everything rests on Student's t distribution ("The probable error of a mean", Biometrika 6, 1908):
values are taken to scatter normally around their mean, and runs of different seeds to be
independent. Few runs have wide intervals; a single one has none.
"""

from __future__ import annotations

import math
import statistics
from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal, TypeAlias

from freezeout.errors import check_fraction, check_number, check_whole

__all__ = [
    "Estimate",
    "Found",
    "check_level",
    "difference_found",
    "mean_interval",
    "paired_difference",
    "ratio_interval",
    "saving_interval",
    "seeds_needed",
    "seeds_to_narrow",
    "spread_of",
]

Found: TypeAlias = Literal["lower", "higher", "none", "unknown"]
"""What an interval says of a difference; ``"none"`` was found is not "there is none"."""

_LARGEST_LOG = 700.0  # two pairs that differ much, and many variants, leave the ratio open
_MOST_SEEDS = 10_000
_LARGEST_EFFECT = 100.0  # in standard deviations; beyond it, power no longer depends on it


@dataclass(frozen=True)
class Estimate:
    """A mean and its confidence interval.

    Attributes:
        mean: The estimate.
        low: Lower end of the interval; ``None`` if there is none, as for a single value.
        high: Upper end; given if and only if `low` is.
        count: Number of values, or of pairs, behind it.

    Raises:
        ValueError: If only one end is given, the ends and the mean are out of order, or `count` is
            below 1.
    """

    mean: float
    low: float | None
    high: float | None
    count: int

    def __post_init__(self) -> None:
        check_whole("count", self.count, "Leave the estimate out.", least=1)
        if (self.low is None) != (self.high is None):
            raise ValueError(
                f"low and high must both be numbers or both None, got {self.low} and {self.high}. "
                "Leave the interval out if an end is unknown."
            )
        if self.interval is not None and not self.interval[0] <= self.mean <= self.interval[1]:
            raise ValueError(
                "low, mean and high must be in this order, got "
                f"{self.low}, {self.mean}, {self.high}. Swap the ends."
            )

    @property
    def interval(self) -> tuple[float, float] | None:
        """Both ends, or ``None``."""
        return None if self.low is None or self.high is None else (self.low, self.high)


def check_level(level: float) -> None:
    """Raise unless the confidence of an interval lies in (0, 1)."""
    check_fraction("level", level, "Usual is 0.95.", within="(0, 1)")


def difference_found(difference: Estimate) -> Found:
    """Return which way a difference points, if its interval leaves out 0.

    Args:
        difference: A difference with its interval.

    Returns:
        ``"lower"`` or ``"higher"`` if the whole interval lies below or above 0, ``"none"`` if it
        holds 0 (which does not show that there is no difference), ``"unknown"`` without interval.

    Example:
        >>> difference_found(Estimate(-0.3, -0.5, -0.1, 5))
        'lower'
    """
    if difference.low is None or difference.high is None:
        return "unknown"
    return "lower" if difference.high < 0 else "higher" if difference.low > 0 else "none"


def mean_interval(values: Sequence[float], level: float = 0.95) -> Estimate:
    r"""Return the mean of values with Student's interval.

    For $n$ values with mean $m$ and standard deviation $s$ (with $n - 1$), the interval is
    $m \pm t_{n-1,(1+\text{level})/2}\; s/\sqrt n$.

    Args:
        values: At least one finite number, in any unit.
        level: Confidence, in (0, 1).

    Returns:
        Mean and interval in the unit of the values. One value has no interval; that of values that
        are all equal has no width, which says little if they are few.

    Raises:
        ValueError: If there is no value, one is not finite, or `level` is outside its range.

    Example:
        >>> mean_interval([4.0, 5.0, 6.0]).mean
        5.0

    Reference:
        Student, "The probable error of a mean", Biometrika 6, 1908.
    """
    check_level(level)
    numbers = [float(value) for value in values]
    if not numbers or not all(map(math.isfinite, numbers)):
        raise ValueError(
            f"values must be one or more finite numbers, got {numbers}. Leave out failed runs."
        )
    count = len(numbers)
    mean = statistics.fmean(numbers)
    if count == 1:
        return Estimate(mean, None, None, 1)
    half = _quantile(level, count) * statistics.stdev(numbers) / math.sqrt(count)
    return Estimate(mean, mean - half, mean + half, count)


def paired_difference(a: Sequence[float], b: Sequence[float], level: float = 0.95) -> Estimate:
    r"""Return the mean of $a_j - b_j$ over pairs with Student's interval (the paired t test).

    What both values of a pair share, such as the start and the order of data that a seed decides,
    drops out.

    Args:
        a: One finite number per pair.
        b: As many, in the same order and unit.
        level: Confidence, in (0, 1).

    Returns:
        Mean difference and interval, in the unit of the values.

    Raises:
        ValueError: If the numbers of values differ, or for the reasons of `mean_interval`.

    Example:
        >>> paired_difference([5.0, 6.0], [4.0, 4.0]).mean
        1.5

    Reference:
        Student, "The probable error of a mean", Biometrika 6, 1908, section IX.
    """
    return mean_interval([x - y for x, y in _pairs(a, b)], level)


def ratio_interval(a: Sequence[float], b: Sequence[float], level: float = 0.95) -> Estimate:
    r"""Return the typical $a_j / b_j$: the geometric mean, with Student's interval of the logs.

    $\exp$ of the mean, and of both ends of the interval, of $\log a_j - \log b_j$.

    Args:
        a: One number above 0 per pair, such as seconds.
        b: As many, in the same order and unit.
        level: Confidence, in (0, 1).

    Returns:
        Ratio and interval, above 0.

    Raises:
        ValueError: If a number is not above 0, the numbers of values differ, or for the reasons of
            `mean_interval`.

    Example:
        >>> round(ratio_interval([80.0, 40.0], [100.0, 50.0]).mean, 12)
        0.8
    """
    if not all(math.isfinite(value) and value > 0 for value in (*a, *b)):
        raise ValueError(
            f"a and b must be finite and above 0, got {list(a)} and {list(b)}. "
            "Leave out runs without a time."
        )
    logs = mean_interval([math.log(x / y) for x, y in _pairs(a, b)], level)
    ends = [
        None if end is None else math.exp(min(end, _LARGEST_LOG)) for end in (logs.low, logs.high)
    ]
    return Estimate(math.exp(logs.mean), ends[0], ends[1], logs.count)


def saving_interval(
    seconds: Sequence[float], baseline: Sequence[float], level: float = 0.95
) -> Estimate:
    r"""Return the fraction of time saved over pairs: $1 - \text{ratio}$ of `ratio_interval`.

    Args:
        seconds: Time of one run per pair, above 0.
        baseline: Time of its baseline, in the same order.
        level: Confidence, in (0, 1).

    Returns:
        Saving and interval as fractions below 1; negative where the run took longer.

    Raises:
        ValueError: For the reasons of `ratio_interval`.

    Example:
        >>> round(saving_interval([80.0, 40.0], [100.0, 50.0]).mean, 12)
        0.2
    """
    ratio = ratio_interval(seconds, baseline, level)
    low, high = (None, None) if ratio.interval is None else ratio.interval
    return Estimate(
        1 - ratio.mean,
        None if high is None else 1 - high,
        None if low is None else 1 - low,
        ratio.count,
    )


def seeds_needed(
    differences_sd: float,
    delta: float,
    level: float = 0.95,
    power: float = 0.8,
    most: int = _MOST_SEEDS,
) -> int | None:
    r"""Return how many paired seeds a two-sided paired t test needs to find a difference.

    The smallest $n$ with $P(F_{1,\,n-1}(n\,\delta^2/\sigma^2) > F^{-1}_{1,\,n-1}(\text{level}))
    \ge \text{power}$, with $F$ noncentral on the left: the square of the noncentral t.

    Args:
        differences_sd: Standard deviation $\sigma$ of the paired differences, at least 0.
        delta: The mean difference $\delta$ to be found, not 0, in the same unit.
        level: Confidence of the interval that must leave out 0, in (0, 1).
        power: Wanted chance that it does, in (0, 1).
        most: Largest answer, at least 2.

    Returns:
        Number of pairs, at least 2; ``None`` if more than `most` were needed.

    Raises:
        ValueError: If an argument is outside its range.

    Example:
        >>> seeds_needed(0.3, 0.25)
        14

    Reference:
        Cohen, "Statistical Power Analysis for the Behavioral Sciences", 2nd ed. 1988, chapter 2.
    """
    check_level(level)
    _check_spread(differences_sd, most)
    check_fraction("power", power, "Usual is 0.8.", within="(0, 1)")
    if not (math.isfinite(delta) and delta != 0):
        raise ValueError(f"delta must be finite and not 0, got {delta}. No test finds nothing.")
    if abs(delta) >= _LARGEST_EFFECT * differences_sd:
        effect = _LARGEST_EFFECT
    else:
        effect = abs(delta) / differences_sd

    from scipy.stats import f, ncf  # takes a second to load

    def power_of(count: int) -> float:
        # The noncentral t itself comes out as nan where one tail is very thin.
        return float(ncf.sf(f.isf(1 - level, 1, count - 1), 1, count - 1, count * effect**2))

    return _first_count(lambda count: power_of(count) >= power, most)


def seeds_to_narrow(
    differences_sd: float, half_width: float, level: float = 0.95, most: int = _MOST_SEEDS
) -> int | None:
    r"""Return how many paired seeds make Student's interval of a mean this narrow.

    The smallest $n$ with $t_{n-1,(1+\text{level})/2}\;\sigma/\sqrt n <$ `half_width`, if the
    differences to come scatter as those before.

    Args:
        differences_sd: Standard deviation $\sigma$ of the paired differences, at least 0.
        half_width: Half the wanted width, above 0, in the same unit.
        level: Confidence of the interval, in (0, 1).
        most: Largest answer, at least 2.

    Returns:
        Number of pairs, at least 2; ``None`` if more than `most` were needed.

    Raises:
        ValueError: If an argument is outside its range.

    Example:
        >>> seeds_to_narrow(0.3, 0.125)
        25
    """
    check_level(level)
    _check_spread(differences_sd, most)
    check_number("half_width", half_width, "Give half the interval.", above=0.0)
    return _first_count(
        lambda count: _quantile(level, count) * differences_sd / math.sqrt(count) < half_width, most
    )


def spread_of(estimate: Estimate, level: float) -> float:
    r"""Return the standard deviation that Student's interval came from.

    Half its width times $\sqrt n / t_{n-1,(1+\text{level})/2}$.

    Args:
        estimate: What `mean_interval` or `paired_difference` returned for two values or more.
        level: The level they were given.

    Returns:
        The standard deviation of the values, up to rounding.

    Raises:
        ValueError: If there is no interval, or `level` is outside its range.

    Example:
        >>> round(spread_of(mean_interval([4.0, 5.0, 6.0]), 0.95), 12)
        1.0
    """
    check_level(level)
    if estimate.low is None or estimate.high is None:
        raise ValueError("estimate must have an interval, got none. Two values are needed.")
    half = (estimate.high - estimate.low) / 2
    return half * math.sqrt(estimate.count) / _quantile(level, estimate.count)


@lru_cache(maxsize=1024)
def _quantile(level: float, count: int) -> float:
    """Return half the width of Student's interval of a mean, in standard errors."""
    from scipy.stats import t

    return float(t.ppf((1 + level) / 2, count - 1))


def _first_count(enough: Callable[[int], bool], most: int) -> int | None:
    """Return the smallest count that is enough; every larger one must be enough too."""
    counts = range(2, most + 1)
    position = bisect_left(counts, True, key=enough)
    return counts[position] if position < len(counts) else None


def _pairs(a: Sequence[float], b: Sequence[float]) -> list[tuple[float, float]]:
    if len(a) != len(b):
        raise ValueError(
            f"a and b must be equally long, got {len(a)} and {len(b)} values. Pair them by seed."
        )
    return list(zip(a, b, strict=True))


def _check_spread(differences_sd: float, most: int) -> None:
    check_number("differences_sd", differences_sd, "Take it from pilot runs.", least=0.0)
    check_whole("most", most, "One pair has no spread.", least=2)
