"""Ways of interrupting a process: before a file operation, within a write, at a moment.

They are set up in a forked child, which never has to undo them.
"""

from __future__ import annotations

import errno
import mmap
import os
import resource
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

__all__ = [
    "ERRORS",
    "AtByte",
    "AtMoment",
    "AtOperation",
    "Interruption",
    "Undisturbed",
    "count_operations",
    "leave_alone",
]


ERRORS = (
    *(errno.ENOSPC, errno.EIO, errno.EACCES, errno.EROFS, errno.EDQUOT, errno.EMFILE),
    *(errno.ESTALE, errno.ENOENT),
)
"""What a disk may answer."""


@dataclass(frozen=True)
class Undisturbed:
    """Nothing happens."""

    def __str__(self) -> str:
        return "undisturbed"

    def install(self) -> None:
        """Set it up in a child."""

    @property
    def signals(self) -> dict[float, int]:
        """Signals that the parent sends, by seconds after the start."""
        return {}


@dataclass(frozen=True)
class AtOperation(Undisturbed):
    """A signal or an error before the n-th file operation.

    Attributes:
        number: Which operation, from 1 on.
        signal: The signal that the process sends to itself.
        error: The error with which the operation fails instead.
    """

    number: int
    signal: int = signal.SIGKILL
    error: int | None = None

    def __str__(self) -> str:
        what = signal.Signals(self.signal).name
        if self.error is not None:
            what = errno.errorcode[self.error]
        return f"{what} at file operation {self.number}"

    def install(self) -> None:
        """Count from now on."""

        def act(count: int, path: str) -> None:
            if count != self.number:
                return
            if self.error is not None:
                raise OSError(self.error, os.strerror(self.error), path)
            os.kill(os.getpid(), self.signal)

        _watch(act)


@dataclass(frozen=True)
class AtByte(Undisturbed):
    """No file may become longer than this: the write that would is cut off there.

    Attributes:
        size: Bytes.
        kills: Whether the next write then kills; else it fails, as on a disk that is full.
    """

    size: int
    kills: bool = True

    def __str__(self) -> str:
        return f"{'killed' if self.kills else 'full disk'} at byte {self.size} of a file"

    def install(self) -> None:
        """Set the limit."""
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        handler = signal.SIG_DFL if self.kills else signal.SIG_IGN
        signal.signal(signal.SIGXFSZ, handler)
        resource.setrlimit(resource.RLIMIT_FSIZE, (self.size, resource.RLIM_INFINITY))


@dataclass(frozen=True)
class AtMoment(Undisturbed):
    """A signal from outside, so many seconds after the start."""

    seconds: float
    signal: int = signal.SIGKILL

    def __str__(self) -> str:
        return f"{signal.Signals(self.signal).name} after {self.seconds:.3f} s"

    @property
    def signals(self) -> dict[float, int]:
        """Signals that the parent sends, by seconds after the start."""
        return {self.seconds: self.signal}


Interruption = Undisturbed


def count_operations() -> tuple[Undisturbed, Callable[[], int]]:
    """Return an interruption that only counts, and what tells the count to the parent."""
    shared = mmap.mmap(-1, 8)

    class Counting(Undisturbed):
        def install(self) -> None:
            def act(count: int, path: str) -> None:
                shared[:] = count.to_bytes(8, "little")

            _watch(act)

    return Counting(), lambda: int.from_bytes(shared[:], "little")


def leave_alone() -> None:
    """Stop counting, in a child of a child."""
    _act.clear()


_Act: TypeAlias = Callable[[int, str], None]
_act: list[_Act] = []
_EVENTS = (
    *("open", "os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.chmod", "os.link"),
    *("os.symlink", "os.truncate", "os.listdir", "os.scandir", "os.utime"),
)


def _watch(act: _Act) -> None:
    """Call something before every operation on files in the current folder or below."""
    folder = os.fsencode(Path.cwd())
    count = 0

    def note(path: object) -> None:
        nonlocal count
        if _act:
            count += 1
            _act[0](count, os.fsdecode(path) if isinstance(path, bytes) else str(path))

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if event in _EVENTS and _is_inside(arguments[0], folder):
            note(arguments[0])

    plain = os.fsync

    def fsync(descriptor: int) -> None:
        note("a file")
        plain(descriptor)

    _act.append(act)
    os.fsync = fsync  # type: ignore[assignment]  # its type allows objects with fileno()
    sys.addaudithook(hook)


def _is_inside(path: object, folder: bytes) -> bool:
    if not isinstance(path, (str, bytes, os.PathLike)):
        return False
    name = os.fsencode(path)
    return name.startswith(folder) or not name.startswith(b"/")
