"""Two starts at once: each has a folder of its own, or one is told who has it."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks.reliability.bits import experiment_bits, run_bits
from benchmarks.reliability.case import Case, judge
from benchmarks.reliability.children import PATIENCE, Child, End, run_child
from benchmarks.reliability.going_on import check_same, train_words, whole_run
from benchmarks.reliability.interruptions import AtOperation
from benchmarks.reliability.outputs import PLAN, file_sums
from benchmarks.reliability.sweeps import whole_comparison
from benchmarks.reliability.tiny import COMPARE, RECIPES, command
from freezeout.storage import is_part

__all__ = ["starts"]

_OF_A_PLAN = 0.3  # seconds, roughly


def starts(case: Case) -> None:
    """Start a command twice at once: into one folder, into none, or to go on with one run."""
    ways = (_same_folder, _no_folder, _resume, _plans) * 3
    (*ways, _comparisons)[case.seed % (len(ways) + 1)](case)
    case.count("two starts")


def _same_folder(case: Case) -> None:
    recipe = case.random.choice(list(RECIPES))
    _one_goes_through(case, recipe, train_words(recipe, "run"))


def _resume(case: Case) -> None:
    recipe = case.random.choice(list(RECIPES))
    words = train_words(recipe, "run")
    # Killed in the second half, where there is something to go on with.
    half = whole_run(recipe).operations // 2
    how = AtOperation(half + case.random.randrange(half))
    end = run_child(command(words), case.folder, how.install)
    case.did(words, str(how), end)
    _one_goes_through(case, recipe, ["train", "--resume", "run", "--display", "none"])


def _one_goes_through(case: Case, recipe: str, words: Sequence[str]) -> None:
    whole = whole_run(recipe)
    ends = _both(case, words, whole.seconds)
    case.check(0 in (end.code for end in ends), "both of two starts were refused")
    check_same(case, run_bits(case.folder / "run"), whole.bits)
    _check_clean(case, [case.folder / "run"])


def _no_folder(case: Case) -> None:
    recipe = case.random.choice(list(RECIPES))
    whole = whole_run(recipe)
    for path in _two_folders(case, _without_out(train_words(recipe, "run")), whole.seconds):
        check_same(case, run_bits(path), whole.bits)


def _plans(case: Case) -> None:
    one, other = _two_folders(case, PLAN, _OF_A_PLAN)
    case.check(file_sums(one) == file_sums(other), "two plans at once differ")
    end = run_child(command([*PLAN, "--out", "alone"]), case.folder)
    case.did(PLAN, "alone", end)
    case.check(file_sums(case.folder / "alone") == file_sums(one), "other files than alone")


def _comparisons(case: Case) -> None:
    whole = whole_comparison()
    for path in _two_folders(case, ["compare", *COMPARE], whole.seconds):
        check_same(case, experiment_bits(path), whole.bits)


def _two_folders(case: Case, words: Sequence[str], seconds: float) -> list[Path]:
    ends = _both(case, words, seconds)
    case.check([end.code for end in ends] == [0, 0], "not both of two starts went through")
    found = sorted((case.folder / "runs").iterdir())
    case.check(len(found) == 2, f"two starts left {len(found)} folders")
    _check_clean(case, found)
    return found


def _without_out(words: list[str]) -> list[str]:
    at = words.index("--out")
    return [*words[:at], *words[at + 2 :]]


def _both(case: Case, words: Sequence[str], seconds: float) -> list[End]:
    """Start a command that takes so many seconds twice, the second time a moment later."""
    late = case.random.random() ** 3 * seconds

    def second() -> int:
        time.sleep(late)
        return command(words)()

    children = [Child(command(words), case.folder), Child(second, case.folder)]
    ends = [child.wait(PATIENCE) for child in children]
    for end in ends:
        case.did(words, f"two at once, {late:.3f} s apart", end)
        judge(end)
    return ends


def _check_clean(case: Case, folders: Sequence[Path]) -> None:
    """Raise where half-written files are left."""
    left = [path.name for folder in folders for path in folder.rglob("*") if is_part(path)]
    case.check(not left, f"parts of files are left: {', '.join(left)}")
