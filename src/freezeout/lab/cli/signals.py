"""End the program at a signal: one line, and 128 and the signal's number as exit code.

``SIGINT`` gives 130 and ``SIGTERM`` 143, at any moment from here on. In ordinary code the first one
is raised as `Interrupted`, so that what is under way can clean up. An import is no place for that,
since packages turn exceptions into others there: the program ends at once, and so it does at a
second signal. While something is trained, `StopSignals` has the first one.
"""

from __future__ import annotations

import os
import signal
import sys
from contextlib import suppress
from types import FrameType
from typing import Any, NoReturn

from freezeout.lab.cli.launched import is_another
from freezeout.lab.training import Interrupted

__all__ = ["EndSignals", "end_line"]

_BOTH = (signal.SIGINT, signal.SIGTERM)
_SHOW_CURSOR = b"\x1b[?25h"


def end_line(number: int) -> str:
    """Return what is said when a signal has ended the program."""
    return f"freezeout: {'terminated' if number == signal.SIGTERM else 'interrupted'}"


class EndSignals:
    """Take over ``SIGINT`` and ``SIGTERM`` for the rest of the process, if this is its main thread.

    Processes that it forks later get Python's own handling back.
    """

    def __init__(self) -> None:
        self._received = False

    def catch(self) -> None:
        """Begin to end the program at signals."""
        with suppress(ValueError):  # not the main thread, which alone gets signals
            for number in _BOTH:
                signal.signal(number, self._receive)
            sys.unraisablehook = self._unraisable
            if hasattr(os, "register_at_fork"):
                os.register_at_fork(after_in_child=_as_before)

    def over(self) -> None:
        """Ignore signals from now on: how the program ends is settled."""
        _ignore()

    def end(self, error: KeyboardInterrupt) -> int:
        """Say that the program was interrupted, and return the exit code."""
        number = Interrupted.number_of(error)
        _ignore()
        _say(number)
        return 128 + number

    def _receive(self, number: int, frame: FrameType | None) -> None:
        if self._received or _importing(frame):
            _leave(number)
        self._received = True
        raise Interrupted(number)

    def _unraisable(self, lost: Any) -> None:
        """End the program where a finalizer got the exception, which cannot pass it on."""
        if isinstance(lost.exc_value, Interrupted):
            _leave(lost.exc_value.number)
        sys.__unraisablehook__(lost)


def _leave(number: int) -> NoReturn:
    _ignore()
    _say(number)
    os._exit(128 + number)


def _ignore() -> None:
    with suppress(ValueError):
        for number in _BOTH:
            signal.signal(number, signal.SIG_IGN)


def _as_before() -> None:
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _say(number: int) -> None:
    """Write the line past Python's buffers: the signal may have come in the middle of a print."""
    with suppress(OSError):
        if os.isatty(1):
            os.write(1, _SHOW_CURSOR)  # a live display may have hidden it
    if not is_another():
        with suppress(OSError):
            os.write(2, f"{end_line(number)}\n".encode())


def _importing(frame: FrameType | None) -> bool:
    """Return whether an import is under way."""
    while frame is not None:
        if frame.f_globals.get("__name__") == "importlib._bootstrap":
            return True
        frame = frame.f_back
    return False
