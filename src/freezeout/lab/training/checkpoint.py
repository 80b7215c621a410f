"""Checkpoints: written whole, checked before they are read, read without running code."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from freezeout.errors import CheckpointError, FreezeOutError
from freezeout.storage import KeptFile, archive_trouble, open_regular, write_archive

__all__ = ["FORMAT", "load_checkpoint", "save_checkpoint"]

FORMAT = 1
"""Version of the layout of a checkpoint."""

_FILE = KeptFile(
    "checkpoint",
    "Give the folder of a run that has saved one.",
    "Restore it from a copy, or start the run again in an empty folder.",
    CheckpointError,
)


def save_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Save a checkpoint whole, with a digest over all of it in the comment of the ZIP file.

    Args:
        path: Where to; its folder must exist.
        state: Tensors and plain values only.

    Raises:
        RunError: If the disk does not take it; an older checkpoint is left as it was.
    """
    write_archive(path, lambda file: torch.save({"format": FORMAT, **state}, file))


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Read a checkpoint, with ``weights_only=True``: nothing in it can run code.

    One without a digest, of before there were any, is checked by the checksums of its entries.

    Args:
        path: The file.

    Returns:
        What was saved, on the CPU.

    Raises:
        CheckpointError: If it is not there, cannot be read, is damaged or of another version.
    """
    try:
        with open_regular(path) as file:
            trouble = archive_trouble(file)
            if trouble:
                raise _FILE.damaged(path, trouble)
            file.seek(0)
            state: Any = torch.load(file, map_location="cpu", weights_only=True)
    except FreezeOutError:
        raise
    except OSError as error:
        raise _FILE.unreadable(path, error) from error
    except Exception as error:  # a pickle made by hand can make any of them
        reason = f"what is in it cannot be loaded ({type(error).__name__})"
        raise _FILE.damaged(path, reason) from error
    if not isinstance(state, dict) or type(state.get("format")) is not int:
        raise _FILE.damaged(path, "it holds something else than a checkpoint")
    if state["format"] != FORMAT:
        raise _FILE.of_another_version(
            path, f"it has layout {state['format']}, this one reads layout {FORMAT}"
        )
    return state
