"""How many threads of a CPU a training step is worth.

PyTorch takes as many as there are cores. Where something else needs one of them, every step waits
for the thread that got none, again and again, and may take a hundred times as long; and a small
network gains nothing from threads anyway. So the number is measured, on the real step.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from statistics import median
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from freezeout.costs.rehearsal import rehearsed
from freezeout.layers import Layers
from freezeout.text import milliseconds

__all__ = [
    "choose_threads",
    "harm_of_threads",
    "measure_threads",
    "thread_counts",
    "time_threads",
    "use_threads",
]

CLEARLY = 0.8
"""More threads are worth it where a step takes at most this part of the time."""

HOPELESS = 3.0
"""A number of threads is not tried further where a step takes so many times that of the best."""

HARMFUL = 0.6
"""More threads than needed are warned of where half of them take at most this part of the time."""

ROUNDS = 7
"""Timed steps with each number of threads."""


def thread_counts(most: int) -> tuple[int, ...]:
    """Return the numbers of threads to try: 1, 2, 4 ... and the most.

    Args:
        most: At least 1.
    """
    powers = (2**k for k in range(most.bit_length()))
    return tuple(sorted({*(n for n in powers if n <= most), most}))


def time_threads(
    step: Callable[[], object],
    counts: Sequence[int],
    *,
    seconds: float = 2.0,
    now: Callable[[], float] = time.perf_counter,
    use: Callable[[int], None] = torch.set_num_threads,
) -> dict[int, float]:
    """Time a step with each of several numbers of threads, in turns.

    It begins with the most, because a large step with few threads may take long, and goes down for
    as long as there is time or fewer are faster. Those that come near the best then take turns.

    Args:
        step: Takes a step.
        counts: Numbers of threads, rising.
        seconds: To spend, about; a step that takes longer is taken once with each number.
        now: Reads a clock in seconds.
        use: Sets the number of threads.

    Returns:
        Median seconds of a step for each number that was tried.
    """

    def timed(count: int) -> float:
        use(count)
        begun = now()
        step()
        return now() - begun

    begun = now()
    taken: dict[int, list[float]] = {}
    best = math.inf
    for count in reversed(counts):
        taken[count] = [timed(count)]
        if taken[count][0] < min(seconds, max(seconds / 10, HOPELESS * best)):
            taken[count] = [timed(count)]  # the first one started threads and found memory
        worse = taken[count][0] > best
        best = min(best, *taken[count])
        if worse and now() - begun > seconds:
            break
    left = [count for count, times in taken.items() if times[0] <= HOPELESS * best]
    for _ in range(ROUNDS - 1):
        if now() - begun > seconds or len(left) == 1:
            break
        for count in left:
            taken[count].append(timed(count))
    return {count: median(taken[count]) for count in sorted(taken)}


def measure_threads(
    model: nn.Module,
    layers: Layers,
    example: Any,
    *,
    most: int,
    loss: Callable[[Any], torch.Tensor] | None,
    optimizer: Optimizer | None,
    autocast: torch.dtype | None,
) -> dict[int, float]:
    """Take a few training steps with 1, 2, 4 ... threads; everything is as it was afterwards.

    Args:
        model: See `measure_costs`, as for what is not listed here.
        layers: The layers of the model.
        example: A batch.
        most: The most threads to try, at least 1.
        loss: See `measure_costs`.
        optimizer: See `measure_costs`.
        autocast: See `measure_costs`.

    Returns:
        Median seconds of a step for each number of threads that was tried.

    Raises:
        CostError: If the step cannot be run.
    """
    with (
        rehearsed(model, layers, example, loss, optimizer, autocast) as (step, _, _),
        use_threads(most),
    ):
        return time_threads(lambda: step(lambda _: None), thread_counts(most))


def choose_threads(seconds: Mapping[int, float]) -> int:
    """Return the fewest threads that no larger number clearly beats.

    Args:
        seconds: What a step takes with each number of threads; at least one.
    """
    chosen = min(seconds)
    for count in sorted(seconds):
        if seconds[count] <= CLEARLY * seconds[chosen]:
            chosen = count
    return chosen


def harm_of_threads(threads: int, seconds: float, fewer: int, then: float) -> str:
    """Return a warning where a step is clearly faster with fewer threads; else nothing."""
    if then > HARMFUL * seconds:
        return ""
    plural = "" if fewer == 1 else "s"
    return (
        f"a training step takes {milliseconds(seconds)} with the {threads} threads of torch, and "
        f"{milliseconds(then)} with {fewer}: the costs are those of a machine that is busy or of "
        f"a network too small for threads. Call torch.set_num_threads({fewer}) before measuring "
        f"and training, or keep {fewer} core{plural} free of anything else."
    )


@contextmanager
def use_threads(count: int) -> Iterator[None]:
    """Let torch use so many threads; put their number back on leaving."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
