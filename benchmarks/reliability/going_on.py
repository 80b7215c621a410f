"""Go on with a command that was interrupted, until it is done."""

from __future__ import annotations

import functools
import shutil
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.reliability.bits import differing, run_bits
from benchmarks.reliability.case import Case, judge
from benchmarks.reliability.children import End, run_child
from benchmarks.reliability.interruptions import Interruption, count_operations
from benchmarks.reliability.tiny import RECIPES, command, plan_file, scratch_home
from freezeout.lab.locks import is_lock
from freezeout.storage import is_part

__all__ = [
    "Whole",
    "check_same",
    "train_words",
    "until_done",
    "whole_run",
]


@dataclass(frozen=True)
class Whole:
    """A run that nothing disturbed.

    Attributes:
        bits: What it left.
        operations: Its file operations.
        seconds: What it took.
    """

    bits: dict[str, str]
    operations: int
    seconds: float


def train_words(recipe: str, folder: str) -> list[str]:
    """Return the words of the command that begins a run in a folder."""
    words = [str(plan_file()) if word == "PLAN" else word for word in RECIPES[recipe]]
    return ["train", *words, "--out", folder, "--display", "none"]


@functools.cache
def whole_run(recipe: str) -> Whole:
    """Return the run of a recipe that nothing disturbs, carried out once."""
    home = Path(tempfile.mkdtemp(prefix="whole-", dir=scratch_home()))
    words = train_words(recipe, "run")
    counting, count = count_operations()
    end = run_child(command(words), home, counting.install)
    if end.code:
        raise RuntimeError(f"the undisturbed run ended with {end.words}: {end.err}")
    found = Whole(run_bits(home / "run"), count(), end.seconds)
    shutil.rmtree(home)
    return found


def until_done(
    case: Case,
    first: Sequence[str],
    resume: Sequence[str],
    draw: Callable[[int], Interruption],
    *,
    stopped: Callable[[End, Interruption], bool],
) -> None:
    """Start a command, and go on with it for as long as it is interrupted.

    It is gone on with by ``--resume`` or by the same command again, whichever comes first; one may
    refuse, in one line, then the other has to work.

    Args:
        case: Draws which way comes first, and takes notes.
        first: Words of the command, ``--out`` among them.
        resume: Words of the one that goes on.
        draw: How the n-th start is interrupted, from 0 on; it must let one end at last.
        stopped: Whether an end, after such an interruption, is one to be gone on from.

    Raises:
        FoundError: If it does not get to its end.
    """
    folder = case.folder / first[first.index("--out") + 1]
    ways = [first]
    start = 0
    while True:
        how = draw(start)
        there = folder.exists()
        end = run_child(command(ways[0]), case.folder, how.install, signals=how.signals)
        case.did(ways[0], str(how), end)
        if end.code == 2 and not there:
            _check_no_empty_folder(case, folder)
        if stopped(end, how):
            start += 1
            ways = [resume, first] if case.random.random() < 0.7 else [first, resume]
        elif end.code == 2 and len(ways) > 1:
            judge(end, allowed=[2])
            ways = ways[1:]
        else:
            judge(end, allowed=[0])
            return


def _check_no_empty_folder(case: Case, folder: Path) -> None:
    """Raise `FoundError` where a refused start has left a new folder with nothing in it."""
    empty = folder.is_dir() and all(is_lock(path) or is_part(path) for path in folder.iterdir())
    case.check(not empty, f"a refused start has left an empty folder {folder.name}")


def check_same(case: Case, found: dict[str, str], whole: dict[str, str]) -> None:
    """Raise `FoundError` unless everything has the bits of the undisturbed run."""
    other = differing(found, whole)
    case.check(not other, f"other bits than those of the undisturbed run: {', '.join(other)}")
