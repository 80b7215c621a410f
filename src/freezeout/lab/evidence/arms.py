"""The arms of a comparison: what was trained alike but for the seed, in errors and seconds."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import get_args

from freezeout.lab.evidence.record import Kind, RunRecord
from freezeout.lab.evidence.statistics import (
    Estimate,
    paired_difference,
    ratio_interval,
    saving_interval,
)

__all__ = ["Arm", "arms_of", "check_arms", "error_difference", "time_ratio", "time_saved"]


@dataclass(frozen=True, kw_only=True)
class Arm:
    """All runs that differ in nothing but the seed. Runs of two arms with one seed are paired.

    Args:
        name: Name of the arm, as shown: ``"cubic, t0 = 0.8"``.
        kind: What it is in the comparison.
        of: Name of the variant that an equal-time baseline or a control belongs to; ``None`` for
            the baseline and for variants.
        errors: Final error on the test data in percent, 0-100, by seed: finished runs only.
        seconds: Seconds in training steps, above 0, by seed; seeds without a time may be left out.
        memory: Peak bytes, by seed; seeds may be left out.

    Raises:
        ValueError: If a value is outside its range, a time or a memory belongs to no error, or `of`
            does not fit the kind.

    Example:
        >>> Arm(name="full length", kind="baseline", errors={0: 5.1, 1: 4.9}).seeds
        (0, 1)
    """

    name: str
    kind: Kind
    of: str | None = None
    errors: Mapping[int, float]
    seconds: Mapping[int, float] = field(default_factory=dict)
    memory: Mapping[int, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.kind not in get_args(Kind):
            raise ValueError(
                f"kind must be one of {', '.join(map(repr, get_args(Kind)))}, got {self.kind!r}. "
                "Choose what the runs are in the comparison."
            )
        belongs = self.kind in ("equal-time", "control")
        if belongs != (self.of is not None):
            raise ValueError(
                f"of must {'name a variant' if belongs else 'be None'} for kind {self.kind!r}, "
                f"got {self.of!r}. It is the variant that an equal-time baseline or a control "
                "belongs to."
            )
        self._check("errors", "lie in [0, 100]", lambda value: 0 <= value <= 100)
        self._check("seconds", "be finite and above 0", lambda v: math.isfinite(v) and v > 0)
        self._check("memory", "be finite and 0 or more", lambda v: math.isfinite(v) and v >= 0)
        for name in ("errors", "seconds", "memory"):  # later changes to what was given do not count
            object.__setattr__(self, name, dict(sorted(getattr(self, name).items())))

    def _check(self, name: str, rule: str, holds: Callable[[float], bool]) -> None:
        for seed, value in getattr(self, name).items():
            if not holds(value):
                raise ValueError(
                    f"{name} must {rule}, got {value} for seed {seed} of {self.name!r}. "
                    "Leave out runs without one."
                )
            if seed not in self.errors:
                raise ValueError(
                    f"{name} must belong to seeds that have an error, got seed {seed} of "
                    f"{self.name!r}, which has none. Leave out unfinished runs."
                )

    @property
    def seeds(self) -> tuple[int, ...]:
        """Seeds of its runs, increasing."""
        return tuple(self.errors)


def arms_of(records: Iterable[RunRecord]) -> tuple[Arm, ...]:
    """Gather finished runs of one cell into arms, in order of first appearance.

    Args:
        records: Runs of one cell; those without a final error are left out.

    Returns:
        One arm per kind, name and variant it belongs to.

    Raises:
        ValueError: If an arm has two finished runs with one seed.
    """
    groups: dict[tuple[Kind, str, str | None], dict[int, RunRecord]] = {}
    for record in records:
        if record.error is None:
            continue
        runs = groups.setdefault((record.kind, record.arm, record.of), {})
        other = runs.setdefault(record.seed, record)
        if other is not record:
            raise ValueError(
                f"an arm may have one run per seed, got {other.name!r} and {record.name!r}, both "
                f"{record.arm!r} with seed {record.seed}. Leave one of them out."
            )
    return tuple(
        Arm(
            name=name,
            kind=kind,
            of=of,
            errors={seed: run.error for seed, run in runs.items() if run.error is not None},
            seconds={s: run.train_seconds for s, run in runs.items() if run.train_seconds > 0},
            memory={s: run.peak_memory for s, run in runs.items() if run.peak_memory is not None},
        )
        for (kind, name, of), runs in groups.items()
    )


def check_arms(arms: Sequence[Arm]) -> None:
    """Refuse arms of one cell that a comparison could not tell apart.

    Raises:
        ValueError: If there are several baselines, several variants of one name, or several
            equal-time baselines or controls of one variant.
    """
    seen: dict[tuple[Kind, str | None], Arm] = {}
    for arm in arms:
        key = (arm.kind, arm.name if arm.kind == "variant" else arm.of)
        other = seen.setdefault(key, arm)
        if other is not arm:
            whose = "" if arm.of is None else f" of {arm.of!r}"
            raise ValueError(
                f"a comparison may have one arm of kind {arm.kind!r}{whose}, got {other.name!r} "
                f"and {arm.name!r}. "
                + ("Give variants different names." if arm.kind == "variant" else "Leave one out.")
            )


# --- Over the seeds that two arms share ---------------------------------------------------------


def error_difference(a: Arm, b: Arm | None, level: float) -> Estimate | None:
    """Return one arm's error minus the other's, in percentage points; ``None`` without a pair."""
    pairs = _paired(a.errors, b.errors if b is not None else {})
    return None if pairs is None else paired_difference(*pairs, level)


def time_saved(a: Arm, b: Arm | None, level: float) -> Estimate | None:
    """Return the fraction of the other arm's time that one arm saves; ``None`` without a pair."""
    pairs = _paired(a.seconds, b.seconds if b is not None else {})
    return None if pairs is None else saving_interval(*pairs, level)


def time_ratio(a: Arm, b: Arm | None, level: float) -> Estimate | None:
    """Return the time of one arm over that of another; ``None`` without a pair."""
    pairs = _paired(a.seconds, b.seconds if b is not None else {})
    return None if pairs is None else ratio_interval(*pairs, level)


def _paired(
    a: Mapping[int, float], b: Mapping[int, float]
) -> tuple[list[float], list[float]] | None:
    seeds = sorted(a.keys() & b.keys())
    return ([a[seed] for seed in seeds], [b[seed] for seed in seeds]) if seeds else None
