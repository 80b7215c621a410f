"""Data kept ready for many runs: loaded, cut and shrunk once, read in a moment by each."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import torch

from freezeout.errors import RunError
from freezeout.lab.data import Dataset
from freezeout.lab.training import Settings, prepare
from freezeout.storage import write_atomically

__all__ = ["load_prepared", "prepared_file", "save_prepared"]

_DECIDES = ("data", "holdout", "train_size", "shrink")
"""Settings that decide what the data are."""


def prepared_file(settings: Settings, folder: Path) -> Path:
    """Return where the data of some settings are kept: one file for all with the same data."""
    values = json.dumps([getattr(settings, name) for name in _DECIDES])
    key = hashlib.blake2b(values.encode(), digest_size=8).hexdigest()
    return folder / f"{key}.pt"


def save_prepared(settings: Settings, folder: Path) -> Path:
    """Prepare the data of some settings once.

    Args:
        settings: Those of a run.
        folder: Where to keep the data.

    Returns:
        The file; one that is already there and whole is left as it is.

    Raises:
        DataError: If the data is missing or damaged.
        RunError: If settings and data do not fit together.
    """
    path = prepared_file(settings, folder)
    if not _loads(path):
        _, dataset = prepare(settings)
        values = {name: getattr(dataset, name) for name in _FIELDS}
        folder.mkdir(parents=True, exist_ok=True)
        # A part of a tensor would be saved with all that it is a part of.
        whole = {k: v.clone() if isinstance(v, torch.Tensor) else v for k, v in values.items()}
        write_atomically(path, lambda file: torch.save(whole, file))
    return path


def _loads(path: Path) -> bool:
    try:
        load_prepared(path)
    except RunError:
        return False
    return True


_FIELDS = ("name", "train_images", "train_labels", "test_images", "test_labels", "classes")


def load_prepared(path: Path) -> Dataset:
    """Return the data that `save_prepared` wrote.

    Raises:
        RunError: If the file is missing or damaged.
    """
    try:
        return Dataset(**torch.load(path, weights_only=True))
    except Exception as error:
        raise RunError(
            f"{path} is missing or damaged ({type(error).__name__}). Delete it: the data are "
            "prepared again when the experiment goes on."
        ) from error
