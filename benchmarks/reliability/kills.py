"""A training run that is killed again and again ends in the bits of one that never was."""

from __future__ import annotations

from benchmarks.reliability.bits import run_bits
from benchmarks.reliability.case import Case
from benchmarks.reliability.children import End
from benchmarks.reliability.going_on import (
    Whole,
    check_same,
    train_words,
    until_done,
    whole_run,
)
from benchmarks.reliability.interruptions import (
    AtByte,
    AtMoment,
    AtOperation,
    Interruption,
    Undisturbed,
)
from benchmarks.reliability.tiny import RECIPES

__all__ = ["draw_kill", "kills"]

_MOST = 8  # kills of one run; then it is left alone
_FILE_SIZE = 400_000  # about that of a checkpoint


def kills(case: Case) -> None:
    """Kill a run some times, going on each time, and compare its end.

    The first kill is, every other time, before a file operation that the seed counts through, so
    that no operation is left out; else within a file. The others are drawn.
    """
    names = list(RECIPES)
    recipe = names[case.seed % len(names)]
    whole = whole_run(recipe)
    turn = case.seed // len(names)
    operation = turn // 2 % whole.operations + 1

    def draw(start: int) -> Interruption:
        if start == 0:
            return _within_a_file(case) if turn % 2 else AtOperation(operation)
        return draw_kill(case, whole) if start < _MOST else Undisturbed()

    def stopped(end: End, how: Interruption) -> bool:
        case.count("kills", end.killed)
        return end.killed

    first = train_words(recipe, "run")
    resume = ["train", "--resume", "run", "--display", "none"]
    until_done(case, first, resume, draw, stopped=stopped)
    check_same(case, run_bits(case.folder / "run"), whole.bits)


def draw_kill(case: Case, whole: Whole) -> Interruption:
    """Draw one of the ways to kill, early moments more often, so that runs get on slowly."""
    early = case.random.random() ** 2
    way = case.random.random()
    if way < 0.5:
        return AtOperation(1 + int(early * whole.operations))
    if way < 0.7:
        return AtByte(int(_FILE_SIZE ** case.random.random()))
    return AtMoment(early * whole.seconds)


def _within_a_file(case: Case) -> Interruption:
    return AtByte(int(_FILE_SIZE ** case.random.random()))
