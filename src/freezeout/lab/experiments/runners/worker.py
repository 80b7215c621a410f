"""A process of its own for one run of an experiment.

It is started as ``python -m freezeout.lab.experiments.runners.worker``.

It talks with the process that started it in lines of JSON. First comes what to do. Then the run
goes on for a turn each time it is told ``go``, and says how far it is at the end of each, so that
several runs can take turns on the same cores. When the line is cut (we are to stop, or the other
end has died), the run saves and ends.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from contextlib import suppress
from traceback import format_exc
from typing import IO, Any

from freezeout.errors import FreezeOutError
from freezeout.lab.experiments.job import (
    Job,
    JobOutcome,
    failure,
    measure_job,
    record_failure,
    run_job,
)
from freezeout.lab.training import EpochRecord, Observer, Progress, RunStart
from freezeout.text import one_line

__all__ = ["TURNS", "main"]

TURNS = 100
"""Turns in a run: after each hundredth of its steps the others have theirs."""


class _Line:
    """The line to the process that started this one.

    It is read without Python's buffers: their locks would hold up the end of the process.
    """

    def __init__(self, inward: int, outward: IO[str]) -> None:
        self._in = inward
        self._out = outward
        self._rest = b""
        self._go = threading.Semaphore(0)
        self.is_cut = False
        self._ends_when_cut = False

    def first(self) -> str:
        """Return the first line; from then on listen for ``go`` and for the end of the line."""
        while b"\n" not in self._rest:
            part = os.read(self._in, 65536)
            if not part:
                raise EOFError("nothing was said: this program is started by freezeout sweep.")
            self._rest += part
        line, _, self._rest = self._rest.partition(b"\n")
        threading.Thread(target=self._listen, daemon=True).start()
        return line.decode()

    def _listen(self) -> None:
        part = self._rest
        while True:
            for _ in range(part.count(b"\n")):
                self._go.release()
            part = os.read(self._in, 65536)
            if not part:
                self.is_cut = True
                self._go.release()
                if self._ends_when_cut:
                    os._exit(3)
                return

    def end_when_cut(self) -> None:
        """End this process at once when the line is cut, or if it is: there is nothing to save."""
        self._ends_when_cut = True
        if self.is_cut:
            os._exit(3)

    def wait(self) -> None:
        """Wait until told to go on, or cut off."""
        if not self.is_cut:
            self._go.acquire()

    def tell(self, **message: Any) -> None:
        """Say something, if anybody still listens."""
        try:
            self._out.write(json.dumps(message) + "\n")
            self._out.flush()
        except OSError:
            self.is_cut = True


class _Turns(Observer):
    """Wait at the end of each turn until told to go on.

    Attributes:
        error: Latest test error in percent; ``None`` before the first test.
    """

    def __init__(self, line: _Line) -> None:
        self._line = line
        self._stopping = False
        self._total = 1
        self._turn = 0
        self.error: float | None = None
        self.waited = 0.0

    def start(self, run: RunStart) -> None:
        self._total = run.total_steps
        self._end_turn(run.done_steps)

    def progress(self, progress: Progress) -> None:
        if self._line.is_cut:
            self._stop()
        elif progress.step * TURNS // self._total > self._turn:
            self._end_turn(progress.step)

    def epoch(self, record: EpochRecord) -> None:
        if record.test_error is not None:
            self.error = record.test_error

    def _end_turn(self, step: int) -> None:
        self._turn = step * TURNS // self._total
        begun = time.monotonic()
        self._line.tell(
            event="turn", turn=self._turn, step=step, total=self._total, error=self.error
        )
        self._line.wait()
        self.waited += time.monotonic() - begun
        if self._line.is_cut:
            self._stop()

    def _stop(self) -> None:
        if not self._stopping:  # a second signal would end the process without saving
            self._stopping = True
            os.kill(os.getpid(), signal.SIGTERM)


def main() -> int:
    """Do what the first line of the standard input says.

    Returns:
        The exit code: 0 if it was done, 1 if it failed, 3 if it was interrupted.
    """
    outward = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # what else is printed is for the log
    line = _Line(os.dup(sys.stdin.fileno()), outward)
    try:
        return _work(line)
    except EOFError as error:
        print(error, file=sys.stderr)
        return 3
    finally:
        with suppress(OSError):  # nobody listens any more
            outward.close()


def _work(line: _Line) -> int:
    task = json.loads(line.first())
    job = Job.from_dict(task["job"])
    outcome: JobOutcome
    latest: float | None = None
    try:
        if task["do"] == "measure":
            line.end_when_cut()
            measure_job(job)
            outcome = "done"
        else:
            turns = _Turns(line)
            outcome = run_job(job, [turns], give_up=lambda: line.is_cut)
            latest = turns.error
    except FreezeOutError as error:
        return _failed(line, job, task["do"], one_line(error))
    except Exception as error:
        if task["do"] == "run":
            raise
        reason = f"{type(error).__name__}: {one_line(error)}"
        return _failed(line, job, task["do"], reason, format_exc())
    line.tell(event="end", outcome=outcome, error=latest, reason=failure(job.folder) or "")
    return {"done": 0, "failed": 1}.get(outcome, 3)


def _failed(line: _Line, job: Job, do: str, reason: str, trace: str | None = None) -> int:
    if do == "measure":
        reason = f"its step cannot be measured: {reason}"
        record_failure(job, reason, trace)
    line.tell(event="end", outcome="failed", reason=reason)
    return 1


if __name__ == "__main__":
    sys.exit(main())
