"""Two starts at once: each has a folder of its own, or one is told who has it."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks.reliability.bits import run_bits
from benchmarks.reliability.case import Case, judge
from benchmarks.reliability.children import PATIENCE, Child, End, run_child
from benchmarks.reliability.going_on import check_same, train_words, whole_run
from benchmarks.reliability.interruptions import AtOperation
from benchmarks.reliability.tiny import RECIPES, command
from freezeout.storage import is_part

__all__ = ["starts"]


def starts(case: Case) -> None:
    """Start a command twice at once: into one folder, into none, or to go on with one run."""
    recipe = case.random.choice(list(RECIPES))
    whole = whole_run(recipe)
    words = train_words(recipe, "run")
    way = ("same folder", "no folder", "resume")[case.seed % 3]
    if way == "no folder":
        at = words.index("--out")
        words = [*words[:at], *words[at + 2 :]]
    if way == "resume":
        # Killed in the second half, where there is something to go on with.
        half = whole.operations // 2
        how = AtOperation(half + case.random.randrange(half))
        end = run_child(command(words), case.folder, how.install)
        case.did(words, str(how), end)
        words = ["train", "--resume", "run", "--display", "none"]
    ends = _both(case, words, late=case.random.random() ** 3 * whole.seconds)
    case.count("two starts")
    for end in ends:
        judge(end)
    if way == "no folder":
        case.check([end.code for end in ends] == [0, 0], "not both of two starts went through")
        found = sorted((case.folder / "runs").iterdir())
        case.check(len(found) == 2, f"two starts left {len(found)} folders")
    else:
        case.check(0 in (end.code for end in ends), "both of two starts were refused")
        found = [case.folder / "run"]
    for path in found:
        check_same(case, run_bits(path), whole.bits)
    _check_clean(case, found)


def _both(case: Case, words: Sequence[str], late: float) -> list[End]:
    """Start a command twice, the second time a moment later."""

    def second() -> int:
        time.sleep(late)
        return command(words)()

    children = [Child(command(words), case.folder), Child(second, case.folder)]
    ends = [child.wait(PATIENCE) for child in children]
    for end in ends:
        case.did(words, f"two at once, {late:.3f} s apart", end)
    return ends


def _check_clean(case: Case, folders: Sequence[Path]) -> None:
    """Raise where half-written files are left."""
    left = [path.name for folder in folders for path in folder.iterdir() if is_part(path)]
    case.check(not left, f"parts of files are left: {', '.join(left)}")
