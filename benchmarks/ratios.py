"""Ratios of times on machines that are shared and noisy.

A time says little where other work comes and goes; a ratio of two times taken one right after the
other says much. `compare` runs variants of a step in rounds, every variant once per round, divides
the times within each round, and takes the median over rounds with an interval that assumes nothing
of the distribution. It goes on until the interval lies on one side of the bar, or says that it was
not decided.
"""

from __future__ import annotations

import gc
import itertools
import math
import random
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal, TypeAlias

import torch
from scipy.stats import quantile_test  # scipy ships no types

__all__ = [
    "CONFIDENCE",
    "Clock",
    "Comparison",
    "Effort",
    "Question",
    "Variant",
    "Verdict",
    "compare",
    "judge",
    "median_interval",
    "orders",
]

Verdict: TypeAlias = Literal["holds", "fails", "undecided"]

Clock: TypeAlias = Literal["wall", "cpu"]
"""Seconds that went by, or that the processor worked for this process.

The second leaves out the time in which other work had the processor; it says nothing of a GPU.
"""

CONFIDENCE = 0.95
"""Of all looks at one comparison together."""


@dataclass(frozen=True)
class Variant:
    """One way of taking a step.

    Attributes:
        step: What is timed.
        before: Run before every timed call, outside the clock.
        calls: Calls per round; their median time is the time of the round. More than one is for
            steps of microseconds.
    """

    step: Callable[[], object]
    before: Callable[[], object] | None = None
    calls: int = 1


@dataclass(frozen=True)
class Question:
    """Which two variants to divide, and the most that the ratio may be.

    Attributes:
        name: What the ratio says, for people.
        numerator: Name of a variant.
        denominator: Name of a variant.
        bar: Largest ratio that is good; ``None`` for a ratio that is only reported.
        depth: Number of frozen layers it was asked at, where it has one.
    """

    name: str
    numerator: str
    denominator: str
    bar: float | None = None
    depth: int | None = None


@dataclass(frozen=True)
class Comparison:
    """The answer to a question.

    Attributes:
        question: What was asked.
        median: Median of the ratios within rounds.
        low: Lower end of its interval; ``None`` where there are too few rounds for one.
        high: Upper end of it.
        level: Confidence of the interval.
        rounds: Number of rounds.
        seconds: Median time of numerator and of denominator.
        verdict: Against the bar; ``None`` without one.
    """

    question: Question
    median: float
    low: float | None
    high: float | None
    level: float
    rounds: int
    seconds: tuple[float, float]
    verdict: Verdict | None


@dataclass(frozen=True)
class Effort:
    """How long to go on.

    The intervals are looked at after `rounds`, twice, four times … as many rounds. All looks
    together are wrong with a chance of at most 1 - `CONFIDENCE`, which is shared equally among
    them (Bonferroni), so that stopping at the first decided look is fair.

    Attributes:
        rounds: Rounds before the first look, at least 1.
        looks: Most looks, at least 1.
        warmup: Rounds before the first timed one.
        seed: Of the order of variants within rounds.
        clock: Which seconds to count.
    """

    rounds: int = 16
    looks: int = 4
    warmup: int = 3
    seed: int = 0
    clock: Clock = "wall"

    @property
    def most_rounds(self) -> int:
        """Rounds at the last look."""
        return int(self.rounds * 2 ** (self.looks - 1))

    @property
    def level(self) -> float:
        """Confidence of each interval."""
        return 1.0 - (1.0 - CONFIDENCE) / self.looks


def median_interval(values: Sequence[float], level: float) -> tuple[float, float] | None:
    """Distribution-free confidence interval of a median: two order statistics (binomial).

    Args:
        values: Independent draws.
        level: Confidence in (0, 1); the interval has at least it.

    Returns:
        Its ends, or ``None`` where there are too few values for this confidence.
    """
    if not values:
        return None
    interval = quantile_test(values, q=0.0, p=0.5).confidence_interval(level)
    low, high = float(interval.low), float(interval.high)
    return None if math.isnan(low) or math.isnan(high) else (low, high)


def judge(interval: tuple[float, float] | None, bar: float) -> Verdict:
    """Whether a ratio is at most `bar`, as far as its interval tells."""
    if interval is None:
        return "undecided"
    low, high = interval
    return "holds" if high <= bar else "fails" if low > bar else "undecided"


def orders(count: int, seed: int) -> Iterator[tuple[int, ...]]:
    """Orders of `count` variants, without end: every permutation equally often, shuffled.

    So no variant is favoured by what ran before it (caches, a warm allocator), by a drift of the
    machine, or by a disturbance that comes back at regular times.
    """
    generator = random.Random(seed)
    permutations = list(itertools.permutations(range(count)))
    while True:
        generator.shuffle(permutations)
        yield from permutations


def compare(
    variants: Mapping[str, Variant],
    questions: Sequence[Question],
    effort: Effort,
    device: torch.device,
) -> list[Comparison]:
    """Times variants in rounds and answers questions about their ratios.

    Every call is timed alone and waits for the device at both ends. Garbage is collected between
    looks only.

    Args:
        variants: What to time, by name.
        questions: Which ratios to form. Those with a bar decide when to stop.
        effort: How long to go on.
        device: Where the variants run.
    """
    names = list(variants)
    times: dict[str, list[float]] = {name: [] for name in names}
    now = time.perf_counter if effort.clock == "wall" else time.process_time
    order = orders(len(names), effort.seed)
    for name in names * effort.warmup:
        _time(variants[name], device, now)
    answers: list[Comparison] = []
    done = 0
    for look in range(effort.looks):
        with _no_garbage_collection():
            while done < effort.rounds * 2**look:
                for position in next(order):
                    name = names[position]
                    times[name].append(_time(variants[name], device, now))
                done += 1
        answers = [_answer(question, times, effort.level) for question in questions]
        if all(answer.verdict != "undecided" for answer in answers):
            break
    return answers


def _answer(question: Question, times: Mapping[str, list[float]], level: float) -> Comparison:
    above, below = times[question.numerator], times[question.denominator]
    ratios = [a / b for a, b in zip(above, below, strict=True)]
    interval = median_interval(ratios, level)
    low, high = (None, None) if interval is None else interval
    return Comparison(
        question=question,
        median=statistics.median(ratios),
        low=low,
        high=high,
        level=level,
        rounds=len(ratios),
        seconds=(statistics.median(above), statistics.median(below)),
        verdict=None if question.bar is None else judge(interval, question.bar),
    )


def _time(variant: Variant, device: torch.device, now: Callable[[], float]) -> float:
    seconds = []
    for _ in range(variant.calls):
        if variant.before is not None:
            variant.before()
        _wait(device)
        begin = now()
        variant.step()
        _wait(device)
        seconds.append(now() - begin)
    return statistics.median(seconds)


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


@contextmanager
def _no_garbage_collection() -> Iterator[None]:
    was_on = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()
