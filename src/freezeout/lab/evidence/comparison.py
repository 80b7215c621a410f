"""Does freezing pay? Runs of one cell beside each other, with paired seeds.

The question is decided at equal time: a variant that freezes against the same network trained for
fewer epochs, its rate fully annealed, in the time the variant takes. Against the full-length run a
variant trades error for time, and whether that was a good trade only the shortened run can tell
("Budgeted Training", Li et al., ICLR 2020; "No Train No Gain", Kaddour et al., NeurIPS 2023).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from freezeout.errors import check_number
from freezeout.lab.evidence.arms import (
    Arm,
    arms_of,
    check_arms,
    error_difference,
    time_ratio,
    time_saved,
)
from freezeout.lab.evidence.record import Kind, RunRecord
from freezeout.lab.evidence.statistics import Estimate, check_level, mean_interval
from freezeout.lab.evidence.verdict import Verdict, judge, level_text

__all__ = ["Comparison", "Row", "compare", "compare_arms"]


@dataclass(frozen=True, kw_only=True)
class Row:
    """One arm of a comparison. Differences are taken over the seeds that both arms have.

    Attributes:
        arm: Name of the arm.
        kind: What it is in the comparison.
        of: Name of the variant it belongs to; ``None`` for the baseline and for variants.
        seeds: Seeds of its finished runs, increasing.
        error: Mean final test error in percent.
        seconds: Mean seconds in training steps; ``None`` if unknown.
        saving: Fraction of the baseline's time saved; ``None`` for the baseline, and without pairs.
        time_ratio: For an equal-time baseline: its time over its variant's; else ``None``.
        against_baseline: Error minus that of the full-length baseline, in percentage points.
        against_equal_time: For a variant: error minus that of its equal-time baseline.
        memory: Mean peak bytes; ``None`` if unknown.
        peak_memory: Largest peak bytes of its runs; ``None`` if unknown.
    """

    arm: str
    kind: Kind
    of: str | None
    seeds: tuple[int, ...]
    error: Estimate
    seconds: Estimate | None
    saving: Estimate | None
    time_ratio: Estimate | None
    against_baseline: Estimate | None
    against_equal_time: Estimate | None
    memory: Estimate | None
    peak_memory: int | None


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """What the runs of one cell show.

    Attributes:
        cell: What is compared within: network, data and all else that the runs share.
        level: Confidence of each interval in the rows, in (0, 1).
        verdict_level: Confidence of the intervals that decide verdicts: `level` shared among the
            variants.
        margin: Percentage points of error that count as no difference.
        rows: The baseline, then each variant with its equal-time baseline and its control, then
            what belongs to a variant without runs.
        verdicts: One per variant, in the same order.
        notes: What a reader has to know beside the numbers, in sentences.
    """

    cell: str
    level: float
    verdict_level: float
    margin: float
    rows: tuple[Row, ...]
    verdicts: tuple[Verdict, ...]
    notes: tuple[str, ...]


def compare(
    records: Sequence[RunRecord], *, level: float = 0.95, margin: float = 0.25
) -> tuple[Comparison, ...]:
    """Compare recorded runs, cell by cell. Unfinished runs are left out, and counted in a note.

    Args:
        records: Any runs, in any order.
        level: Confidence of the intervals, in (0, 1).
        margin: Percentage points of error that count as no difference, above 0.

    Returns:
        One comparison per cell that has a finished run, in order of first appearance.

    Raises:
        ValueError: If an argument is outside its range, an arm has two finished runs with one
            seed, or for the reasons of `compare_arms`.

    Example:
        >>> compare([])
        ()
    """
    _check(level, margin)
    cells: dict[str, list[RunRecord]] = {}
    for record in records:
        cells.setdefault(record.cell, []).append(record)
    return tuple(
        _compared(cell, arms, level, margin, tuple(_notes_on_runs(runs)))
        for cell, runs in cells.items()
        if (arms := arms_of(runs))
    )


def compare_arms(
    arms: Sequence[Arm], *, cell: str = "", level: float = 0.95, margin: float = 0.25
) -> Comparison:
    """Compare arms given in plain numbers, as from a custom training loop.

    Args:
        arms: At most one baseline, any number of variants, and for each of them at most one
            equal-time baseline and one control. Arms without runs are left out.
        cell: What the arms share, as shown.
        level: Confidence of the intervals, in (0, 1).
        margin: Percentage points of error that count as no difference, above 0.

    Returns:
        The comparison.

    Raises:
        ValueError: If an argument is outside its range, or arms cannot be told apart.

    Example:
        >>> errors = {0: 5.0, 1: 5.2, 2: 5.1}
        >>> comparison = compare_arms(
        ...     [
        ...         Arm(
        ...             name="full",
        ...             kind="baseline",
        ...             errors=errors,
        ...             seconds={0: 100.0, 1: 101.0, 2: 102.0},
        ...         ),
        ...         Arm(
        ...             name="cubic",
        ...             kind="variant",
        ...             errors={0: 5.3, 1: 5.4, 2: 5.2},
        ...             seconds={0: 80.0, 1: 81.0, 2: 81.5},
        ...         ),
        ...     ]
        ... )
        >>> round(comparison.rows[1].saving.mean, 2), comparison.verdicts[0].outcome
        (0.2, 'undecided')
    """
    _check(level, margin)
    return _compared(cell, arms, level, margin, ())


def _compared(
    cell: str, given: Sequence[Arm], level: float, margin: float, notes: tuple[str, ...]
) -> Comparison:
    arms = _ordered([arm for arm in given if arm.errors])
    check_arms(arms)
    partners = _Partners(arms)
    variants = [arm for arm in arms if arm.kind == "variant"]
    judged = sum(partners.of("equal-time", variant.name) is not None for variant in variants)
    verdict_level = 1 - (1 - level) / max(1, judged) if judged > 1 else level
    verdicts = tuple(
        judge(
            variant,
            baseline=partners.baseline,
            equal_time=partners.of("equal-time", variant.name),
            control=partners.of("control", variant.name),
            level=level,
            verdict_level=verdict_level,
            margin=margin,
        )
        for variant in variants
    )
    return Comparison(
        cell=cell,
        level=level,
        verdict_level=verdict_level,
        margin=margin,
        rows=tuple(_row(arm, partners, level) for arm in arms),
        verdicts=verdicts,
        notes=(*notes, *_notes(arms, partners, verdicts, level, judged)),
    )


class _Partners:
    """Which arms belong together."""

    def __init__(self, arms: Sequence[Arm]) -> None:
        self._by_key: dict[tuple[Kind, str | None], Arm] = {
            (arm.kind, arm.of): arm for arm in arms if arm.kind != "variant"
        }
        self._variants = {arm.name: arm for arm in arms if arm.kind == "variant"}

    @property
    def baseline(self) -> Arm | None:
        return self._by_key.get(("baseline", None))

    def of(self, kind: Kind, variant: str) -> Arm | None:
        return self._by_key.get((kind, variant))

    def variant(self, arm: Arm) -> Arm | None:
        return self._variants.get(arm.of) if arm.of is not None else None


def _row(arm: Arm, partners: _Partners, level: float) -> Row:
    full = partners.baseline if arm.kind != "baseline" else None
    equal = partners.of("equal-time", arm.name) if arm.kind == "variant" else None
    variant = partners.variant(arm) if arm.kind == "equal-time" else None
    memory = list(arm.memory.values())
    return Row(
        arm=arm.name,
        kind=arm.kind,
        of=arm.of,
        seeds=arm.seeds,
        error=mean_interval(list(arm.errors.values()), level),
        seconds=mean_interval(list(arm.seconds.values()), level) if arm.seconds else None,
        saving=time_saved(arm, full, level),
        time_ratio=time_ratio(arm, variant, level),
        against_baseline=error_difference(arm, full, level),
        against_equal_time=error_difference(arm, equal, level),
        memory=mean_interval(memory, level) if memory else None,
        peak_memory=max(memory, default=None),
    )


def _ordered(arms: Sequence[Arm]) -> list[Arm]:
    """Return the baseline, each variant and what belongs to it, then what has no variant here."""
    variants = [arm.name for arm in arms if arm.kind == "variant"]
    kinds: tuple[Kind, ...] = ("baseline", "variant", "equal-time", "control")

    def place(arm: Arm) -> tuple[int, int]:
        owner = arm.name if arm.kind == "variant" else arm.of
        if arm.kind == "baseline":
            return -1, 0
        return variants.index(owner) if owner in variants else len(variants), kinds.index(arm.kind)

    return sorted(arms, key=place)


# --- Notes --------------------------------------------------------------------------------------


def _notes_on_runs(runs: Sequence[RunRecord]) -> Iterator[str]:
    unfinished = sum(run.error is None for run in runs)
    if unfinished:
        yield f"{unfinished} unfinished or untested run{_s(unfinished)} left out."
    places = sorted({f"{run.device}, {run.precision}" for run in runs if run.error is not None})
    if len(places) > 1:
        yield f"Runs were made on {'; '.join(places)}: their times do not compare."


def _notes(
    arms: Sequence[Arm],
    partners: _Partners,
    verdicts: Sequence[Verdict],
    level: float,
    judged: int,
) -> Iterator[str]:
    if judged > 1 and any(v.difference and v.difference.interval for v in verdicts):
        yield (
            f"{judged} variants share the {level_text(1 - level)} chance of a wrong verdict: "
            f"verdicts use {level_text(verdicts[0].level)} intervals. Those in the tables hold "
            f"with {level_text(level)} each."
        )
    lacking = list(_lacking(arms))
    if lacking:
        yield (
            f"Differences and savings are over the seeds that both arms have: {'; '.join(lacking)}."
        )
    for arm in arms:
        if arm.of is not None and partners.variant(arm) is None:
            yield f"{_called(arm)} has no variant with finished runs beside it."
    for verdict in verdicts:
        other_seeds = verdict.unlike_control
        if other_seeds:
            total = len(other_seeds) + len(verdict.as_control)
            yield (
                f"The rate-only control of {verdict.variant} ended with another error than the "
                f"variant in {len(other_seeds)} of {total} seed{_s(total)} "
                f"({_listed(other_seeds)}): there something other than the rates changed."
            )


def _lacking(arms: Sequence[Arm]) -> Iterator[str]:
    """Say which seeds each arm lacks of those that any has."""
    seeds = {seed for arm in arms for seed in arm.seeds}
    for arm in arms:
        missing = sorted(seeds - set(arm.seeds))
        if missing:
            yield f"{_called(arm, 'the')} lacks seed{_s(len(missing))} {_listed(missing)}"


def _called(arm: Arm, article: str = "The") -> str:
    words = {"equal-time": "equal-time baseline of", "control": "rate-only control of"}
    return arm.name if arm.of is None else f"{article} {words[arm.kind]} {arm.of}"


def _listed(seeds: Sequence[int]) -> str:
    shown = [f"{seed}" for seed in seeds[:8]]
    rest = len(seeds) - len(shown)
    return ", ".join(shown) + (f" and {rest} more" if rest else "")


def _s(count: int) -> str:
    return "" if count == 1 else "s"


def _check(level: float, margin: float) -> None:
    check_level(level)
    hint = "It is the difference in error, in percentage points, that would not matter."
    check_number("margin", margin, hint, above=0.0)
