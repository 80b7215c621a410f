"""Find official files, and read them only when their checksum is the published one."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from freezeout.errors import DataError
from freezeout.storage import open_regular

__all__ = [
    "MOST_BYTES",
    "check_md5",
    "find",
    "is_there",
    "missing_files",
    "read_bytes",
    "read_checked",
]

MOST_BYTES = 1 << 30
"""No file of a data set is as large, packed or unpacked."""

_CHUNK = 1 << 20


def is_there(path: Path) -> bool:
    """Return whether there is a file or folder.

    Raises:
        DataError: If that cannot be found out, as in a folder that may not be searched.
    """
    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    except (OSError, ValueError) as error:
        raise _unreadable(path, error) from error
    return True


def find(root: Path, places: Sequence[str]) -> Path | None:
    """Return the first of ``places`` (relative to ``root``) that exists, or ``None``.

    Raises:
        DataError: As `is_there`.
    """
    return next((root / place for place in places if is_there(root / place)), None)


def missing_files(folder: Path, names: Iterable[str]) -> list[str]:
    """Return those of ``names`` that ``folder`` does not hold.

    Raises:
        DataError: As `is_there`.
    """
    return [name for name in names if not is_there(folder / name)]


@contextmanager
def _opened(path: Path) -> Iterator[IO[bytes]]:
    """Open a regular file; a pipe or a device could be read without end."""
    try:
        with open_regular(path) as stream:
            yield stream
    except (OSError, ValueError) as error:
        raise _unreadable(path, error) from error


def read_bytes(path: Path) -> bytes:
    """Return the content of ``path``.

    Raises:
        DataError: If the file cannot be read, or is far larger than any data file.
    """
    with _opened(path) as stream:
        content = stream.read(MOST_BYTES + 1)
    if len(content) > MOST_BYTES:
        raise DataError(
            f"{path} is no data file: it has more than {MOST_BYTES:,} bytes. Put an intact copy in "
            "its place."
        )
    return content


def read_checked(path: Path, md5: str) -> bytes:
    """Return the content of ``path`` once its MD5 has proved to be the published one.

    Raises:
        DataError: If the file cannot be read or is damaged.
    """
    content = read_bytes(path)
    _compare(path, hashlib.md5(content, usedforsecurity=False).hexdigest(), md5)
    return content


def check_md5(path: Path, md5: str) -> None:
    """Compare the MD5 of a file too large to hold in memory with the published one.

    Raises:
        DataError: If the file cannot be read or is damaged.
    """
    digest = hashlib.md5(usedforsecurity=False)
    with _opened(path) as stream:
        while chunk := stream.read(_CHUNK):
            digest.update(chunk)
    _compare(path, digest.hexdigest(), md5)


def _compare(path: Path, actual: str, published: str) -> None:
    if actual != published:
        raise DataError(
            f"{path} is damaged or another version: its MD5 is {actual}, the published file has "
            f"{published}. Put an intact copy in its place, or delete it to have it fetched."
        )


def _unreadable(path: Path, error: OSError | ValueError) -> DataError:
    reason = getattr(error, "strerror", None) or error
    return DataError(
        f"cannot read {path}: {reason}. A data file must be a readable regular file; correct its "
        "permissions, or put an intact copy in its place."
    )
