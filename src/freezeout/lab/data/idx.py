"""The IDX format of MNIST and its successors."""

from __future__ import annotations

import gzip
import math
import struct
import zlib

import torch

from freezeout.errors import DataError

__all__ = ["read_idx"]

_UINT8 = 0x08


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
        raw = bytearray(gzip.decompress(content))
    except (OSError, EOFError, zlib.error) as error:
        raise _damaged(source, f"it does not unpack ({error})") from error
    if len(raw) < 4 or raw[0] or raw[1]:
        raise _damaged(source, f"it begins with {raw[:4].hex() or 'nothing'}")
    if raw[2] != _UINT8:
        raise _damaged(source, f"its values are of type 0x{raw[2]:02x}")
    start = 4 + 4 * raw[3]
    if len(raw) < start:
        raise _damaged(source, f"it ends after {len(raw)} bytes, inside its header")
    shape = struct.unpack(f">{raw[3]}I", raw[4:start])
    if len(raw) - start != math.prod(shape) or not all(shape) or not shape:
        raise _damaged(source, f"it states the shape {shape} and holds {len(raw) - start} values")
    return torch.frombuffer(raw, dtype=torch.uint8, offset=start).view(shape)


def _damaged(source: str, what: str) -> DataError:
    return DataError(
        f"{source} is not an intact IDX file: {what}. Expected gzip of 0000 08, the dimensions and "
        "as many unsigned bytes; put an intact copy in its place."
    )
