"""The campaign: cases of all kinds in turn, in several processes, until the time is over."""

from __future__ import annotations

import contextlib
import multiprocessing
import shutil
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path

from benchmarks.reliability.case import Case, FoundError, Kind
from benchmarks.reliability.tiny import scratch_home
from freezeout.errors import FreezeOutError

__all__ = ["Finding", "Outcome", "Tally", "carry_out", "next_kind", "run_case"]


@dataclass(frozen=True)
class Finding:
    """A promise that was not kept.

    Attributes:
        kind: Kind of the case.
        seed: Its seed.
        text: What was seen.
        trail: What was done before, in order.
    """

    kind: str
    seed: int
    text: str
    trail: tuple[str, ...]

    @property
    def reproduce(self) -> str:
        """The command that shows it again."""
        return f"python -m benchmarks.reliability --reproduce {self.kind}:{self.seed}"

    def __str__(self) -> str:
        steps = "\n".join(f"    {line}" for line in self.trail)
        return f"FOUND by {self.kind}:{self.seed}: {self.text}\n{steps}\n  again: {self.reproduce}"


@dataclass(frozen=True)
class Outcome:
    """What came of one case.

    Attributes:
        kind: Its kind.
        seed: Its seed.
        seconds: What it took.
        counts: What it did.
        finding: What it found, if anything.
    """

    kind: str
    seed: int
    seconds: float
    counts: dict[str, int]
    finding: Finding | None = None


@dataclass
class Tally:
    """What all cases together did.

    Attributes:
        cases: Cases of each kind.
        seconds: Seconds of each kind, of all processes together.
        counts: What they did.
        findings: What they found.
    """

    cases: Counter[str] = field(default_factory=Counter)
    seconds: Counter[str] = field(default_factory=Counter)
    counts: Counter[str] = field(default_factory=Counter)
    findings: list[Finding] = field(default_factory=list)

    def add(self, outcome: Outcome) -> None:
        """Add one case."""
        self.cases[outcome.kind] += 1
        self.seconds[outcome.kind] += outcome.seconds  # type: ignore[assignment]
        self.counts.update(outcome.counts)
        if outcome.finding is not None:
            self.findings.append(outcome.finding)


def run_case(kind: str, work: Callable[[Case], None], seed: int) -> Outcome:
    """Carry out one case in a folder of its own, which is removed afterwards."""
    folder = Path(tempfile.mkdtemp(prefix=f"{kind}-", dir=scratch_home()))
    case = Case(kind, seed, folder)
    begun = time.monotonic()
    finding = None
    try:
        work(case)
    except FoundError as error:
        finding = Finding(kind, seed, str(error), tuple(case.trail))
    except FreezeOutError as error:  # from a look at what a command has left
        text = f"what is left cannot be read: {error}"
        finding = Finding(kind, seed, text, tuple(case.trail))
    except Exception:
        text = f"the campaign could not go on:\n{traceback.format_exc()}"
        finding = Finding(kind, seed, text, tuple(case.trail))
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return Outcome(kind, seed, time.monotonic() - begun, dict(case.counts), finding)


def carry_out(
    kinds: Mapping[str, Kind],
    *,
    seconds: float,
    seed: int,
    processes: int,
    keep_going: bool,
    tell: Callable[[Tally, float], None],
) -> Tally:
    """Run cases of all kinds until the time is over or something is found.

    Args:
        kinds: The kinds, by name.
        seconds: How long to begin new cases.
        seed: Decides all cases: their seeds are ``seed * 1,000,000 + n``.
        processes: Processes that run cases side by side; each takes every so-many-th case of a
            kind.
        keep_going: Whether to go on after a finding.
        tell: Told of the state every few seconds, and of how long it has been going.

    Raises:
        RuntimeError: If one of the processes dies.
    """
    begun = told = time.monotonic()
    tally = Tally()
    with contextlib.ExitStack() as stack:
        working = dict(
            stack.enter_context(_process(kinds, seconds, seed, number, processes))
            for number in range(processes)
        )
        while working:
            for line in wait([*working], timeout=1.0):
                assert isinstance(line, Connection)
                try:
                    outcome: Outcome = line.recv()
                except EOFError:
                    _check_end(working.pop(line))
                    continue
                tally.add(outcome)
                if outcome.finding is not None:
                    print(f"\n{outcome.finding}\n", flush=True)
                    if not keep_going:
                        return tally
            if time.monotonic() - told > _TELL:
                told = time.monotonic()
                tell(tally, told - begun)
    return tally


def _check_end(process: BaseProcess) -> None:
    process.join()
    if process.exitcode:
        raise RuntimeError(f"a process of the campaign ended with {process.exitcode}.")


_TELL = 15.0  # seconds between lines of figures


@contextlib.contextmanager
def _process(
    kinds: Mapping[str, Kind], seconds: float, seed: int, number: int, processes: int
) -> Iterator[tuple[Connection, BaseProcess]]:
    """Start a process that runs cases and sends what comes of each; end it on leaving."""
    forking = multiprocessing.get_context("fork")
    receiving, sending = forking.Pipe(duplex=False)
    first = seed * SEEDS + number
    arguments = (kinds, seconds, first, processes, sending)
    process = forking.Process(target=_work, args=arguments, daemon=True)
    process.start()
    sending.close()
    try:
        yield receiving, process
    finally:
        process.terminate()
        process.join()
        receiving.close()


SEEDS = 1_000_000
"""Cases that a seed of the campaign has room for."""


def next_kind(kinds: Mapping[str, Kind], spent: Mapping[str, float]) -> str:
    """Return the kind that had least of its share of the seconds spent so far."""
    return min(kinds, key=lambda kind: spent[kind] / kinds[kind].share)


def _work(
    kinds: Mapping[str, Kind], seconds: float, first: int, step: int, line: Connection
) -> None:
    """Run cases until the time is over."""
    end = time.monotonic() + seconds
    spent = dict.fromkeys(kinds, 0.0)
    seeds = dict.fromkeys(kinds, first)
    while time.monotonic() < end:
        name = next_kind(kinds, spent)
        outcome = run_case(name, kinds[name].work, seeds[name])
        spent[name] += outcome.seconds
        seeds[name] += step
        line.send(outcome)
