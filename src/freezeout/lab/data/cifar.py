"""CIFAR-10 and CIFAR-100 from their official files or from a compact copy."""

from __future__ import annotations

import tarfile
import zlib
from collections.abc import Container, Iterator
from hashlib import md5
from pathlib import Path
from typing import Any

import torch

from freezeout.errors import DataError
from freezeout.lab.data.compact import COMPACT_FILES, read_compact_copy
from freezeout.lab.data.dataset import Dataset
from freezeout.lab.data.fetch import fetch
from freezeout.lab.data.files import check_md5, find, is_there, missing_files, read_checked
from freezeout.lab.data.official import MD5, CifarFacts
from freezeout.lab.data.plain_pickle import ArrayRecipe, DtypeRecipe, read_plain_pickle

__all__ = ["load_cifar", "read_cifar_file"]

_SHAPE = (3, 32, 32)
_VALUES = 3 * 32 * 32
_MOST_MEMBER = 1 << 28  # bytes; the largest has 155 million


def load_cifar(facts: CifarFacts, root: Path, *, download: bool) -> Dataset:
    """Load CIFAR-10 or CIFAR-100: 50,000 training and 10,000 test images, 32 x 32 RGB.

    Under ``root``, and under ``root/cifar10`` or ``root/cifar100``, are looked for, in this order:
    the unpacked official folder, the official archive (read without unpacking it to disk), and a
    compact copy (:mod:`freezeout.lab.data.compact`). A folder that lacks files gives way to the
    next form; when no form is complete it is an error and is never fetched over. CIFAR-100 has its
    100 fine labels.

    Raises:
        DataError: If nothing is found and the archive cannot be fetched, or what is found is
            damaged or incomplete.
    """
    names = (*facts.train_files, facts.test_file)
    folders = [
        folder
        for folder in (root / facts.folder, root / facts.name / facts.folder)
        if is_there(folder)
    ]
    for folder in folders:
        if not missing_files(folder, names):
            return _official(facts, _read_folder(facts, folder))
    archive = find(root, (facts.archive, f"{facts.name}/{facts.archive}"))
    if archive is None:
        compact = root / facts.name
        lacking = missing_files(compact, COMPACT_FILES)
        if not lacking:
            return _dataset(facts, *read_compact_copy(facts, compact))
        if folders:
            raise _incomplete(facts, folders[0], missing_files(folders[0], names))
        if len(lacking) < len(COMPACT_FILES):
            raise _incomplete(facts, compact, lacking)
        wanted = f"{facts.folder} or {facts.archive}"
        archive = fetch(facts.archive, root, wanted=wanted, download=download)
    return _official(facts, _read_archive(facts, archive))


def _incomplete(facts: CifarFacts, folder: Path, lacking: list[str]) -> DataError:
    return DataError(
        f"{folder} is incomplete: it lacks {', '.join(lacking)}. Put the missing files there, or "
        f"delete the folder to have {facts.archive} fetched."
    )


def read_cifar_file(
    content: bytes, source: str, *, label_key: str
) -> tuple[torch.Tensor, torch.Tensor]:
    """Read one official pickle without running any of it.

    Args:
        content: The pickle.
        source: What it is, for messages.
        label_key: Key of the labels: ``"labels"``, ``"fine_labels"`` or ``"coarse_labels"``.

    Returns:
        The images, uint8 of shape (N, 3, 32, 32), and the labels, int64 of shape (N,).

    Raises:
        DataError: If the pickle is damaged, is refused, or does not hold images and labels.
    """
    batch = read_plain_pickle(content, source)
    try:
        pixels = _array(batch["data"])
        labels = torch.tensor(_whole_numbers(batch[label_key]), dtype=torch.int64)
        if labels.shape != pixels.shape[:1]:
            raise ValueError(f"{len(pixels)} images and {len(labels)} labels")
    except (AttributeError, IndexError, KeyError, RuntimeError, TypeError, ValueError) as error:
        raise DataError(
            f"{source} does not hold CIFAR images ({type(error).__name__}: {error}). Expected a "
            f"dictionary with an array 'data' of rows of {_VALUES} bytes and a list "
            f"{label_key!r}; put an intact copy in its place."
        ) from error
    return pixels, labels


def _array(value: Any) -> torch.Tensor:
    """Turn the recipe of a NumPy array, as the pickle states it, into a tensor."""
    if not isinstance(value, ArrayRecipe):
        raise TypeError(f"'data' is not an array but {type(value).__name__}")
    _, shape, dtype, fortran_order, raw = value.state
    unsigned_bytes = isinstance(dtype, DtypeRecipe) and dtype.arguments[0] == "u1"
    if not unsigned_bytes or fortran_order is not False:
        raise ValueError("'data' is not an array of unsigned bytes in C order")
    rows, values = _whole_numbers(shape)
    content = bytearray(raw.encode("latin-1"))
    if values != _VALUES or rows < 1 or len(content) != rows * values:
        raise ValueError(f"'data' states the shape {shape} and holds {len(content)} bytes")
    return torch.frombuffer(content, dtype=torch.uint8).view(rows, *_SHAPE)


def _whole_numbers(value: Any) -> list[int]:
    if not isinstance(value, (list, tuple)) or not all(type(item) is int for item in value):
        raise TypeError(f"{type(value).__name__} where whole numbers belong")
    return list(value)


def _read_folder(facts: CifarFacts, folder: Path) -> dict[str, bytes]:
    return {
        name: read_checked(folder / name, MD5[f"{facts.folder}/{name}"])
        for name in (*facts.train_files, facts.test_file)
    }


def _read_archive(facts: CifarFacts, path: Path) -> dict[str, bytes]:
    check_md5(path, MD5[facts.archive])
    wanted = {f"{facts.folder}/{name}": name for name in (*facts.train_files, facts.test_file)}
    found = {wanted[name]: content for name, content in _members(path, wanted)}
    for member, name in wanted.items():
        actual = md5(found.get(name, b""), usedforsecurity=False).hexdigest()
        if actual != MD5[member]:
            raise DataError(
                f"{path} does not hold {member} as published: expected MD5 {MD5[member]}, got "
                f"{actual if name in found else 'no such member'}. Put an intact copy in its "
                "place, or delete it to have it fetched."
            )
    return found


def _members(path: Path, wanted: Container[str]) -> Iterator[tuple[str, bytes]]:
    """Read the wanted files of an archive in one pass, into memory only."""
    try:
        with tarfile.open(path, "r|gz") as archive:
            for member in archive:
                if member.name not in wanted or not member.isreg():
                    continue
                stream = archive.extractfile(member)
                if stream is not None:
                    yield member.name, stream.read(_MOST_MEMBER)
    except (OSError, EOFError, tarfile.TarError, zlib.error) as error:
        raise DataError(
            f"{path} does not unpack ({error}). Expected the official gzipped tar archive; put an "
            "intact copy in its place, or delete it to have it fetched."
        ) from error


def _official(facts: CifarFacts, files: dict[str, bytes]) -> Dataset:
    def read(name: str) -> tuple[torch.Tensor, torch.Tensor]:
        source = f"{facts.folder}/{name}"
        return read_cifar_file(files.pop(name), source, label_key=facts.label_key)

    parts = [read(name) for name in facts.train_files]
    train_images = torch.cat([images for images, _ in parts]) if len(parts) > 1 else parts[0][0]
    train_labels = torch.cat([labels for _, labels in parts])
    return _dataset(facts, train_images, train_labels, *read(facts.test_file))


def _dataset(facts: CifarFacts, *tensors: torch.Tensor) -> Dataset:
    train_images, train_labels, test_images, test_labels = tensors
    return Dataset(
        name=facts.name,
        train_images=train_images,
        train_labels=train_labels,
        test_images=test_images,
        test_labels=test_labels,
        classes=facts.classes,
    )
