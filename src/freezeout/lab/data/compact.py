"""The compact copy of a CIFAR data set: lossless, a good third smaller than the official archive.

A compact copy is a folder ``cifar10`` or ``cifar100`` with one file a batch of 10,000 images,
``data_batch_1.xz`` to ``data_batch_5.xz`` and ``test_batch.xz``, in the authors' order, and
``labels.npy``, uint8 of shape (60000, 1), or (60000, 2) for CIFAR-100 with the fine label first;
training labels come before test labels. A batch is encoded so:

1. Green is subtracted from red and from blue, modulo 256.
2. Each value is predicted from its neighbours on the left *l*, above *u* and above left *d* in the
   same plane, as the median of *l*, *u* and *l + u - d* (the median edge predictor of LOCO-I). In
   the first row the prediction is *l*, in the first column *u*, in the corner 0.
3. What the prediction misses, modulo 256 and taken as a signed byte 0, -1, 1, -2, ..., is numbered
   0, 1, 2, 3, ... (zigzag).
4. The bytes, in the order (image, channel, row, column), are packed with xz.

Decoding verifies the SHA-256 of every batch's pixels, so a damaged file cannot pass.
"""

from __future__ import annotations

import hashlib
import lzma
import os
import struct
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch

from freezeout.errors import DataError
from freezeout.lab.data.files import read_bytes
from freezeout.lab.data.official import CifarFacts

__all__ = ["COMPACT_FILES", "decode_batch", "read_compact_copy"]

_BATCH = 10_000
_SIDE = 32
_IMAGE_BYTES = 3 * _SIDE * _SIDE
_BATCH_BYTES = _BATCH * _IMAGE_BYTES
_FILES = (*(f"data_batch_{number}.xz" for number in range(1, 6)), "test_batch.xz")
COMPACT_FILES = ("labels.npy", *_FILES)
_MAX_MEMORY = 128 << 20  # of an unpacker: the largest preset of xz needs half
_MAX_THREADS = 4  # each holds about 200 MB while it decodes


def read_compact_copy(
    facts: CifarFacts, folder: Path
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Read a compact copy, batches side by side in a few threads.

    Args:
        facts: Which data set, with the checksums of its content.
        folder: The folder described at the head of this module.

    Returns:
        Training images, uint8 (50000, 3, 32, 32), training labels, int64 (50000,), test images
        and test labels.

    Raises:
        DataError: If a file is missing or damaged.
    """
    labels = _read_labels(folder / "labels.npy", facts.labels_sha256)
    pixels = bytearray(len(_FILES) * _BATCH_BYTES)

    def decode(index: int) -> None:
        part = memoryview(pixels)[index * _BATCH_BYTES : (index + 1) * _BATCH_BYTES]
        _decode_into(part, folder / _FILES[index], facts.pixels_sha256[index])

    with ThreadPoolExecutor(min(_MAX_THREADS, os.cpu_count() or 1)) as pool:
        list(pool.map(decode, range(len(_FILES))))
    images = torch.frombuffer(pixels, dtype=torch.uint8).view(-1, 3, _SIDE, _SIDE)
    test = len(images) - _BATCH
    return images[:test], labels[:test], images[test:], labels[test:]


def decode_batch(content: bytes, count: int, source: str) -> torch.Tensor:
    """Decode one batch.

    Args:
        content: The ``.xz`` file.
        count: How many images it must hold. Never more is unpacked.
        source: What it is, for messages.

    Returns:
        uint8 tensor of shape (count, 3, 32, 32). It is a view; its memory is ordered otherwise.

    Raises:
        DataError: If the file does not unpack to ``count`` images.
    """
    size = count * _IMAGE_BYTES
    unpacker = lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=_MAX_MEMORY)
    try:
        raw = unpacker.decompress(content, max_length=size + 1)
    except (lzma.LZMAError, EOFError, MemoryError) as error:
        raise _damaged(source, f"it does not unpack ({error})") from error
    if len(raw) != size or not unpacker.eof:
        more = "at least " if not unpacker.eof else ""
        raise _damaged(source, f"it unpacks to {more}{len(raw)} bytes instead of {size}")
    codes = torch.frombuffer(bytearray(raw), dtype=torch.uint8).view(count, 3, _SIDE, _SIDE)
    # Positions first, and all images and channels side by side: one vector per position.
    codes = codes.permute(2, 3, 1, 0).contiguous()
    residuals = (codes >> 1) ^ (codes & 1).neg()
    planes = _undo_prediction(residuals.view(_SIDE, _SIDE, -1)).view_as(residuals)
    red, green, blue = planes.unbind(2)
    red += green  # uint8 wraps around, which is the modulo
    blue += green
    return planes.permute(3, 2, 0, 1)


def _undo_prediction(residuals: torch.Tensor) -> torch.Tensor:
    """Turn residuals, uint8 (H, W, vector), into values, in place, in reading order."""
    height, width, length = residuals.shape
    above: list[torch.Tensor] = []
    for row in range(height):
        current: list[torch.Tensor] = []
        for column in range(width):
            if row and column:
                left, up, corner = current[-1], above[column], above[column - 1]
                low, high = torch.minimum(left, up), torch.maximum(left, up)
                predicted = torch.clamp(left + up - corner, min=low, max=high)  # the median
            elif row or column:
                predicted = above[0] if row else current[-1]
            else:
                predicted = torch.zeros(length, dtype=torch.int16)
            value = (predicted + residuals[row, column]) & 255
            current.append(value)
            residuals[row, column] = value
        above = current
    return residuals


def _decode_into(target: memoryview, path: Path, sha256: str) -> None:
    images = decode_batch(read_bytes(path), _BATCH, str(path))
    torch.frombuffer(target, dtype=torch.uint8).view(images.shape).copy_(images)
    actual = hashlib.sha256(target).hexdigest()
    if actual != sha256:
        raise _damaged(str(path), f"the SHA-256 of its pixels is {actual} instead of {sha256}")


def _read_labels(path: Path, sha256: str) -> torch.Tensor:
    content = read_bytes(path)
    actual = hashlib.sha256(content).hexdigest()
    if actual != sha256:
        raise _damaged(str(path), f"its SHA-256 is {actual} instead of {sha256}")
    # The checksum leaves one possible content, so of the .npy header only the length is read.
    (header,) = struct.unpack_from("<H", content, 8)
    values = torch.frombuffer(bytearray(content), dtype=torch.uint8, offset=10 + header)
    return values.view(len(_FILES) * _BATCH, -1)[:, 0].long()


def _damaged(source: str, what: str) -> DataError:
    return DataError(
        f"{source} is damaged: {what}. Expected a file of a compact copy, unchanged; put an intact "
        "copy in its place, or delete the folder to have the official archive fetched."
    )
