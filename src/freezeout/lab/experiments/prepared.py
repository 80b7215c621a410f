"""Data kept ready for many runs: loaded, cut and shrunk once, read in a moment by each."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import IO, Any

import torch

from freezeout.errors import FreezeOutError, RunError
from freezeout.lab.data import Dataset
from freezeout.lab.training import Settings, prepare
from freezeout.storage import KeptFile, archive_trouble, open_regular, write_archive
from freezeout.text import first_line

__all__ = ["load_prepared", "prepared_file", "save_prepared"]

_DECIDES = ("data", "holdout", "train_size", "shrink")
"""Settings that decide what the data are."""

_FIELDS = ("name", "train_images", "train_labels", "test_images", "test_labels", "classes")
_VERSION = 1

_AGAIN = "The data are prepared again when the experiment goes on."


class _UselessError(RunError):
    """There is a file without use, or none: the data must be prepared again."""


_USELESS = KeptFile("prepared data file", _AGAIN, _AGAIN, _UselessError)
_KEPT = KeptFile("prepared data file", _AGAIN, _AGAIN)


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
        The file; one that is already there and whole is left as it is, and one that is damaged or
        of another version is written again.

    Raises:
        DataError: If the data is missing or damaged.
        RunError: If settings and data do not fit together, a file is there that cannot be read, or
            the disk does not take it.
    """
    path = prepared_file(settings, folder)
    try:
        load_prepared(path)
    except _UselessError:
        _, dataset = prepare(settings)
        values = {name: getattr(dataset, name) for name in _FIELDS}
        # A part of a tensor would be saved with all that it is a part of.
        whole = {k: v.clone() if isinstance(v, torch.Tensor) else v for k, v in values.items()}
        _make(folder)
        write_archive(path, lambda file: torch.save({"version": _VERSION, **whole}, file))
    return path


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunError(
            f"cannot make folder {folder}: {error.strerror}. Remove what is in its way, or give "
            "another folder with --out."
        ) from error


def load_prepared(path: Path) -> Dataset:
    """Return the data that `save_prepared` wrote, once its digest has proved that they are whole.

    A file without a digest, as older versions wrote it, is taken if the checksums of the archive
    hold.

    Raises:
        RunError: If the file is not there, cannot be read, is damaged or of another version.
    """
    try:
        with open_regular(path) as file:
            return _dataset(path, file)
    except FreezeOutError:
        raise
    except FileNotFoundError as error:
        raise _USELESS.missing(path) from error
    except OSError as error:
        raise _KEPT.unreadable(path, error) from error


def _dataset(path: Path, file: IO[bytes]) -> Dataset:
    try:
        trouble = archive_trouble(file)
        if trouble:
            raise _USELESS.damaged(path, trouble)
        file.seek(0)
        values = torch.load(file, weights_only=True)
    except (FreezeOutError, OSError):
        raise
    except Exception as error:  # damage can raise almost anything in those who read it
        raise _USELESS.damaged(path, f"{type(error).__name__}: {first_line(error)}") from error
    return _checked(path, values)


def _checked(path: Path, values: Any) -> Dataset:
    if not isinstance(values, dict):
        raise _USELESS.damaged(path, f"it holds no data set, but {type(values).__name__}")
    version = values.pop("version", _VERSION)  # the first ones said none
    if version != _VERSION:
        raise _USELESS.of_another_version(path, f"it has layout {version!r:.20}, not {_VERSION}")
    if set(values) != set(_FIELDS):
        raise _USELESS.damaged(path, "it holds other entries than those of a data set")
    try:
        return Dataset(**values)
    except (TypeError, ValueError) as error:
        raise _USELESS.damaged(path, first_line(error)) from error
