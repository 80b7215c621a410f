r"""Which freeze times: the least learning time lost for a saving, and fewer freeze events.

Write $x_i = 1 - t_i$ for the learning time that layer $i$ loses, $c_i$ for the fraction of a step
that is saved while it is frozen, and $w_i$ for what its learning time is worth.

*Budget.* Minimise $\sum w_i x_i^2$ over $1 - t_{\min} \ge x_0 \ge x_1 \ge \dots \ge 0$ with
$\sum c_i x_i = s$. (Without the square it would be a linear program, whose answer is to take all
learning time away from a few layers.) For a multiplier $\mu$ this is the isotonic regression of
$\mu c_i / w_i$ with weights $w_i$. That is homogeneous in $\mu$, and bounds only clip it:

$$x_i = \min(\mu\, m_i,\ 1 - t_{\min}), \qquad m = \text{pooled } c_i / w_i .$$

Pooling averages neighbours, $\sum c / \sum w$, until $m$ never rises. So $m$ is found once, and
$\mu$ follows from $s$.

*Merging.* Consecutive layers that freeze together at the mean of their times, weighted by $c_i$,
save exactly what they saved apart. Which layers go together is chosen so that
$\sum c_i (t_i - \tau)^2$ is least, by dynamic programming.

Standard library only.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import accumulate
from math import fsum
from operator import mul

__all__ = ["budget_times", "default_weights", "merge_times", "pooled"]


def default_weights(num_layers: int) -> tuple[float, ...]:
    """One over the number of layers behind, for all layers but the last, which never freezes.

    The more layers behind one still learn, the better can they make up for it. With equal costs
    these weights give the paper's linear freeze times.
    """
    return tuple(1.0 / (num_layers - 1 - i) for i in range(num_layers - 1))


def pooled(values: Sequence[float], weights: Sequence[float]) -> list[float]:
    """The never rising sequence nearest to ``values / weights`` in squares weighted by `weights`.

    This is the pool-adjacent-violators algorithm.

    Args:
        values: $c_i$.
        weights: $w_i$, each above 0.
    """
    blocks: list[tuple[float, float, int]] = []  # sum of values, sum of weights, size
    for value, weight in zip(values, weights, strict=True):
        block = (value, weight, 1)
        while blocks and blocks[-1][0] / blocks[-1][1] < block[0] / block[1]:
            before = blocks.pop()
            block = (before[0] + block[0], before[1] + block[1], before[2] + block[2])
        blocks.append(block)
    return [value / weight for value, weight, size in blocks for _ in range(size)]


def budget_times(slopes: Sequence[float], multiplier: float, least: float) -> tuple[float, ...]:
    r"""Freeze times of the layers before the last, and 1 for the last.

    Args:
        slopes: $m_i$ from `pooled`.
        multiplier: $\mu$, at least 0. The saving rises with it.
        least: $t_{\min}$, the earliest freeze time, in (0, 1].
    """
    return (*(min(max(1.0 - multiplier * slope, least), 1.0) for slope in slopes), 1.0)


def merge_times(times: Sequence[float], costs: Sequence[float], most: int) -> tuple[float, ...]:
    """Freeze times with at most `most` different values below 1, which save the same.

    Args:
        times: Freeze times, never decreasing, the last 1.
        costs: What each layer saves per unit of time while it is frozen; negative ones count 0.
        most: Number of freeze events, at least 1.

    Returns:
        One time per layer.
    """
    count = sum(t < 1.0 for t in times)
    if len(set(times[:count])) <= most:
        return tuple(times)
    # A layer that saves nothing still follows its neighbours, by next to no weight.
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
        merged[:0] = [min(max(mean, times[a]), times[b - 1])] * (b - a)  # in spite of rounding
        b = a
    return (*merged, *times[count:])


def _one_group_more(
    before: Sequence[float], spread: Callable[[int, int], float]
) -> tuple[list[float], list[int]]:
    """The least total spread of the first 0, 1, 2 ... layers, and where the last group begins.

    The best beginning never moves back as layers are added, because times are sorted; so each half
    of the layers searches on its own side of the middle's best beginning.

    Args:
        before: The least total spread with one group less.
        spread: Of a group from one layer up to another.
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
