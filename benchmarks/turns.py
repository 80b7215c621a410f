"""Ratios of step times where several processes train together.

As in `ratios`, variants take turns in shuffled orders and figures are medians of ratios within a
round. Here all processes take the same turns, meet before each step outside the clock, and the time
of a step is that of the slowest.
"""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist

from joined import slowest
from ratios import CONFIDENCE, median_interval, orders

__all__ = ["Times", "take_turns", "timed"]


@dataclass(frozen=True)
class Times:
    """Seconds of every variant in every round, those of the slowest process."""

    seconds: Mapping[str, list[float]]

    def median(self, name: str) -> float:
        """Median seconds of a variant."""
        return statistics.median(self.seconds[name])

    def ratio(self, numerator: str, denominator: str) -> dict[str, Any]:
        """Median of the ratios within rounds, with its interval."""
        above, below = self.seconds[numerator], self.seconds[denominator]
        ratios = [a / b for a, b in zip(above, below, strict=True)]
        interval = median_interval(ratios, CONFIDENCE)
        return {
            "median": statistics.median(ratios),
            "interval": None if interval is None else list(interval),
            "rounds": len(ratios),
        }


def timed(action: Callable[[], object], device: torch.device) -> float:
    """Seconds that something takes in this process, from when all are ready for it."""
    _wait(device)
    dist.barrier()
    begin = time.perf_counter()
    action()
    _wait(device)
    return time.perf_counter() - begin


def take_turns(
    steps: Mapping[str, Callable[[], object]],
    rounds: int,
    warmup: int,
    seed: int,
    device: torch.device,
) -> Times:
    """Times every variant once per round; all processes call it alike."""
    names = list(steps)
    own: dict[str, list[float]] = {name: [] for name in names}
    for name in names * warmup:
        timed(steps[name], device)
    order = orders(len(names), seed)
    was_on = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        for _ in range(rounds):
            for position in next(order):
                own[names[position]].append(timed(steps[names[position]], device))
    finally:
        if was_on:
            gc.enable()
    return Times({name: slowest(seconds) for name, seconds in own.items()})


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
