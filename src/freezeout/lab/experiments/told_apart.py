"""Give runs names and cells that tell them apart."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields, replace
from pathlib import Path

from freezeout.lab.evidence import Kind, RunRecord
from freezeout.lab.experiments.arms import Variant
from freezeout.lab.experiments.run_record import FoundRun
from freezeout.lab.training import Settings

__all__ = ["short_names", "told_apart"]

_NOT_SHARED = (
    *(spec.name for spec in fields(Variant)),
    *("model", "data", "seed", "freeze"),
    *("data_dir", "device", "threads", "checkpoint_minutes", "evaluate_every"),
)
"""Settings that do not set cells apart: they name them, make the arms, or do not matter."""


def told_apart(runs: Sequence[FoundRun]) -> list[RunRecord]:
    """Return records of which no two have the same cell, arm and seed.

    Runs that were trained one by one share a cell if their settings agree but for the way of
    freezing and the seed; what differs is added to its name. They never join a cell of an
    experiment. The same cell in several experiments, and what a comparison could not tell apart,
    such as a run that was done twice, are told apart by their folders.
    """
    single = [run for run in runs if not run.labelled]
    roots = {run.record.name: _root(run.path) for run in runs if run.labelled}
    unlike = sorted(set(roots.values()))
    short = dict(zip(unlike, short_names(unlike), strict=True))
    homes: dict[str, set[Path]] = {}
    for run in runs:
        if run.labelled:
            homes.setdefault(run.record.cell, set()).add(roots[run.record.name])
    told: list[RunRecord] = []
    seen: set[tuple[str, str, Kind, str | None, int]] = set()
    owners: dict[tuple[str, Kind, str | None], str] = {}
    for run in runs:
        record, cell = run.record, run.record.cell
        if run.labelled:
            if len(homes[cell]) > 1:
                cell += f" ({short[roots[record.name]]})"
        else:
            cell += _varying(run, single)
            cell += ", trained one by one" if cell in homes else ""
        arm = (record.arm, record.kind, record.of, record.seed)
        # A baseline, and whatever belongs to a variant, may be there once: under one name.
        role = (record.kind, record.arm if record.kind == "variant" else record.of)
        while (cell, *arm) in seen or owners.setdefault((cell, *role), record.arm) != record.arm:
            cell += f" ({record.name})"
        seen.add((cell, *arm))
        told.append(replace(record, cell=cell))
    return told


def _root(path: Path) -> Path:
    """Return the folder of the experiment that a run belongs to."""
    above = path.resolve().parents or [path]
    root = above[min(2, len(above) - 1)]
    return root.parent if root.name == "runs" else root


def _varying(run: FoundRun, among: Sequence[FoundRun]) -> str:
    """Say what sets a run's settings apart from those of others of its network and data."""
    others = [other.settings for other in among if other.record.cell == run.record.cell]
    names = [spec.name for spec in fields(Settings) if spec.name not in _NOT_SHARED]
    words = [
        f"{name}={getattr(run.settings, name)}"
        for name in names
        if any(getattr(other, name) != getattr(run.settings, name) for other in others)
    ]
    return "".join(f", {word}" for word in words)


def short_names(paths: Sequence[Path]) -> list[str]:
    """Return short names that tell folders apart: what follows the last folder they share.

    Args:
        paths: No folder twice.

    Returns:
        Texts that can be printed; what cannot is written as in Python.
    """
    if len(paths) == 1:
        return [_printable(paths[0].resolve().name or str(paths[0].resolve()))]
    whole = [path.resolve().parts for path in paths]
    shared = 0
    while len({parts[shared] for parts in whole if len(parts) > shared + 1}) == 1 and all(
        len(parts) > shared + 1 for parts in whole
    ):
        shared += 1
    return [_printable("/".join(parts[shared:])) for parts in whole]


def _printable(name: str) -> str:
    return repr(name)[1:-1]
