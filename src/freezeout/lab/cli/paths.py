"""Paths on the command line: how one is read, and what is said where the system refuses one."""

from __future__ import annotations

import argparse
import errno
import os
from pathlib import Path

__all__ = ["option_path", "refusal"]


def option_path(text: str) -> Path:
    """Return the path that an option names, with ``~`` as the home folder.

    A shell expands ``~`` itself, but not in ``--out=~/runs``.

    Raises:
        argparse.ArgumentTypeError: If no path can be that.
    """
    if not text:
        raise argparse.ArgumentTypeError("must name a file or a folder, got ''")
    if "\0" in text:
        raise argparse.ArgumentTypeError(f"must not hold a NUL character, got {text!r}")
    try:
        return Path(text).expanduser()
    except RuntimeError:  # no such user: a file of that name
        return Path(text)


_ADVICE = {
    errno.EACCES: "Fix the permissions, or give another path.",
    errno.EPERM: "Fix the permissions, or give another path.",
    errno.ENOENT: "Give a path that is there.",
    errno.ENOTDIR: "A file is in the place of a folder: give another path.",
    errno.EISDIR: "A folder is in the place of a file: give another path.",
    errno.ENAMETOOLONG: "Give a shorter path.",
    errno.ELOOP: "Give a path without a circle of links.",
    errno.ENOSPC: "Make room, or give another path.",
    errno.EDQUOT: "Make room, or give another path.",
    errno.EROFS: "Give a path that can be written.",
    errno.EMFILE: "Raise the limit of open files (ulimit -n).",
    errno.ENFILE: "Close other programs.",
    errno.ENOMEM: "Close other programs, or take a smaller batch or network.",
}
_OF_THE_MACHINE = {
    *(errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EIO),
    *(errno.ESTALE, errno.EAGAIN),
}
"""Numbers of errors that are no defect of the program, also where no file is named."""


def refusal(error: OSError) -> str | None:
    """Say in one sentence and an advice what the system refuses.

    Args:
        error: What a call of the system raised.

    Returns:
        The words; ``None`` where neither a path nor the machine is to blame, as in a defect.
    """
    if isinstance(error, FileNotFoundError) and _is_nowhere():
        return "the current folder is no longer there. Change into one that is: cd ~"
    reason = error.strerror or type(error).__name__
    advice = _ADVICE.get(error.errno or 0, "Check the path and the disk, or give another path.")
    if isinstance(error.filename, (str, bytes)) and error.filename:
        return f"cannot use {os.fsdecode(error.filename)}: {reason}. {advice}"
    if error.errno in _OF_THE_MACHINE:
        return f"the system refuses: {reason}. {advice}"
    return None


def _is_nowhere() -> bool:
    try:
        Path.cwd()
    except OSError:
        return True
    return False
