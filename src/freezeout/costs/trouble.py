"""Costs that cannot be right: they were measured while something else kept the machine busy."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

from freezeout.costs.layer_cost import LayerCost
from freezeout.text import milliseconds, percent

__all__ = ["order_statistic", "trouble_in", "trouble_words"]

BELOW = 0.05
"""A cost of a layer may come out this share of a step below 0, and a rise as much above it."""

WIDE = 0.3
"""Widest interval of the saving with all but the last layer frozen, as a fraction."""


def trouble_in(
    layers: Sequence[LayerCost],
    overhead: float,
    depths: Sequence[int],
    rounds: Sequence[Sequence[float]],
    steps: Sequence[float],
) -> str:
    """Return in a few words what in costs cannot be right; nothing if they may well be.

    That is: a step that gets slower as more of it freezes, where not all rounds agree on it; costs
    below 0; rounds that differ so much that nobody knows what freezing saves. Small slips are the
    noise of any measurement and do not count.

    Args:
        layers: Costs of each layer.
        overhead: Seconds of a step that belong to no layer.
        depths: Numbers of frozen layers at which steps were measured.
        rounds: Seconds of a step at each of these depths, one row per round.
        steps: The same as all rounds together have it.
    """
    spans = list(enumerate(pairwise(depths)))
    # Where all rounds agree another kernel runs, and it really is slower.
    agreed = {k for k, _ in spans if len(rounds) > 1 and all(r[k + 1] > r[k] for r in rounds)}
    slower = {i for k, (a, b) in spans if k in agreed for i in range(a, b)}
    found = [
        _rise(depths, steps, agreed, len(layers)),
        _negative(layers, overhead, slower, BELOW * steps[0]),
        _wide(rounds),
    ]
    return "; ".join(filter(None, found))


def trouble_words(trouble: str) -> str:
    """Return a sentence for the trouble in costs, and what to do; empty if there is none."""
    if not trouble:
        return ""
    return (
        f"spoilt costs, not to be relied on: {trouble}. The machine was disturbed while they were "
        "measured: measure again when it is quiet, with fewer threads, or in more rounds."
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


def _rise(depths: Sequence[int], steps: Sequence[float], agreed: set[int], count: int) -> str:
    for k, (before, after) in enumerate(pairwise(steps)):
        if after - before > BELOW * steps[0] and k not in agreed:
            return (
                f"a step gets slower as more freezes ({milliseconds(before)} with {depths[k]} of "
                f"{count} layers frozen, {milliseconds(after)} with {depths[k + 1]})"
            )
    return ""


def _negative(layers: Sequence[LayerCost], overhead: float, slower: set[int], noise: float) -> str:
    """Tell of costs below 0, but for layers whose freezing really makes a step slower."""
    worst = {"outside the layers": overhead}
    for i, layer in enumerate(layers):
        backward = 0.0 if i in slower else layer.backward
        worst[layer.name] = min(layer.forward, layer.frozen_forward, layer.optimizer, backward)
    below = {name: seconds for name, seconds in worst.items() if seconds < -noise}
    if not below:
        return ""
    name = min(below, key=lambda name: below[name])
    more = f" and of {len(below) - 1} more" if len(below) > 1 else ""
    return f"the cost of {name!r}{more} is below 0 ({milliseconds(below[name])})"


def _wide(rounds: Sequence[Sequence[float]]) -> str:
    outside = order_statistic(len(rounds))
    if outside is None:
        return ""
    savings = sorted(1.0 - row[-1] / row[0] for row in rounds)
    low, high = savings[outside], savings[-1 - outside]
    if high - low <= WIDE:
        return ""
    return (
        f"with all but the last layer frozen a step saves anything from {percent(low)} to "
        f"{percent(high)}"
    )
