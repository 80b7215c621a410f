"""One case of the campaign: what is tried, decided by a seed, and what came of it."""

from __future__ import annotations

import random
import shlex
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias

from benchmarks.reliability.children import End

__all__ = ["Case", "FoundError", "Kind", "Work", "judge"]


class FoundError(Exception):
    """A promise that was not kept; the text says which one, and what was seen."""


@dataclass
class Case:
    """What one case works with. The same kind and seed make the same choices.

    Attributes:
        kind: Name of its kind.
        seed: Its seed, from which all its choices come.
        folder: Empty, and its own.
        random: Where its choices come from.
        counts: What it did, for the figures.
        trail: What it did, in words, for whoever reads a finding.
    """

    kind: str
    seed: int
    folder: Path
    counts: Counter[str] = field(default_factory=Counter)
    trail: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.random = random.Random(f"{self.kind}:{self.seed}")

    def count(self, name: str, number: int = 1) -> None:
        """Add to a figure."""
        self.counts[name] += number

    def note(self, text: str) -> None:
        """Say what is done next."""
        self.trail.append(text)

    def did(self, words: Sequence[str], how: str, end: End) -> None:
        """Note a command, what was done to it, and how it ended."""
        self.note(f"freezeout {shlex.join(words)}  [{how}]: {end.words}")

    def check(self, kept: bool, what: str) -> None:
        """Raise `FoundError` unless a promise was kept."""
        if not kept:
            raise FoundError(what)


Work: TypeAlias = Callable[[Case], None]


@dataclass(frozen=True)
class Kind:
    """A kind of trouble.

    Attributes:
        work: Carries out one case of it.
        share: Of the time of the campaign; only the ratios between kinds count.
    """

    work: Work
    share: float


_TRACE = "Traceback (most recent call last)"


def judge(end: End, allowed: Sequence[int] = (0, 2)) -> None:
    """Check how a command ended: with an allowed code and, where it refused, with one line.

    Raises:
        FoundError: If it did not.
    """
    if end.late:
        raise FoundError(f"no end within {end.seconds:.0f} s")
    if _TRACE in end.err or _TRACE in end.out:
        raise FoundError(f"a traceback:\n{_tail(end.err if _TRACE in end.err else end.out)}")
    if end.code not in allowed:
        raise FoundError(f"ended with {end.words}, allowed is {allowed}; said {_tail(end.err)!r}")
    lines = end.err.strip().splitlines()
    if end.code and len(lines) != 1:
        raise FoundError(f"exit code {end.code} with {len(lines)} lines in place of one: {lines}")
    if end.code == 2 and "error:" not in lines[0]:
        raise FoundError(f"exit code 2, and the line names no error: {lines[0]!r}")


def _tail(text: str, lines: int = 12) -> str:
    return "\n".join(text.strip().splitlines()[-lines:])
