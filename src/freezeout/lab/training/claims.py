"""A new folder for each of those who ask for one, and its end if nothing came of it."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from freezeout.errors import RunError
from freezeout.lab.locks import is_lock
from freezeout.storage import is_part

__all__ = ["drop_empty", "next_free"]

_TRIES = 100  # for a parent that others remove, because nothing came of what they began


def next_free(parent: Path, stem: str) -> Path:
    """Make the first of ``parent/stem-1``, ``-2`` ... that does not exist, and return it.

    Two processes that ask at once get two folders.

    Raises:
        RunError: If it cannot be made.
    """
    number, tries = 1, 0
    while True:
        folder = parent / f"{stem}-{number}"
        try:
            if not parent.is_dir():
                parent.mkdir(parents=True, exist_ok=True)
            folder.mkdir()
        except FileExistsError as error:
            if not parent.is_dir():
                raise RunError(f"{parent} is a file. Give a folder with --out.") from error
            number += 1
        except OSError as error:
            tries += 1
            if isinstance(error, FileNotFoundError) and tries < _TRIES:
                continue
            raise RunError(
                f"cannot make folder {folder}: {error.strerror}. Give one that can be written "
                "with --out."
            ) from error
        else:
            return folder


def drop_empty(folder: Path, *, claimed: bool = False) -> None:
    """Remove a folder that was made for something of which nothing came; else leave it as it is.

    Args:
        folder: Held by this process. It goes if nothing but locks and parts of our own is in it.
        claimed: Whether `next_free` made it. The folder around it then goes too, if it is empty.
    """
    with suppress(OSError):
        paths = list(folder.iterdir())
        if all(is_lock(path) or is_part(path) for path in paths):
            for path in paths:
                path.unlink()
            folder.rmdir()
            if claimed:
                folder.parent.rmdir()
