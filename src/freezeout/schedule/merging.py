r"""Let neighbouring layers freeze at the same moment, so that fewer moments are left.

Consecutive layers that freeze together at the mean $\tau$ of their times, weighted by what each
saves ($c_i$), save exactly what they saved apart. Which layers go together is chosen so that
$\sum c_i (t_i - \tau)^2$ is least, by dynamic programming. Standard library only.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import accumulate
from math import fsum
from operator import mul

__all__ = ["merge_times"]


def merge_times(times: Sequence[float], costs: Sequence[float], most: int) -> tuple[float, ...]:
    """Return freeze times with at most `most` different values below 1, which save the same.

    Args:
        times: Freeze times, never decreasing, the last 1.
        costs: What each layer saves per unit of time while it is frozen; below 0 counts as 0.
        most: Number of freeze events, at least 1.

    Returns:
        One time per layer.
    """
    count = sum(t < 1.0 for t in times)
    if len(set(times[:count])) <= most:
        return tuple(times)
    # A layer that saves nothing follows its neighbours; a tiny weight keeps the means defined.
    unit = max(costs[:count])
    weights = [max(c / unit, 1e-9) if unit > 0.0 else 1.0 for c in costs[:count]]
    w = [0.0, *accumulate(weights)]
    wt = [0.0, *accumulate(c * t for c, t in zip(weights, times, strict=False))]
    wtt = [0.0, *accumulate(c * t * t for c, t in zip(weights, times, strict=False))]

    def spread(a: int, b: int) -> float:
        return wtt[b] - wtt[a] - (wt[b] - wt[a]) ** 2 / (w[b] - w[a])

    best = [spread(0, b) if b else 0.0 for b in range(count + 1)]
    cuts = [[0] * (count + 1)]
    for _ in range(1, most):
        best, cut = _one_group_more(best, spread)
        cuts.append(cut)
    merged: list[float] = []
    b = count
    for cut in reversed(cuts):
        if b == 0:
            break
        a = cut[b]
        mean = fsum(map(mul, weights[a:b], times[a:b])) / fsum(weights[a:b])
        merged[:0] = [min(max(mean, times[a]), times[b - 1])] * (b - a)  # despite rounding
        b = a
    return (*merged, *times[count:])


def _one_group_more(
    before: Sequence[float], spread: Callable[[int, int], float]
) -> tuple[list[float], list[int]]:
    """Return the least total spread of the first 0, 1, 2 ... layers, and the last group's begin.

    The best beginning never moves back as layers are added, because times are sorted; so each half
    of the layers searches on its own side of the middle's best beginning.

    Args:
        before: The least total spread with one group less.
        spread: Gives the spread of a group from one layer up to another.
    """
    best, begin = [before[0]] + [0.0] * (len(before) - 1), [0] * len(before)
    pending = [(1, len(before) - 1, 0, len(before) - 1)]
    while pending:
        first, last, low, high = pending.pop()
        if first > last:
            continue
        middle = (first + last) // 2
        found = range(low, min(high, middle - 1) + 1)
        a = min(found, key=lambda a: before[a] + spread(a, middle))
        best[middle], begin[middle] = before[a] + spread(a, middle), a
        pending += [(first, middle - 1, low, a), (middle + 1, last, a, high)]
    return best, begin
