"""Checkpoints: written atomically, read without running code."""

from __future__ import annotations

import os
import pickle
import tempfile
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

import torch

from freezeout.errors import CheckpointError, RunError

__all__ = ["FORMAT", "load_checkpoint", "remove_parts", "save_checkpoint", "write_atomically"]

FORMAT = 1
"""Version of the layout of a checkpoint."""


def write_atomically(path: Path, write: Callable[[IO[bytes]], Any]) -> None:
    """Writes a file so that a reader sees the old or the new one whole, whatever happens.

    Args:
        path: The file; its folder must exist.
        write: Writes the content into a binary file.

    Raises:
        RunError: If the disk does not take it; an older file is left as it was.
    """
    temporary = None
    try:
        with tempfile.NamedTemporaryFile(
            dir=path.parent, prefix=f".{path.name}.", suffix=".part", delete=False
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
        if isinstance(error, (OSError, RuntimeError)):  # torch.save wraps a full disk in the latter
            raise RunError(
                f"cannot write {path}: {_reason(error)}. What was saved before is untouched; "
                "make room or mend permissions, then resume."
            ) from error
        raise


def save_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Saves a checkpoint atomically.

    Args:
        path: Where to; its folder must exist.
        state: Tensors and plain values only.

    Raises:
        RunError: If the disk does not take it; an older checkpoint is left as it was.
    """
    write_atomically(path, lambda file: torch.save({"format": FORMAT, **state}, file))


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Reads a checkpoint, with ``weights_only=True``: nothing in it can run code.

    Args:
        path: The file.

    Returns:
        What was saved, on the CPU.

    Raises:
        CheckpointError: If it is missing, damaged or of another kind.
    """
    hint = "Restore it from a copy, or start the run again in an empty folder."
    if not path.exists():
        raise CheckpointError(
            f"there is no checkpoint {path}. Give the folder of a run that has saved one."
        )
    try:
        _check_sums(path)
        state: Any = torch.load(path, map_location="cpu", weights_only=True)
    except (
        RuntimeError,
        OSError,
        EOFError,
        ValueError,
        KeyError,
        pickle.UnpicklingError,
        zipfile.BadZipFile,
        zlib.error,
    ) as error:
        raise CheckpointError(
            f"checkpoint {path} is damaged or not a checkpoint. {hint}"
        ) from error
    found: dict[str, Any] = state if isinstance(state, dict) else {}
    version = found.get("format")
    if type(version) is not int or version != FORMAT:
        raise CheckpointError(
            f"{path} is no checkpoint of this version of freezeout (layout {FORMAT}). {hint}"
        )
    return found


def _check_sums(path: Path) -> None:
    """Compares every part with its checksum, which ``torch.load`` does not; a read more."""
    with zipfile.ZipFile(path) as archive:
        damaged = archive.testzip()
    if damaged is not None:
        raise zipfile.BadZipFile(damaged)


def _reason(error: BaseException) -> str:
    cause = error.__context__ if isinstance(error.__context__, OSError) else error
    if isinstance(cause, OSError) and cause.strerror:
        return cause.strerror
    if isinstance(error, RuntimeError):  # of torch.save, in words about its own source
        return "the file could not be written in full (is the disk full?)"
    return str(error).splitlines()[0] if str(error) else type(error).__name__


def remove_parts(folder: Path) -> None:
    """Removes what writes that were killed have left in a folder."""
    for part in folder.glob(".*.part"):
        part.unlink(missing_ok=True)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _sync_folder(folder: Path) -> None:
    if os.name != "posix":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
