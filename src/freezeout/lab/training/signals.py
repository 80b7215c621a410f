"""Stop at a signal, with everything saved; what a signal raises where nothing is to be saved."""

from __future__ import annotations

import signal
import threading
from types import FrameType, TracebackType
from typing import Any

__all__ = ["Interrupted", "StopSignals", "forget_signals", "stop_code"]

_stopped_by: list[int] = []  # the signals that have stopped work in this process


class Interrupted(KeyboardInterrupt):
    """A signal ends the program.

    Args:
        number: Its number.

    Attributes:
        number: Its number.
    """

    def __init__(self, number: int) -> None:
        super().__init__()
        self.number = number

    @staticmethod
    def number_of(error: KeyboardInterrupt) -> int:
        """Return the number of the signal behind an interrupt; Python's own is ``SIGINT``."""
        return int(error.number if isinstance(error, Interrupted) else signal.SIGINT)


def forget_signals() -> None:
    """Forget the signals of earlier work in this process, for `stop_code`."""
    _stopped_by.clear()


def stop_code() -> int:
    """Return the exit code of work that was stopped and can go on.

    Returns:
        143 if `StopSignals` has got a ``SIGTERM`` since `forget_signals`, else 130.
    """
    return 128 + (_stopped_by[-1] if _stopped_by else signal.SIGINT)


class StopSignals:
    """Turn the first ``SIGINT`` or ``SIGTERM`` into an event; a second one acts as usual.

    A context manager. Only the main thread can receive signals; elsewhere it does nothing.

    Args:
        stop: Set when a signal comes.
        once: Ignore a second signal, and all others to the end of the process: one of several
            processes gets signals from its launcher too, which must not cut short the saving. The
            launcher kills what does not end.

    Attributes:
        received: Whether one has come.
    """

    def __init__(self, stop: threading.Event, *, once: bool = False) -> None:
        self._stop = stop
        self._once = once
        self._previous: dict[signal.Signals, Any] = {}
        self.received = False

    def __enter__(self) -> StopSignals:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._previous[number] = signal.signal(number, self._receive)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._restore()

    def _receive(self, number: int, frame: FrameType | None) -> None:
        self.received = True
        _stopped_by.append(number)
        self._stop.set()
        self._restore()

    def _restore(self) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, signal.SIG_IGN if self._once and self.received else handler)
        self._previous.clear()
