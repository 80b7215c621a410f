"""Files written whole, so that a reader never sees a part."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

from freezeout.errors import RunError
from freezeout.storage.digests import add_archive_digest, line_sum, with_digest
from freezeout.storage.reading import LINE_SUM
from freezeout.text import first_line

__all__ = [
    "is_part",
    "json_line",
    "remove_parts",
    "write_archive",
    "write_atomically",
    "write_json",
    "write_text",
]

_PART = ".freezeout-part"
"""How the name of a file ends that is not yet whole."""


def write_atomically(path: Path, write: Callable[[IO[bytes]], Any]) -> None:
    """Write a file so that a reader sees the old or the new one whole, whatever happens.

    Args:
        path: The file; its folder must exist.
        write: Writes the content into a binary file.

    Raises:
        RunError: If the disk does not take it; an older file is left as it was.
    """
    temporary = None
    try:
        with tempfile.NamedTemporaryFile(
            dir=path.parent, prefix=f".{path.name[:99]}.", suffix=_PART, delete=False
        ) as file:
            temporary = Path(file.name)
            temporary.chmod(0o666 & ~_umask())  # as for any other new file
            write(file)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        _sync_folder(path.parent)
    except BaseException as error:
        if temporary is not None:
            temporary.unlink(missing_ok=True)
        if isinstance(error, (OSError, RuntimeError)):  # the latter: torch.save on a full disk
            raise RunError(
                f"cannot write {path}: {_reason(error)}. What was saved before is untouched; "
                "make room or fix permissions, then resume."
            ) from error
        raise


def write_text(path: Path, text: str) -> None:
    """Write a text file whole, as `write_atomically` does."""
    write_atomically(path, lambda file: file.write(text.encode()))


def write_json(path: Path, values: Mapping[str, Any], *, indent: int = 1) -> None:
    """Write plain values with their digest as a JSON file whole, as `write_atomically` does."""
    write_text(path, json.dumps(with_digest(values), indent=indent) + "\n")


def write_archive(path: Path, write: Callable[[IO[bytes]], Any]) -> None:
    """Write an archive with its digest whole, as `write_atomically` does.

    Args:
        path: The file; its folder must exist.
        write: Writes a ZIP file into a binary file, as ``torch.save`` does.
    """

    def write_both(file: IO[bytes]) -> None:
        write(file)
        add_archive_digest(file)

    write_atomically(path, write_both)


def json_line(values: Mapping[str, Any]) -> str:
    """Return plain values with their checksum as one line of JSON, its end included."""
    return json.dumps({**values, LINE_SUM: line_sum(values)}) + "\n"


def remove_parts(folder: Path) -> None:
    """Remove what killed writes of ours have left in a folder, and nothing else.

    Args:
        folder: Nobody else writes in it meanwhile.
    """
    with suppress(OSError):
        for path in folder.iterdir():
            if is_part(path):
                path.unlink(missing_ok=True)


def is_part(path: Path) -> bool:
    """Return whether a file is what a killed write of ours has left."""
    return path.name.startswith(".") and path.name.endswith(_PART)


def _reason(error: BaseException) -> str:
    """Return why a write failed, in the words of the system where there are any."""
    cause = error.__context__ if isinstance(error.__context__, OSError) else error
    if isinstance(cause, OSError) and cause.strerror:
        return cause.strerror
    if isinstance(error, RuntimeError):  # from torch.save, whose message only names its source
        return "the file could not be written in full (is the disk full?)"
    return first_line(error)


def _umask() -> int:
    """Return the mask of permissions, which can only be read by setting it."""
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _sync_folder(folder: Path) -> None:
    """Bring a renaming to the disk, where the system can."""
    if os.name != "posix":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
