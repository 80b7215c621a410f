"""A run that meets a full disk, or one that fails, says so in a line and can go on."""

from __future__ import annotations

from benchmarks.reliability.bits import run_bits
from benchmarks.reliability.case import Case, judge
from benchmarks.reliability.children import End
from benchmarks.reliability.going_on import check_same, train_words, until_done, whole_run
from benchmarks.reliability.interruptions import (
    ERRORS,
    AtByte,
    AtOperation,
    Interruption,
    Undisturbed,
)
from benchmarks.reliability.tiny import RECIPES

__all__ = ["disks"]

_FILE_SIZE = 400_000
_MOST = 4


def disks(case: Case) -> None:
    """Let a run meet a disk that does not take or give a file; then go on without the trouble."""
    names = list(RECIPES)
    recipe = names[case.seed % len(names)]
    whole = whole_run(recipe)

    def draw(start: int) -> Interruption:
        if start >= _MOST:
            return Undisturbed()
        if start == 0 or case.random.random() < 0.6:
            number = case.random.randrange(whole.operations) + 1
            return AtOperation(number, error=case.random.choice(ERRORS))
        return AtByte(int(_FILE_SIZE ** case.random.random()), kills=False)

    def stopped(end: End, how: Interruption) -> bool:
        if end.code != 2 or type(how) is Undisturbed:
            return False
        judge(end, allowed=[2])
        case.count("failed disks")
        return True

    first = train_words(recipe, "run")
    resume = ["train", "--resume", "run", "--display", "none"]
    until_done(case, first, resume, draw, stopped=stopped)
    check_same(case, run_bits(case.folder / "run"), whole.bits)
