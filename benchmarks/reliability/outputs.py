"""A plan or a report that dies, or its disk, leaves whole files or none, and is made again."""

from __future__ import annotations

import functools
import hashlib
import shutil
import tempfile
from dataclasses import replace
from pathlib import Path

from benchmarks.reliability.case import Case, judge
from benchmarks.reliability.children import run_child
from benchmarks.reliability.going_on import train_words
from benchmarks.reliability.interruptions import (
    ERRORS,
    AtByte,
    AtOperation,
    Interruption,
    count_operations,
)
from benchmarks.reliability.tiny import SMALL, command, scratch_home

__all__ = ["PLAN", "file_sums", "outputs"]

PLAN = ("plan", *SMALL, "--steps", "7", "--t0", "0.6")
"""Words that measure and plan."""

_COMMANDS = (
    (*PLAN, "--out"),
    ("plan", *SMALL, "--epochs", "3", "--out"),
    ("report", "run", "--out"),
)
"""Each lacks its folder."""

_FILE_SIZE = 50_000  # about that of a page
_MOST = 3  # kills of one command


def outputs(case: Case) -> None:
    """Kill a command that writes some files, or fail its disk, then let it write them again."""
    number = case.seed % len(_COMMANDS)
    whole, operations = _whole(number)
    shutil.copytree(_run(), case.folder / "run")
    words = [*_COMMANDS[number], "out"]
    for attempt in range(_MOST):
        at = AtOperation(1 + (case.seed // len(_COMMANDS) + attempt * 7) % operations)
        how: Interruption = at
        way = case.random.random()
        if way < 0.2:
            how = AtByte(int(_FILE_SIZE ** case.random.random()), kills=way < 0.1)
        elif way < 0.4:
            how = replace(at, error=case.random.choice(ERRORS))
        end = run_child(command(words), case.folder, how.install)
        case.did(words, str(how), end)
        if not end.killed:
            judge(end)
        if end.code == 0:
            break
        case.count("kills" if end.killed else "failed disks")
        found = file_sums(case.folder / "out")
        torn = [name for name, value in found.items() if value != whole[name]]
        case.check(not torn, f"files are torn: {', '.join(torn)}")
    for folder in ("out", "another"):  # the first may hold what a kill has left
        end = run_child(command([*words[:-1], folder]), case.folder)
        case.did([*words[:-1], folder], "undisturbed", end)
        judge(end)
        if end.code == 0:
            case.check(file_sums(case.folder / folder) == whole, "other files than undisturbed")
            return
    case.check(False, "it cannot be made again")


@functools.cache
def _run() -> Path:
    """Return a finished run to report on."""
    home = Path(tempfile.mkdtemp(prefix="outputs-", dir=scratch_home()))
    end = run_child(command(train_words("predicted", "run")), home)
    if end.code:
        raise RuntimeError(f"a run ended with {end.words}: {end.err}")
    return home / "run"


@functools.cache
def _whole(number: int) -> tuple[dict[str, str], int]:
    """Return what a command leaves undisturbed, and its file operations."""
    home = Path(tempfile.mkdtemp(prefix="outputs-", dir=scratch_home()))
    shutil.copytree(_run(), home / "run")
    counting, count = count_operations()
    end = run_child(command([*_COMMANDS[number], "out"]), home, counting.install)
    if end.code:
        raise RuntimeError(f"{_COMMANDS[number][0]} ended with {end.words}: {end.err}")
    return file_sums(home / "out"), count()


def file_sums(folder: Path) -> dict[str, str]:
    """Return a digest of every file, but for parts of files that were being written."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not path.name.startswith(".")
    }
