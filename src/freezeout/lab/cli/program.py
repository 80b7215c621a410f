"""The program: do what the words ask for, and end with the code that says how it went.

Exit codes: 0 done; 1 a defect of freezeout itself (with a traceback to report); 2 bad input or a
run that cannot go on (one line on the error stream); 130 stopped by ``SIGINT`` and 143 by
``SIGTERM`` (all saved, if training had begun). Processes of one run end with the same code, and one
of them prints.
"""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from freezeout.lab.cli.signals import EndSignals, end_line
from freezeout.lab.training import Interrupted

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        arguments: Words after the program's name. Without them this is the program itself: the
            words are those of the process, signals end it at any moment, and are ignored once this
            returns. With them, signals are the caller's affair.

    Returns:
        The exit code. One of several joined processes ends with it instead of returning.
    """
    if arguments is not None:
        try:
            return _main(arguments)
        except KeyboardInterrupt as error:
            number = Interrupted.number_of(error)
            print(end_line(number), file=sys.stderr)
            return 128 + number
    signals = EndSignals()
    try:
        signals.catch()
        try:
            code = _main(None)
        except SystemExit as leaving:  # --help and the like
            code = int(leaving.code or 0)
        signals.over()
    except KeyboardInterrupt as error:
        return signals.end(error)
    finally:
        signals.over()
    return code


def _main(arguments: Sequence[str] | None) -> int:
    try:
        with _streams():
            from freezeout.lab.cli.attempt import attempt

            return attempt(arguments)
    except BrokenPipeError:  # nobody reads on, as behind | head
        return 0


@contextmanager
def _streams() -> Iterator[None]:
    """Let output be closed, be cut off, or lack the characters of a name."""
    from freezeout.lab.streams import outlive

    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # closed, as by >&-
            setattr(sys, name, Path(os.devnull).open("w"))  # noqa: SIM115  (open until the process ends)
    stream = sys.stdout
    errors = None
    if isinstance(stream, io.TextIOWrapper):
        errors = stream.errors
        stream.reconfigure(errors="backslashreplace")
    try:
        yield
    finally:
        with outlive(stream):
            stream.flush()
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors=errors)
