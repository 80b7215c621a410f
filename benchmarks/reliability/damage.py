"""A kept file that was damaged is refused or left out in words, or does no harm at all."""

from __future__ import annotations

import shutil
from pathlib import Path

from benchmarks.reliability.bits import differing
from benchmarks.reliability.case import Case, judge
from benchmarks.reliability.children import run_child
from benchmarks.reliability.harm import HARMS, MARK, draw_harm, harm
from benchmarks.reliability.kept import FOLDER, Kept, draw_kept
from benchmarks.reliability.tiny import command
from freezeout.errors import FreezeOutError
from freezeout.text import one_line

__all__ = ["damage"]


def damage(case: Case) -> None:
    """Damage one kept file and read it: it is refused, left out in words, or unharmed."""
    kept = draw_kept(case.random)
    file = case.random.choice(kept.files)
    way = draw_harm(case.random, file)
    shutil.copytree(kept.folder, case.folder / FOLDER)
    path = case.folder / FOLDER / file
    case.note(f"{kept.name}, {file}, {harm(case.random, path, way, kept.other(file))}")
    case.count("damaged files")
    end = run_child(command(kept.words), case.folder)
    case.did(kept.words, "a damaged file", end)
    case.check(not [*case.folder.rglob(MARK)], "a damaged file ran code")
    judge(end)
    # A log that merely ends early is that of a run which was killed early.
    early = way == "cut" and file.suffix == ".jsonl"
    if end.code == 0 and not HARMS[way].foreign and not early:
        other = _other(kept, case.folder)
        said = _is_said(file.name, end.out) or _is_said(file.parent.name, end.out)
        case.check(said or not other, f"taken, and not a word: other {', '.join(other[:5])}")


def _other(kept: Kept, folder: Path) -> list[str]:
    """Return what is other than where nothing is damaged."""
    try:
        return differing(kept.look(folder), kept.whole)
    except (ValueError, KeyError, TypeError, OSError, FreezeOutError) as error:
        return [f"what is left cannot be read ({one_line(error)})"]


def _is_said(name: str, text: str) -> bool:
    """Return whether a text says of a file or run that it is damaged or left out."""
    words = ("damaged", "left out", "cannot be read", "failed", "not ")
    return any(name in line and any(w in line for w in words) for line in text.splitlines()) or (
        "left out" in text
    )
