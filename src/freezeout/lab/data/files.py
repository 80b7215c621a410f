"""Find official files, and read them only when their checksum is the published one."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from pathlib import Path

from freezeout.errors import DataError

__all__ = ["check_md5", "find", "missing_files", "read_bytes", "read_checked"]

_CHUNK = 1 << 20


def find(root: Path, places: Sequence[str]) -> Path | None:
    """Return the first of ``places`` (relative to ``root``) that exists, or ``None``."""
    return next((root / place for place in places if (root / place).exists()), None)


def missing_files(folder: Path, names: Iterable[str]) -> list[str]:
    """Return those of ``names`` that ``folder`` does not hold."""
    return [name for name in names if not (folder / name).exists()]


def read_bytes(path: Path) -> bytes:
    """Return the content of ``path``.

    Raises:
        DataError: If the file cannot be read.
    """
    try:
        return path.read_bytes()
    except OSError as error:
        raise _unreadable(path, error) from error


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
    try:
        with path.open("rb") as stream:
            while chunk := stream.read(_CHUNK):
                digest.update(chunk)
    except OSError as error:
        raise _unreadable(path, error) from error
    _compare(path, digest.hexdigest(), md5)


def _compare(path: Path, actual: str, published: str) -> None:
    if actual != published:
        raise DataError(
            f"{path} is damaged or another version: its MD5 is {actual}, the published file has "
            f"{published}. Put an intact copy in its place, or delete it to have it fetched."
        )


def _unreadable(path: Path, error: OSError) -> DataError:
    return DataError(
        f"cannot read {path}: {error.strerror or error}. A data file must be a readable regular "
        "file; correct its permissions, or put an intact copy in its place."
    )
