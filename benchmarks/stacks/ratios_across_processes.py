"""Ratios of step times where several processes train together.

As in `benchmarks.common.ratios`, variants take turns in shuffled orders and figures are medians of
ratios within a round. Here all processes take the same turns, meet before each step outside the
clock, and the time of a step is that of the slowest.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist

from benchmarks.common.measuring import wait_for
from benchmarks.common.ratios import CONFIDENCE, median_interval, orders, paired
from benchmarks.stacks.processes import slowest
from freezeout.costs import no_garbage_collection

__all__ = ["Times", "take_turns", "timed"]


@dataclass(frozen=True)
class Times:
    """Seconds of every variant in every round, those of the slowest process."""

    seconds: Mapping[str, list[float]]

    def median(self, name: str) -> float:
        """Return the median seconds of a variant."""
        return statistics.median(self.seconds[name])

    def ratio(self, numerator: str, denominator: str) -> dict[str, Any]:
        """Return the median of the ratios within rounds, with its interval."""
        ratios = paired(self.seconds[numerator], self.seconds[denominator])
        interval = median_interval(ratios, CONFIDENCE)
        return {
            "median": statistics.median(ratios),
            "interval": None if interval is None else list(interval),
            "rounds": len(ratios),
        }


def timed(action: Callable[[], object], device: torch.device) -> float:
    """Return the seconds that something takes in this process, from when all are ready for it."""
    wait_for(device)
    dist.barrier()
    begin = time.perf_counter()
    action()
    wait_for(device)
    return time.perf_counter() - begin


def take_turns(
    steps: Mapping[str, Callable[[], object]],
    rounds: int,
    warmup: int,
    seed: int,
    device: torch.device,
) -> Times:
    """Time every variant once per round; all processes call it alike."""
    names = list(steps)
    own: dict[str, list[float]] = {name: [] for name in names}
    for name in names * warmup:
        timed(steps[name], device)
    order = orders(len(names), seed)
    with no_garbage_collection():
        for _ in range(rounds):
            for position in next(order):
                own[names[position]].append(timed(steps[names[position]], device))
    return Times({name: slowest(seconds) for name, seconds in own.items()})
