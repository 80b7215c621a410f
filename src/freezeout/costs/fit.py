"""From measured steps to costs of single layers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from itertools import accumulate, pairwise
from math import fsum
from statistics import fmean, median

from freezeout.costs.bench import Measurement, Phases

__all__ = ["Fitted", "fit"]


@dataclass(frozen=True)
class Fitted:
    """Seconds and FLOPs of every layer, as `freezeout.costs.costs.Costs` has them."""

    forward: list[float]
    frozen_forward: list[float]
    backward: list[float]
    optimizer: list[float]
    backward_flops: list[int]
    overhead: float
    depths: tuple[int, ...]
    rounds: tuple[tuple[float, ...], ...]


def fit(found: Measurement) -> Fitted:
    """Return costs of single layers whose sums are the measured steps.

    Args:
        found: What was measured. The optimizer's step is shared in proportion to gradient bytes.
    """
    depths = tuple(found.steps)
    last = len(found.forward) - 1
    rounds = [
        [fmean(p.total for p in found.steps[depth][r]) for depth in depths]
        for r in range(len(found.steps[0]))
    ]
    # Ratios within a round, so that a drift of the machine cancels; medians against outliers.
    unfrozen = median(row[0] for row in rounds)
    whole = {d: unfrozen * median(row[k] / row[0] for row in rounds) for k, d in enumerate(depths)}

    start = _shares(found.steps[0])
    end = _shares(found.steps[last])
    forward = _apportion(start.forward * whole[0], found.forward, found.forward_flops)
    update = end.optimizer * whole[last]
    others = _apportion(start.optimizer * whole[0] - update, found.gradient_bytes[:last])
    optimizer = [*others, update]
    backward = [0.0] * (last + 1)
    backward[last] = end.backward * whole[last]
    overhead = (end.loss + end.clear) * whole[last]
    # In the deepest step, all of the forward pass but the last layer's is that of frozen layers.
    ratio = (end.forward * whole[last] - forward[last]) / fsum(forward[:last])
    skipped = _skipped(found)
    times, flops = _gains(found.backward, skipped), _gains(found.watched_flops, skipped)
    for a, b in pairwise(depths):
        own = fsum(forward[a:b]) * (1.0 - ratio) + fsum(optimizer[a:b])
        backward[a:b] = _apportion(whole[a] - whole[b] - own, times[a:b], flops[a:b])
    backward_flops = [0] * last + [found.backward_flops[last]]
    for a, b in pairwise(depths):
        drop = found.backward_flops[a] - found.backward_flops[b]
        backward_flops[a:b] = _whole_parts(drop, flops[a:b])
    return Fitted(
        forward=forward,
        frozen_forward=[*(f * ratio for f in forward[:last]), forward[last]],
        backward=backward,
        optimizer=optimizer,
        backward_flops=backward_flops,
        overhead=overhead,
        depths=depths,
        rounds=tuple(map(tuple, rounds)),
    )


def _skipped(found: Measurement) -> list[float]:
    """Return which part of its backward pass a layer skips while it is the first to learn.

    That is the gradient for its input. FLOPs tell it at the measured depths; layers between them
    are assumed to be like their neighbours.
    """
    known = {}
    for depth, flops in found.backward_flops.items():
        in_watched = sum(found.watched_flops[depth:])
        own = found.watched_flops[depth]
        if depth and own:
            known[depth] = min(max((in_watched - flops) / own, 0.0), 1.0)
    depths = sorted(known)
    parts = [0.0]  # the first layer's has no gradient for the input in the watched step either
    for i in range(1, len(found.watched_flops)):
        before = max((d for d in depths if d <= i), default=None)
        after = min((d for d in depths if d >= i), default=None)
        if before is None or after is None:
            near = after if before is None else before
            parts.append(0.0 if near is None else known[near])
        elif before == after:
            parts.append(known[i])
        else:
            weight = (i - before) / (after - before)
            parts.append((1.0 - weight) * known[before] + weight * known[after])
    return parts


def _gains(watched: Sequence[float], skipped: Sequence[float]) -> list[float]:
    """Return how much the backward pass shrinks when each layer freezes after those before it.

    Its own part goes, except for what it skipped already, and the next layer begins to skip.
    """
    following = [*(w * s for w, s in zip(watched[1:], skipped[1:], strict=True)), 0.0]
    pairs = zip(watched, skipped, following, strict=True)
    return [own * (1.0 - skip) + after for own, skip, after in pairs]


def _shares(steps: Sequence[Sequence[Phases]]) -> Phases:
    """Return the typical share of each phase in a step; they add up to 1."""
    taken = [phases for row in steps for phases in row]
    names = [f.name for f in fields(Phases)]
    typical = [median(getattr(p, name) / p.total for p in taken) for name in names]
    return Phases(*(share / fsum(typical) for share in typical))


def _apportion(whole: float, *measures: Sequence[float]) -> list[float]:
    """Split a number in the proportion of the first measure above 0, or evenly."""
    size = len(measures[0])
    for measure_of in measures:
        total = fsum(measure_of)
        if total > 0:
            return [whole * part / total for part in measure_of]
    return [whole / size] * size


def _whole_parts(whole: int, measure_of: Sequence[float]) -> list[int]:
    """Split a whole number into whole numbers in a proportion; nothing is lost to rounding."""
    edges = [0.0, *accumulate(_apportion(float(whole), measure_of))]
    marks = [round(edge) for edge in edges[:-1]] + [whole]
    return [b - a for a, b in pairwise(marks)]
