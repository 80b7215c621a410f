"""Children of this process, forked: they begin at once, with everything imported."""

from __future__ import annotations

import contextlib
import ctypes
import os
import selectors
import signal
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

__all__ = [
    "PATIENCE",
    "Child",
    "End",
    "have_ended",
    "obey_permissions",
    "run_child",
    "take_streams",
]


PATIENCE = 180.0
"""Seconds that a child may take, where one of them is plenty: the machine may be busy."""


@dataclass(frozen=True)
class End:
    """How a child ended.

    Attributes:
        code: Its exit code; below 0 the signal that killed it.
        out: What it wrote to its standard output.
        err: What it wrote to its error stream.
        seconds: How long it ran.
        late: Whether it had to be killed because it took too long.
    """

    code: int
    out: str
    err: str
    seconds: float
    late: bool = False

    @property
    def killed(self) -> bool:
        """Whether ``SIGKILL`` or the limit of a file's size ended it."""
        return self.code in (-signal.SIGKILL, -signal.SIGXFSZ)

    @property
    def words(self) -> str:
        """How it ended, in words."""
        if self.late:
            return f"no end within {self.seconds:.0f} s"
        if self.code < 0:
            return signal.Signals(-self.code).name
        return f"exit code {self.code}"


class Child:
    """A forked child in a session of its own.

    Args:
        work: What it does; what it returns is its exit code. It counts as a whole program: what it
            raises is printed as Python does, with exit code 1.
        folder: Its current folder.
        before: Done first in the child, such as setting limits.
    """

    def __init__(
        self, work: Callable[[], int], folder: Path, before: Callable[[], None] | None = None
    ) -> None:
        sys.stdout.flush()
        sys.stderr.flush()
        self._begun = time.monotonic()
        out, err = os.pipe(), os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            _be(work, folder, before, out[1], err[1])
        os.close(out[1])
        os.close(err[1])
        self._streams = {out[0]: bytearray(), err[0]: bytearray()}
        self._order = out[0], err[0]

    def wait(self, seconds: float, signals: dict[float, int] | None = None) -> End:
        """Wait for its end.

        Args:
            seconds: How long at most; then it and all of its session are killed.
            signals: Signals to send it, by seconds after its start.
        """
        due = sorted((signals or {}).items())
        handle = os.pidfd_open(self.pid)
        with selectors.DefaultSelector() as selector:
            for stream in (*self._order, handle):
                selector.register(stream, selectors.EVENT_READ)
            status = None
            late = False
            while status is None:
                passed = time.monotonic() - self._begun
                while due and due[0][0] <= passed:
                    os.kill(self.pid, due.pop(0)[1])
                if passed > seconds and not late:
                    late = True
                    self.kill()
                wait = min(due[0][0] if due else seconds, seconds) - passed
                for key, _ in selector.select(max(0.0, wait) if not late else None):
                    if key.fd == handle:
                        _, status = os.waitpid(self.pid, 0)
                    else:
                        self._read(key.fd, selector)
            for stream in self._order:
                os.set_blocking(stream, False)
                while self._read(stream):
                    pass
        for descriptor in (handle, *self._order):
            os.close(descriptor)
        passed = time.monotonic() - self._begun
        out, err = (bytes(self._streams[s]).decode(errors="replace") for s in self._order)
        return End(os.waitstatus_to_exitcode(status), out, err, passed, late)

    def kill(self) -> None:
        """Kill it, and what it started in its session."""
        with contextlib.suppress(ProcessLookupError):  # it may not have made its session yet
            os.killpg(self.pid, signal.SIGKILL)
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)

    def _read(self, stream: int, selector: selectors.BaseSelector | None = None) -> bool:
        """Take what a stream has to give; return whether there may be more."""
        try:
            part = os.read(stream, 65536)
        except BlockingIOError:  # somebody else still has the other end
            return False
        self._streams[stream] += part
        if not part and selector is not None:
            selector.unregister(stream)
        return bool(part)


def run_child(
    work: Callable[[], int],
    folder: Path,
    before: Callable[[], None] | None = None,
    *,
    seconds: float = PATIENCE,
    signals: dict[float, int] | None = None,
) -> End:
    """Run something in a child and wait for its end; see `Child`."""
    return Child(work, folder, before).wait(seconds, signals)


def have_ended(pids: list[int], seconds: float) -> bool:
    """Wait until some processes, children of anybody, have ended; return whether they have."""
    deadline = time.monotonic() + seconds
    while any(_lives(pid) for pid in pids):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def _lives(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


_SET_DEATH_SIGNAL = 1
_MOST_FILES = 1024


def take_streams(inward: int, outward: int, errors: int) -> None:
    """Make a forked process look like one that was just started, with these three streams.

    All other files are closed, and signals act as Python has them at first.
    """
    for number, source in enumerate((inward, outward, errors)):
        os.dup2(source, number)
    os.closerange(3, _MOST_FILES)
    sys.stdin = os.fdopen(0, closefd=False)
    sys.stdout = os.fdopen(1, "w", closefd=False)
    sys.stderr = os.fdopen(2, "w", closefd=False, errors="backslashreplace", buffering=1)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)


def obey_permissions() -> None:
    """Let files that a user may not read or write be so for ``root`` as well, in this process."""
    header = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION, 0)
    sets = (ctypes.c_uint32 * 6)()  # effective, permitted, inheritable; twice
    libc = ctypes.CDLL(None, use_errno=True)
    libc.capget(header, sets)
    sets[0] &= ~(1 << 1 | 1 << 2)  # CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH
    if libc.capset(header, sets):
        raise OSError(ctypes.get_errno(), "cannot lay down capabilities")


_CAPABILITY_VERSION = 0x20080522


def _be(
    work: Callable[[], int],
    folder: Path,
    before: Callable[[], None] | None,
    out: int,
    err: int,
) -> None:
    """Be the child; this never returns."""
    code = 1
    try:
        os.setsid()
        ctypes.CDLL(None).prctl(_SET_DEATH_SIGNAL, signal.SIGKILL)  # end with the parent
        take_streams(os.open(os.devnull, os.O_RDONLY), out, err)
        os.chdir(folder)
        if before is not None:
            before()
        code = work()
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else int(error.code is not None)
    except BaseException:
        traceback.print_exc()
    finally:
        with contextlib.suppress(BaseException):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)
