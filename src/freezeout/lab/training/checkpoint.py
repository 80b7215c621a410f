"""Checkpoints: written atomically, read without running code."""

from __future__ import annotations

import pickle
import zipfile
import zlib
from pathlib import Path
from typing import Any

import torch

from freezeout.errors import CheckpointError
from freezeout.storage import write_atomically

__all__ = ["FORMAT", "load_checkpoint", "save_checkpoint"]

FORMAT = 1
"""Version of the layout of a checkpoint."""


def save_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Save a checkpoint atomically.

    Args:
        path: Where to; its folder must exist.
        state: Tensors and plain values only.

    Raises:
        RunError: If the disk does not take it; an older checkpoint is left as it was.
    """
    write_atomically(path, lambda file: torch.save({"format": FORMAT, **state}, file))


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Read a checkpoint, with ``weights_only=True``: nothing in it can run code.

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
            f"{path} is not a checkpoint of this version of freezeout (layout {FORMAT}). {hint}"
        )
    return found


def _check_sums(path: Path) -> None:
    """Compare every part with its checksum, which ``torch.load`` does not do."""
    with zipfile.ZipFile(path) as archive:
        damaged = archive.testzip()
    if damaged is not None:
        raise zipfile.BadZipFile(damaged)
