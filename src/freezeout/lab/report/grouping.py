"""Runs grouped by arm (those that differ by seed only), in the order in which arms are shown."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple, get_args

from freezeout.lab.evidence import Kind, RunRecord
from freezeout.schedule import Spacing

__all__ = [
    "ArmKey",
    "arm_of",
    "by_arm",
    "cells",
    "clean",
    "final_runs",
    "known",
    "representative",
    "shorten",
]

_SPACINGS = get_args(Spacing)
_KINDS: tuple[Kind, ...] = ("baseline", "variant", "equal-time", "control")


class ArmKey(NamedTuple):
    """What runs of one arm have in common."""

    arm: str
    kind: Kind
    of: str | None


def arm_of(record: RunRecord) -> ArmKey:
    """Return the arm a run belongs to."""
    return ArmKey(record.arm, record.kind, record.of)


def by_arm(records: Iterable[RunRecord]) -> dict[ArmKey, list[RunRecord]]:
    """Group runs by arm, each arm's by seed.

    Args:
        records: Any runs.

    Returns:
        Arms in the order in which they are shown: baselines, then each variant (by spacing, scaled
        ones first, by `max_freezes`, late freezing first) followed by its equal-time baseline and
        its control.
    """
    groups: dict[ArmKey, list[RunRecord]] = {}
    for record in sorted(records, key=lambda record: (record.seed, record.name)):
        groups.setdefault(arm_of(record), []).append(record)
    variants = sorted(
        {key for key in groups if key.kind == "variant"}, key=lambda key: _rank(groups[key][0])
    )
    places = {key.arm: place for place, key in enumerate(variants)}

    def order(key: ArmKey) -> tuple[int, int, int, str, str]:
        owner = key.arm if key.kind == "variant" else key.of
        place = places.get(owner or "", len(places))
        return (int(key.kind != "baseline"), place, _KINDS.index(key.kind), key.arm, key.of or "")

    return {key: groups[key] for key in sorted(groups, key=order)}


def _rank(record: RunRecord) -> tuple[int, bool, int, float, str]:
    """Return what variants are ordered by."""
    spacing = _SPACINGS.index(record.spacing) if record.spacing in _SPACINGS else len(_SPACINGS)
    return (spacing, not record.scaled, record.max_freezes or 0, -record.t0, record.arm)


def cells(records: Iterable[RunRecord]) -> dict[str, list[RunRecord]]:
    """Group runs by cell, in order of first appearance."""
    groups: dict[str, list[RunRecord]] = {}
    for record in records:
        groups.setdefault(record.cell, []).append(record)
    return groups


def final_runs(records: Iterable[RunRecord]) -> list[RunRecord]:
    """Return the runs with a final error that is a number."""
    return [record for record in records if known(record.error) is not None]


def representative(records: Sequence[RunRecord]) -> RunRecord:
    """Return the run that stands for its arm: the lowest seed among those that got furthest."""
    return min(
        records,
        key=lambda run: (
            not run.finished,
            -run.steps / max(1, run.total_steps),
            run.seed,
            run.name,
        ),
    )


def known(value: float | None) -> float | None:
    """Return the value, or ``None`` if it is missing or not a finite number."""
    return value if value is not None and math.isfinite(value) else None


def clean(text: str) -> str:
    """Replace control characters and halves of characters, which no page can hold."""
    return "".join(sign if sign.isprintable() else "\N{REPLACEMENT CHARACTER}" for sign in text)


def shorten(text: str, room: int) -> str:
    """Shorten a text to at most `room` characters by leaving out its middle."""
    text = clean(text)
    if len(text) <= room:
        return text
    tail = (room - 1) // 2
    return f"{text[: room - 1 - tail]}…{text[len(text) - tail :]}"
