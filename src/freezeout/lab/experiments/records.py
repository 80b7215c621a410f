"""Find and read run folders: from what `freezeout` left behind to plain records."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from freezeout.errors import FreezeOutError, RunError
from freezeout.lab.evidence import RunRecord
from freezeout.lab.experiments.job import failure
from freezeout.lab.experiments.run_record import read_folder
from freezeout.lab.experiments.told_apart import short_names, told_apart
from freezeout.text import one_line

__all__ = ["Unread", "find_runs", "read_runs"]

_LONGEST = 400  # characters of a reason


@dataclass(frozen=True)
class Unread:
    """A run without a record, or a folder that may hold some.

    Attributes:
        name: Its folder, as shown.
        reason: Why, in one line: it failed, or cannot be read.
        failed: Whether it failed; else what is there cannot be read.
    """

    name: str
    reason: str
    failed: bool = False


def find_runs(folders: Iterable[Path]) -> tuple[list[Path], list[tuple[Path, OSError]]]:
    """Return the run folders among and below some folders, sorted, each once.

    Args:
        folders: Where to look.

    Returns:
        The folders of runs, and those that could not be looked into, with the reason.

    Raises:
        RunError: If a folder does not exist or cannot be reached, or there is no run at all.
    """
    found: dict[Path, Path] = {}
    closed: list[tuple[Path, OSError]] = []

    def note(error: OSError) -> None:
        if not isinstance(error, FileNotFoundError):  # one that has vanished meanwhile
            closed.append((Path(error.filename), error))

    for folder in folders:
        _check_folder(folder)
        for place, below, files in os.walk(folder, onerror=note):
            if not {"settings.toml", "failed.json"}.isdisjoint((*below, *files)):
                path = Path(place)
                found.setdefault(path.resolve(), path)
    if not found and closed:
        path, error = closed[0]
        raise RunError(f"cannot look into {path}: {error.strerror}. Make it readable.") from error
    if not found:
        raise RunError(
            "there is no run in the folders that were given: none has a settings.toml. Give "
            "folders made by freezeout train, compare or sweep."
        )
    return sorted(found.values()), closed


def _check_folder(folder: Path) -> None:
    try:
        is_folder = folder.is_dir()
    except OSError as error:  # such as a name that is too long
        raise RunError(
            f"cannot look into {folder}: {error.strerror}. Give a folder that can be read."
        ) from error
    if not is_folder:
        raise RunError(f"{folder} is not a folder. Give folders of runs, or one that holds them.")


def read_runs(folders: Iterable[Path]) -> tuple[list[RunRecord], list[Unread]]:
    """Read all runs among and below some folders.

    Args:
        folders: Where to look.

    Returns:
        The records, and what is without one: runs that failed or cannot be read, folders that
        cannot be looked into.

    Raises:
        RunError: If a folder does not exist or cannot be reached, or there is no run at all.
    """
    paths, closed = find_runs(folders)
    runs, unread = [], []
    for path, name in zip(paths, short_names(paths), strict=True):
        reason = failure(path)
        if reason is not None:
            unread.append(Unread(name, _short(reason), failed=True))
            continue
        try:
            runs.append(read_folder(path, name))
        except FreezeOutError as error:
            unread.append(Unread(name, _short(f"cannot be read: {one_line(error)}")))
    for path, cause in closed:
        reason = f"cannot be looked into: {cause.strerror}. Make it readable."
        unread.append(Unread(_short(str(path)), reason))
    return _measured_beside(told_apart(runs)), unread


def _short(reason: str) -> str:
    """Return a reason in one line that can be printed, of bounded length."""
    words = " ".join(reason.split())
    line = "".join(sign if sign.isprintable() else "\N{REPLACEMENT CHARACTER}" for sign in words)
    return line if len(line) <= _LONGEST else f"{line[:_LONGEST]} ..."


def _measured_beside(records: Sequence[RunRecord]) -> list[RunRecord]:
    """Return records with savings measured against the baseline, where it took as many steps.

    Within a run the unfrozen steps come first, so that a machine that changes its speed spoils the
    figure; a baseline beside it met the same machine.
    """
    full = {(r.cell, r.seed): r for r in records if r.kind == "baseline" and r.finished}
    beside = []
    for record in records:
        other = full.get((record.cell, record.seed))
        if (
            other is not None
            and record.kind == "variant"
            and record.finished
            and record.total_steps == other.total_steps
            and other.train_seconds > 0
        ):
            record = replace(record, measured=1.0 - record.train_seconds / other.train_seconds)
        beside.append(record)
    return beside
