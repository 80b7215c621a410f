"""Ratios of times on machines that are shared and noisy.

A time says little where other work comes and goes; a ratio of two times taken one right after the
other says much. `compare` runs variants of a step in rounds, every variant once per round, divides
the times within each round, and takes the median over rounds with an interval that assumes nothing
of the distribution. It goes on until the interval lies on one side of the bar, or says that it was
not decided.
"""

from __future__ import annotations

import itertools
import math
import random
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, TypeAlias

import torch
from scipy.stats import quantile_test  # scipy ships no types

from benchmarks.common.measuring import wait_for
from freezeout.costs import no_garbage_collection

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
    "paired",
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

    def described(self) -> dict[str, Any]:
        """Return the answer for a file, without the words of the question."""
        question = self.question
        return {
            "median": self.median,
            "interval": None if self.low is None else [self.low, self.high],
            "level": self.level,
            "rounds": self.rounds,
            "seconds": {
                question.numerator: self.seconds[0],
                question.denominator: self.seconds[1],
            },
            "bar": question.bar,
            "verdict": self.verdict,
        }

    @property
    def between(self) -> str:
        """The interval in words; ``"-"`` without one."""
        return "-" if self.low is None else f"{self.low:.4f} - {self.high:.4f}"


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

    def described(self) -> dict[str, Any]:
        """Return for a file how long it went on, and what its figures are."""
        return {
            **asdict(self),
            "figure": "median of the ratios of times within a round",
            "interval": "order statistics of the median (binomial), no distribution assumed",
            "confidence_of_all_looks": CONFIDENCE,
        }


def median_interval(values: Sequence[float], level: float) -> tuple[float, float] | None:
    """Return a distribution-free confidence interval of a median: two order statistics (binomial).

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


def paired(above: Sequence[float], below: Sequence[float]) -> list[float]:
    """Return the ratios of times that were taken in the same rounds."""
    return [a / b for a, b in zip(above, below, strict=True)]


def judge(interval: tuple[float, float] | None, bar: float) -> Verdict:
    """Decide whether a ratio is at most `bar`, as far as its interval tells."""
    if interval is None:
        return "undecided"
    low, high = interval
    return "holds" if high <= bar else "fails" if low > bar else "undecided"


def orders(count: int, seed: int) -> Iterator[tuple[int, ...]]:
    """Yield orders of `count` variants, without end: all permutations equally often, shuffled.

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
    """Time variants in rounds and answer questions about their ratios.

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
        with no_garbage_collection():
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
    ratios = paired(above, below)
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
        wait_for(device)
        begin = now()
        variant.step()
        wait_for(device)
        seconds.append(now() - begin)
    return statistics.median(seconds)
