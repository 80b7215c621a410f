"""One owner a folder: a lock that says who holds it."""

from __future__ import annotations

import errno
import json
import math
import os
import socket
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from types import TracebackType

from filelock import FileLock, Timeout

from freezeout.errors import RunError
from freezeout.storage import KeptFile, parse_json, read_bytes

__all__ = ["FolderLock", "InUseError", "is_lock"]

_POLL = 0.1  # seconds between tries
_SETTLE = 1.0  # seconds for a process that has just taken a lock to say who it is
_SAME = 2.0  # seconds by which the start of one program may seem to differ
_NOTE = KeptFile("note of the lock", "It is not needed.", "Delete it.")
_MOST_BYTES = 4096
_NO_LOCKS = {errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOTSUP}


class InUseError(RunError):
    """Another process holds the folder."""


class FolderLock:
    """Hold a folder for this process, until it lets go or dies, however it dies.

    A context manager. It locks the file ``.lock`` in the folder and writes beside it, in
    ``.lock.json``, which process holds it. The system lets go of the lock of a process that was
    killed; files that it left behind hold nobody up and are never taken for an owner.

    A folder that cannot be written is refused: nothing could be kept in it. Where the disk has no
    locks, as some network folders, the work goes on, and `say` is told: it would be a loss to
    refuse such disks, and a live owner on this machine is still found by what it wrote.

    Args:
        folder: The folder; it is made if it is missing.
        beside: Whether the lock is not in the folder but next to it, as ``.NAME.lock``; the folder
            itself is then not made.
        patience: Seconds to wait for another process to let go.
        give_up: Asked while waiting, whether to wait no longer.
        say: Told in words if the disk has no locks.

    Raises:
        InUseError: On entering, if another process holds it.
        RunError: On entering, if the folder cannot be written.
    """

    def __init__(
        self,
        folder: Path,
        *,
        beside: bool = False,
        patience: float = 0.0,
        give_up: Callable[[], bool] = lambda: False,
        say: Callable[[str], None] = lambda text: None,
    ) -> None:
        self._folder = folder
        self._file = folder.with_name(f".{folder.name}.lock") if beside else folder / ".lock"
        self._note = self._file.with_name(f"{self._file.name}.json")
        self._patience = patience
        self._give_up = give_up
        self._say = say
        self._lock = FileLock(self._file, fallback_to_soft=False)

    def __enter__(self) -> FolderLock:
        begun = time.monotonic()
        while not self._try():
            waited = time.monotonic() - begun
            holder = _read(self._note)
            known = holder is not None and holder.may_live
            # One that took the lock a moment ago has not written yet who it is.
            if self._give_up() or waited >= max(self._patience, 0.0 if known else _SETTLE):
                raise InUseError(self._words(holder if known else None))
            time.sleep(_POLL)
        with suppress(OSError):  # a full disk does not make the lock less of one
            self._note.unlink(missing_ok=True)  # a pipe would be waited for, a link followed
            self._note.write_text(json.dumps(asdict(_this_process())), encoding="utf-8")
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        with suppress(OSError):  # such as a folder that is gone
            self._note.unlink()
        with suppress(OSError):
            self._lock.release()

    def _try(self) -> bool:
        """Take the lock if it is free; return whether this process may go on."""
        try:
            self._lock.acquire(timeout=0)
        except Timeout:
            return False
        except OSError as error:
            reason = error.strerror or str(error)
            if error.errno not in _NO_LOCKS:
                raise RunError(
                    f"cannot lock folder {self._folder}: {reason}. Fix permissions, or give "
                    "another folder with --out."
                ) from error
            holder = _read(self._note)
            if holder is not None and holder.may_live and holder.host == socket.gethostname():
                return False
            self._say(
                f"the disk of {self._folder} has no locks ({reason}): see to it that no other "
                "process works in it"
            )
        return True

    def _words(self, holder: _Holder | None) -> str:
        who = "another process" if holder is None else holder.words()
        return f"{self._folder} is in use by {who}. Wait until that one has ended, or stop it."


def is_lock(path: Path) -> bool:
    """Return whether a file is one that `FolderLock` leaves in a folder."""
    return path.name in (".lock", ".lock.json")


@dataclass(frozen=True)
class _Holder:
    """A process that holds a folder; times in seconds since 1970."""

    pid: int
    host: str
    started: float
    since: float

    @property
    def may_live(self) -> bool:
        """Whether it is not known to have ended: of another machine nothing is known."""
        if self.host != socket.gethostname():
            return True
        import psutil  # not above: the command line says in one line that it is missing

        try:
            process = psutil.Process(self.pid)
            return bool(
                abs(process.create_time() - self.started) < _SAME
                and process.status() != psutil.STATUS_ZOMBIE
            )
        except psutil.Error:
            return False

    def words(self) -> str:
        """Say which process it is."""
        since = datetime.fromtimestamp(self.since).astimezone()
        return f"process {self.pid} on {self.host} since {since:%Y-%m-%d %H:%M:%S}"


def _this_process() -> _Holder:
    import psutil

    pid = os.getpid()
    started = psutil.Process(pid).create_time()
    return _Holder(pid=pid, host=socket.gethostname(), started=started, since=time.time())


def _read(note: Path) -> _Holder | None:
    """Return what a holder wrote; ``None`` if it has not, or it is damaged."""
    try:
        values = parse_json(read_bytes(note, _NOTE, most=_MOST_BYTES).decode())
        holder = _Holder(
            pid=int(values["pid"]),
            host=" ".join(str(values["host"]).split()),
            started=float(values["started"]),
            since=float(values["since"]),
        )
        holder.words()  # times that no calendar has
    except (RunError, OSError, ValueError, KeyError, TypeError, OverflowError):
        return None
    return holder if holder.pid > 0 and math.isfinite(holder.started) else None
