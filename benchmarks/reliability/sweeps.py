"""A comparison whose driver or workers are killed ends in the bits of one that never was."""

from __future__ import annotations

import functools
import json
import signal
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from benchmarks.reliability.bits import experiment_bits
from benchmarks.reliability.case import Case, judge
from benchmarks.reliability.children import PATIENCE, End, have_ended, run_child
from benchmarks.reliability.going_on import Whole, check_same, until_done
from benchmarks.reliability.interruptions import (
    ERRORS,
    AtMoment,
    AtOperation,
    Interruption,
    Undisturbed,
    count_operations,
)
from benchmarks.reliability.tiny import COMPARE, command, scratch_home
from benchmarks.reliability.workers import STARTED, interrupt_worker

__all__ = ["sweeps", "whole_comparison"]

_MOST = 3  # interruptions of one comparison; then it is left alone
_WORKERS = 5  # a measurement, and four arms that take turns
_OPERATIONS = 90  # of a worker, roughly


@dataclass(frozen=True)
class _OfWorker(Undisturbed):
    """An interruption of the n-th worker that a driver starts, from 1 on."""

    number: int
    how: Interruption

    def __str__(self) -> str:
        return f"worker {self.number}: {self.how}"

    def install(self) -> None:
        interrupt_worker(self.number, self.how)


def sweeps(case: Case) -> None:
    """Interrupt the driver of a comparison, its disk or a worker, and go on until it is done."""
    whole = whole_comparison()
    kinds: tuple[Callable[[], Interruption], ...] = (
        lambda: AtOperation(1 + case.random.randrange(whole.operations)),
        lambda: AtMoment(case.random.random() * whole.seconds),
        lambda: AtMoment(case.random.random() * whole.seconds, signal.SIGTERM),
        lambda: AtMoment(case.random.random() * whole.seconds, signal.SIGINT),
        lambda: AtOperation(
            1 + case.random.randrange(whole.operations), error=case.random.choice(ERRORS)
        ),
        lambda: _of_worker(case),
        lambda: _of_worker(case),
    )

    def draw(start: int) -> Interruption:
        if start == 0:
            return kinds[case.seed % len(kinds)]()
        return case.random.choice(kinds)() if start < _MOST else Undisturbed()

    def stopped(end: End, how: Interruption) -> bool:
        _check_ended(case)
        if end.code == 2 and isinstance(how, AtOperation) and how.error is not None:
            judge(end, allowed=[2])
            case.count("failed disks")
            return True
        interrupted = end.killed or (bool(how.signals) and end.code in (130, 143, -15))
        if interrupted or isinstance(how, _OfWorker):
            case.count("kills in sweeps")
        return interrupted

    first = ["compare", *COMPARE, "--out", "kept"]
    resume = ["compare", "--resume", "kept", "--processes", "1"]
    until_done(case, first, resume, draw, stopped=stopped)
    _check_defects(case)
    check_same(case, experiment_bits(case.folder / "kept"), whole.bits)


def _of_worker(case: Case) -> Interruption:
    number = 1 + case.random.randrange(_WORKERS)
    return _OfWorker(number, AtOperation(1 + case.random.randrange(_OPERATIONS)))


@functools.cache
def whole_comparison() -> Whole:
    """Return the comparison that nothing disturbs, carried out once."""
    home = Path(tempfile.mkdtemp(prefix="whole-", dir=scratch_home()))
    counting, count = count_operations()
    words = ["compare", *COMPARE, "--out", "kept"]
    end = run_child(command(words), home, counting.install)
    if end.code:
        raise RuntimeError(f"the undisturbed comparison ended with {end.words}: {end.err}")
    return Whole(experiment_bits(home / "kept"), count(), end.seconds)


def _check_ended(case: Case) -> None:
    """Raise where a worker goes on although its driver has ended."""
    started = case.folder / STARTED
    pids = [int(line) for line in started.read_text().split()] if started.is_file() else []
    case.check(have_ended(pids, PATIENCE), f"a worker is left {PATIENCE:.0f} s after the driver")


def _check_defects(case: Case) -> None:
    """Raise where a run failed by a defect of the program, which leaves a trace in its folder."""
    for path in (case.folder / "kept").rglob("failed.json"):
        trace = json.loads(path.read_text(encoding="utf-8")).get("traceback")
        case.check(not trace, f"a run failed by a defect:\n{trace}")
