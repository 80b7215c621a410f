"""A signal ends a command at any moment: with its code, at most a line, and nothing lost."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks.reliability.bits import run_bits
from benchmarks.reliability.case import Case, FoundError, judge
from benchmarks.reliability.children import PATIENCE, End
from benchmarks.reliability.going_on import check_same, train_words, until_done, whole_run
from benchmarks.reliability.interruptions import (
    AtMoment,
    AtOperation,
    Interruption,
    Undisturbed,
)

__all__ = ["signals"]

_CODES = {signal.SIGINT: 130, signal.SIGTERM: 143}
_SECONDS = 4.0  # until a new process has done a tiny run, roughly
_EVERY = 4  # one case of so many starts a program of its own
_COMMANDS = (
    ("--version",),
    ("train", "--help"),
    ("plan", "--modle", "x"),
    ("report", "nowhere"),
    ("plan", "--model", "resnet-8", "--rounds", "1", "--out", "plan"),
)


def signals(case: Case) -> None:
    """Send a signal to a command, in a new process or in a forked one."""
    number = case.random.choice([*_CODES])
    if case.seed % _EVERY == 0:
        _new_process(case, number)
    else:
        _forked(case, number)
    case.count("signals")


def _forked(case: Case, number: signal.Signals) -> None:
    """Stop a run by signals some times; it ends in the same bits."""
    whole = whole_run("every step" if case.random.random() < 0.5 else "predicted")
    recipe = "every step" if whole is whole_run("every step") else "predicted"

    def draw(start: int) -> Interruption:
        if start > 2:
            return Undisturbed()
        if case.random.random() < 0.6:
            return AtOperation(1 + case.random.randrange(whole.operations), signal=number)
        return AtMoment(0.03 + case.random.random() * whole.seconds, signal=number)

    def stopped(end: End, how: Interruption) -> bool:
        if type(how) is Undisturbed or end.code in (0, 2):
            return False
        _judge(end, number)
        return True

    first = train_words(recipe, "run")
    resume = ["train", "--resume", "run", "--display", "none"]
    until_done(case, first, resume, draw, stopped=stopped)
    check_same(case, run_bits(case.folder / "run"), whole.bits)


def _new_process(case: Case, number: signal.Signals) -> None:
    """Start a program of its own and send it one signal, or two."""
    words = case.random.choice([*_COMMANDS, train_words("epochs", "run")])
    delays = sorted(case.random.random() * _SECONDS for _ in range(case.random.choice((1, 1, 2))))
    end, listened = _started(case, words, number, delays)
    how = f"{number.name} after {', '.join(f'{d:.3f}' for d in delays)} s, in a new process"
    case.did(words, how, end)
    if not listened:  # Python was still starting, and ends in its own way
        case.check(not end.late and not [*case.folder.iterdir()], f"{end.words}, and files")
    elif end.code in (0, 2):
        judge(end)
    elif len(delays) == 1:
        _judge(end, number)
    else:
        judge(end, allowed=[_CODES[number], -number])


def _started(
    case: Case, words: Sequence[str], number: signal.Signals, delays: Sequence[float]
) -> tuple[End, bool]:
    """Return how it ended, and whether it listened to all signals that it got."""
    begun = time.monotonic()
    process = subprocess.Popen(
        [sys.executable, "-m", "freezeout", *words],
        cwd=case.folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        start_new_session=True,
    )
    listened = True
    for delay in delays:
        try:
            process.wait(max(0.0, begun + delay - time.monotonic()))
            break
        except subprocess.TimeoutExpired:
            listened = listened and _listens(process.pid)
            process.send_signal(number)
    late = False
    try:
        out, err = process.communicate(timeout=PATIENCE)
    except subprocess.TimeoutExpired:
        late = True
        process.kill()
        out, err = process.communicate()
    return End(process.returncode, out, err, time.monotonic() - begun, late), listened


def _listens(pid: int) -> bool:
    """Return whether a process of Python has taken over ``SIGTERM``, as the program does first.

    One that ignores it has already ended, as far as signals are concerned.
    """
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    caught = (line.split()[1] for line in lines if line.startswith(("SigCgt:", "SigIgn:")))
    return any(int(mask, 16) >> (signal.SIGTERM - 1) & 1 for mask in caught)


def _judge(end: End, number: signal.Signals) -> None:
    """Check the end of a command that was signalled: its code, and at most one line."""
    lines = end.err.strip().splitlines()
    if end.late:
        judge(end)
    if len(lines) > 1:
        raise FoundError(f"{len(lines)} lines after {number.name}: {end.err.strip()[-1500:]}")
    if end.code != _CODES[number]:
        raise FoundError(f"{end.words} after {number.name}, in place of {_CODES[number]}")
