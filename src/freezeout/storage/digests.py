"""Digests over all of a file, kept in the file itself.

A file that has none was written before there were digests, and is taken as it is. So is JSON whose
digest has become unrecognisable: then the damage is there, and the rest is right.

- JSON: the entry ``digest``, over all other values in canonical form.
- A line of JSON: the same, as a shorter checksum.
- An archive of ``torch.save`` (a ZIP file): the comment at its end, over all bytes before it.
  ``torch.load`` reads it like any other.
"""

from __future__ import annotations

import hashlib
import json
import struct
import zlib
from collections.abc import Mapping
from typing import IO, Any

__all__ = [
    "add_archive_digest",
    "check_archive",
    "is_right",
    "is_sealed",
    "line_sum",
    "with_digest",
]

DIGEST = "digest"
"""The entry of a JSON object that holds the digest of the others."""

_MARK = b"freezeout:blake2b:"
_SIZE = 16  # bytes of a digest, twice as many digits
_COMMENT = len(_MARK) + 2 * _SIZE
_END = b"PK\x05\x06"
_END_SIZE = 22  # bytes of a ZIP file's last record, without comment
_CHUNK = 1 << 20


def with_digest(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return a JSON object with the digest of its values as the last entry.

    Args:
        values: Plain values.
    """
    others = {key: value for key, value in values.items() if key != DIGEST}
    return {**others, DIGEST: _digest(_canonical(others))}


def is_right(values: Mapping[str, Any]) -> bool:
    """Return whether a JSON object has the values that its digest was made of, if it has one.

    Args:
        values: As read.
    """
    found = values.get(DIGEST)
    return found is None or found == with_digest(values)[DIGEST]


def line_sum(values: Mapping[str, Any]) -> str:
    """Return a checksum of a JSON object, for one line among many.

    Args:
        values: Plain values.
    """
    return f"{zlib.crc32(_canonical(values)):08x}"


def add_archive_digest(file: IO[bytes]) -> None:
    """Write the digest of a ZIP file into its comment.

    Args:
        file: Open for reading and writing; holds a ZIP file without a comment, and nothing else.

    Raises:
        ValueError: If it holds anything else.
    """
    end = file.seek(0, 2)
    file.seek(max(0, end - _END_SIZE))
    last = file.read(_END_SIZE)
    if not last.startswith(_END) or last[-2:] != b"\0\0":
        raise ValueError("the file must be a ZIP file without a comment, and is none.")
    file.seek(end - 2)
    file.write(struct.pack("<H", _COMMENT))
    digest = _digest_of_file(file, end)
    file.seek(end)
    file.write(_MARK + digest.encode())


def is_sealed(file: IO[bytes]) -> bool:
    """Return whether a file ends as `add_archive_digest` leaves it; the digest may be wrong.

    Args:
        file: Open for reading.
    """
    end = file.seek(0, 2) - _COMMENT
    if end < _END_SIZE:
        return False
    file.seek(end - _END_SIZE)
    last, comment = file.read(_END_SIZE), file.read(_COMMENT)
    return last[-2:] == struct.pack("<H", _COMMENT) and comment.startswith(_MARK)


def check_archive(file: IO[bytes]) -> bool:
    """Return whether a file ends with the right digest, or as a ZIP file without a comment.

    Args:
        file: Open for reading.
    """
    end = file.seek(0, 2)
    if is_sealed(file):
        file.seek(end - _COMMENT + len(_MARK))
        found = file.read().decode("ascii", "replace")
        return found == _digest_of_file(file, end - _COMMENT)
    file.seek(max(0, end - _END_SIZE))
    last = file.read()
    return last.startswith(_END) and last[-2:] == b"\0\0"


def _digest_of_file(file: IO[bytes], length: int) -> str:
    digest = hashlib.blake2b(digest_size=_SIZE)
    file.seek(0)
    while length:
        chunk = file.read(min(_CHUNK, length))
        if not chunk:
            break
        digest.update(chunk)
        length -= len(chunk)
    return digest.hexdigest()


def _digest(content: bytes) -> str:
    return hashlib.blake2b(content, digest_size=_SIZE).hexdigest()


def _canonical(values: Mapping[str, Any]) -> bytes:
    """Return the same bytes for the same values, however a file has laid them out."""
    as_read = json.loads(json.dumps(values))  # keys are text from here on
    return json.dumps(as_read, sort_keys=True, separators=(",", ":")).encode()
