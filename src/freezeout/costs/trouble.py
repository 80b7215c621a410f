"""Costs that cannot be right: they were measured while something else kept the machine busy."""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import pairwise
from typing import TYPE_CHECKING

from freezeout.text import milliseconds, percent

if TYPE_CHECKING:
    from freezeout.costs.costs import Costs

__all__ = ["order_statistic", "trouble_in", "trouble_words"]

BELOW = 0.05
"""A cost of a layer may come out this share of a step below 0, and a rise as much above it."""

WIDE = 0.3
"""Widest interval of the saving with all but the last layer frozen, as a fraction."""


def trouble_in(costs: Costs) -> str:
    """Return in a few words what in costs cannot be right; nothing if they may well be.

    That is: a step that gets slower as more of it freezes, where not all rounds agree on it; costs
    below 0; rounds that differ so much that nobody knows what freezing saves. Small slips are the
    noise of any measurement and do not count.
    """
    return "; ".join([*_rises(costs), *_negative(costs), *_wide(costs)])


def trouble_words(costs: Costs) -> str:
    """Return a sentence about costs that are spoilt, and what to do; empty if they are not."""
    if not costs.trouble:
        return ""
    return (
        f"spoilt costs, not to be relied on: {costs.trouble}. The machine was disturbed while they "
        "were measured: measure again when it is quiet, with fewer threads, or in more rounds."
    )


def order_statistic(count: int, level: float = 0.95) -> int | None:
    """Return how many values to leave out at each end so that the rest covers the median."""
    tail, outside = 0.0, None
    for k in range((count + 1) // 2):
        tail += 2 * math.comb(count, k) / 2**count
        if tail > 1.0 - level:
            break
        outside = k
    return outside


def _rises(costs: Costs) -> Iterator[str]:
    unfrozen = costs.step_seconds(0)
    for k, (a, b) in enumerate(pairwise(costs.depths)):
        before, after = costs.step_seconds(a), costs.step_seconds(b)
        if after - before > BELOW * unfrozen and not _really_rises(costs, k):
            yield (
                f"a step gets slower as more freezes ({milliseconds(before)} with {a} of "
                f"{len(costs)} layers frozen, {milliseconds(after)} with {b})"
            )
            return


def _really_rises(costs: Costs, k: int) -> bool:
    """Return whether all rounds agree: then another kernel runs, and it is slower."""
    return len(costs.rounds) > 1 and all(row[k + 1] > row[k] for row in costs.rounds)


def _negative(costs: Costs) -> Iterator[str]:
    """Tell of costs below 0, but for layers whose freezing really makes a step slower."""
    least = -BELOW * costs.step_seconds(0)
    real = {
        i
        for k, (a, b) in enumerate(pairwise(costs.depths))
        if _really_rises(costs, k)
        for i in range(a, b)
    }
    worst = {
        layer.name: min(layer.forward, layer.frozen_forward, layer.optimizer, backward)
        for i, layer in enumerate(costs.layers)
        for backward in [0.0 if i in real else layer.backward]
    }
    below = {name: seconds for name, seconds in worst.items() if seconds < least}
    if costs.overhead < least:
        below["outside the layers"] = costs.overhead
    if below:
        name = min(below, key=lambda name: below[name])
        more = f" and of {len(below) - 1} more" if len(below) > 1 else ""
        yield f"the cost of {name!r}{more} is below 0 ({milliseconds(below[name])})"


def _wide(costs: Costs) -> Iterator[str]:
    outside = order_statistic(len(costs.rounds))
    if outside is None:
        return
    savings = sorted(1.0 - row[-1] / row[0] for row in costs.rounds)
    low, high = savings[outside], savings[-1 - outside]
    if high - low > WIDE:
        yield (
            f"with all but the last layer frozen a step saves anything from {percent(low)} to "
            f"{percent(high)}"
        )
