"""Folders full of kept files, and the commands that read them."""

from __future__ import annotations

import functools
import hashlib
import random
import shutil
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.reliability.bits import experiment_bits, run_bits
from benchmarks.reliability.children import run_child
from benchmarks.reliability.going_on import train_words, whole_run
from benchmarks.reliability.interruptions import AtOperation
from benchmarks.reliability.tiny import COMPARE, RECIPES, SMALL, command, plan_file, scratch_home

__all__ = ["FOLDER", "KEPT", "Kept", "draw_kept"]

FOLDER = "kept"
"""Name of a copy in the folder of a case."""


@dataclass(frozen=True)
class Kept:
    """A folder of kept files, and a command that reads them.

    Attributes:
        name: What it is.
        folder: The folder; cases work on copies.
        files: Files that the command reads, relative to it.
        words: Words of the command.
        look: What it leaves, from the folder of a case: digests by name.
        whole: The same where nothing is damaged.
    """

    name: str
    folder: Path
    files: tuple[Path, ...]
    words: tuple[str, ...]
    look: Callable[[Path], dict[str, str]]
    whole: dict[str, str]

    def other(self, file: Path) -> Path | None:
        """Return a file of the same kind, from elsewhere in the folder."""
        alike = [one for one in self.files if one.suffix == file.suffix and one != file]
        same = [one for one in alike if one.name == file.name] or alike
        return self.folder / same[0] if same else None


def _half_a_run() -> Kept:
    """Stop a run in its middle, to go on with."""
    home = _home()
    whole = whole_run("predicted")
    for operation in range(whole.operations // 2, whole.operations):
        shutil.rmtree(home / FOLDER, ignore_errors=True)
        end = run_child(
            command(train_words("predicted", FOLDER)), home, AtOperation(operation).install
        )
        log = home / FOLDER / "log.jsonl"
        if end.killed and log.is_file() and b'"epoch"' in log.read_bytes():
            break
    words = ("train", "--resume", FOLDER, "--display", "none")
    return _kept("half a run", home, words, _look_at_run)


def _runs() -> Kept:
    """Finish some runs, to report on."""
    home = _home()
    for number, recipe in enumerate(("epochs", "predicted", "adamw")):
        _must(home, train_words(recipe, f"{FOLDER}/{number}"))
    return _kept("runs", home, ("report", FOLDER), _look_at_report, _REPORTED)


def _plan() -> Kept:
    """Take a plan, to train by."""
    home = _home()
    (home / FOLDER).mkdir()
    shutil.copy(plan_file(), home / FOLDER / "plan.json")
    words = ("train", *SMALL, "--plan", f"{FOLDER}/plan.json", "--out", "out", "--display", "none")
    return _kept("plan", home, words, lambda case: run_bits(case / "out"))


def _costs() -> Kept:
    """Take costs, to plan with."""
    home = _home()
    (home / FOLDER).mkdir()
    shutil.copy(plan_file().with_name("costs.json"), home / FOLDER / "costs.json")
    words = ("plan", *RECIPES["epochs"][:10], "--t0", "0.6", "--costs", f"{FOLDER}/costs.json")
    return _kept("costs", home, (*words, "--out", "out"), _look_at_plan)


@functools.cache
def _experiment() -> Path:
    """Finish an experiment."""
    home = _home()
    _must(home, ["compare", *COMPARE, "--out", FOLDER])
    return home


def _reported() -> Kept:
    """Take an experiment, to report on."""
    return _kept("experiment", _experiment(), ("report", FOLDER), _look_at_report, _REPORTED)


def _done() -> Kept:
    """Take an experiment that is done, to go on with."""
    return _kept("experiment, done", _experiment(), _AGAIN, _look_at_experiment, _RESUMED)


def _more() -> Kept:
    """Take an experiment that is done, to do more from its prepared data."""
    words = (*_AGAIN, "--seeds", "2")
    return _kept("experiment, more of it", _experiment(), words, _look_at_experiment, _RESUMED)


_AGAIN = ("compare", "--resume", FOLDER, "--processes", "1")
_REPORTED = ("*.json", "*.toml", "*.jsonl")
_RESUMED = ("*.json", "*.toml", "data/*.pt")  # of what is done neither log nor checkpoint is read


def _home() -> Path:
    return Path(tempfile.mkdtemp(prefix="kept-", dir=scratch_home()))


def _must(home: Path, words: Sequence[str]) -> None:
    end = run_child(command(words), home)
    if end.code:
        raise RuntimeError(f"freezeout {' '.join(words)} ended with {end.words}: {end.err}")


def _kept(
    name: str,
    home: Path,
    words: Sequence[str],
    look: Callable[[Path], dict[str, str]],
    patterns: Sequence[str] = ("*.json", "*.jsonl", "*.toml", "*.pt"),
) -> Kept:
    """Return the files below a folder, and what the command leaves where none is damaged."""
    folder = home / FOLDER
    files = [path.relative_to(folder) for path in sorted(folder.rglob("*")) if path.is_file()]
    copy = _home()
    shutil.copytree(folder, copy / FOLDER)
    _must(copy, words)
    whole = look(copy)
    shutil.rmtree(copy)
    read = tuple(path for path in files if any(path.match(pattern) for pattern in patterns))
    return Kept(name, folder, read, tuple(words), look, whole)


def _look_at_run(case: Path) -> dict[str, str]:
    return run_bits(case / FOLDER)


def _look_at_plan(case: Path) -> dict[str, str]:
    return _sums(case / "out", "*.json")


def _look_at_experiment(case: Path) -> dict[str, str]:
    return experiment_bits(case / FOLDER)


def _look_at_report(case: Path) -> dict[str, str]:
    return _sums(case / FOLDER / "report", "*.html") | _sums(case / FOLDER / "report", "*.csv")


def _sums(folder: Path, pattern: str) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob(pattern))
    }


KEPT: dict[Callable[[], Kept], float] = {
    functools.cache(_half_a_run): 4.0,
    functools.cache(_runs): 4.0,
    functools.cache(_plan): 2.0,
    functools.cache(_costs): 2.0,
    functools.cache(_reported): 2.0,
    functools.cache(_done): 1.0,
    functools.cache(_more): 1.0,
}
"""What makes each of them, once in a process; and how often it is chosen, beside the others."""


def draw_kept(chance: random.Random) -> Kept:
    """Draw a folder of kept files."""
    return chance.choices([*KEPT], [*KEPT.values()])[0]()
