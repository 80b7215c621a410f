"""The IDX format of MNIST and its successors."""

from __future__ import annotations

import gzip
import io
import math
import struct
import zlib

import torch

from freezeout.errors import DataError
from freezeout.lab.data.files import MOST_BYTES

__all__ = ["read_idx"]

_UINT8 = 0x08
_MOST_DIMENSIONS = 4
_CHUNK = 1 << 20


def read_idx(content: bytes, source: str) -> torch.Tensor:
    """Read a gzipped IDX file of unsigned bytes.

    The format is two zero bytes, one byte for the type (8: unsigned byte), one byte for the number
    of dimensions, each dimension as a big-endian 32-bit integer, then the values in C order.

    Args:
        content: The gzipped file.
        source: What it is, for messages.

    Returns:
        A uint8 tensor of the shape that the file states.

    Raises:
        DataError: If the file is not intact gzip, holds another type, or has another length than
            it states.

    Example:
        >>> content = gzip.compress(bytes([0, 0, 8, 1, 0, 0, 0, 2, 5, 7]))
        >>> read_idx(content, "example").tolist()
        [5, 7]
    """
    try:
        with gzip.open(io.BytesIO(content)) as stream:
            shape = _shape(stream, source)
            raw = _values(stream, math.prod(shape))
    except (OSError, EOFError, zlib.error) as error:
        raise _damaged(source, f"it does not unpack ({error})") from error
    if len(raw) != math.prod(shape):
        more = "at least " if len(raw) > math.prod(shape) else ""
        raise _damaged(source, f"it states the shape {shape} and holds {more}{len(raw)} values")
    return torch.frombuffer(raw, dtype=torch.uint8).view(shape)


def _shape(stream: gzip.GzipFile, source: str) -> tuple[int, ...]:
    """Return the dimensions that a header states."""
    start = stream.read(4)
    if len(start) < 4 or start[0] or start[1]:
        raise _damaged(source, f"it begins with {start.hex() or 'nothing'}")
    if start[2] != _UINT8:
        raise _damaged(source, f"its values are of type 0x{start[2]:02x}")
    count = start[3]
    sizes = stream.read(4 * count)
    if len(sizes) < 4 * count:
        raise _damaged(source, f"it ends after {4 + len(sizes)} bytes, inside its header")
    shape = struct.unpack(f">{count}I", sizes)
    if not all(shape) or not shape or count > _MOST_DIMENSIONS or math.prod(shape) > MOST_BYTES:
        words = str(shape) if count <= _MOST_DIMENSIONS else f"of {count} dimensions"
        raise _damaged(source, f"it states the shape {words}")
    return shape


def _values(stream: gzip.GzipFile, count: int) -> bytearray:
    """Return so many values, or one more where there are more; room is made as they come."""
    raw = bytearray()
    while chunk := stream.read(min(_CHUNK, count + 1 - len(raw))):
        raw += chunk
    return raw


def _damaged(source: str, what: str) -> DataError:
    return DataError(
        f"{source} is not an intact IDX file: {what}. Expected gzip of 0000 08, the dimensions and "
        "as many unsigned bytes; put an intact copy in its place."
    )
