"""What is wrong with an archive of ``torch.save``, found before anything in it is loaded."""

from __future__ import annotations

import re
import stat
import zipfile
import zlib
from typing import IO

from freezeout.storage.digests import check_archive, is_sealed

__all__ = ["archive_trouble"]

_NAMES = re.compile(r"data\.pkl|version|byteorder|data/\d+|\.[a-z_]+|\.data/[a-z_]+")
_FOLDER = 0x10  # of the attributes of MS-DOS
_ENCRYPTED = 0x1


def archive_trouble(file: IO[bytes]) -> str:
    """Return what is wrong with an archive of ``torch.save``; an empty text if nothing is.

    A digest is compared where there is one, else the checksum of every entry. Readers of ZIP files
    forgive much and disagree about the rest (an entry marked as a folder is read by one and left
    out by another, which leaves memory as it was), so only what ``torch.save`` writes is accepted.
    The text has no full stop.

    Args:
        file: Open for reading.
    """
    if not check_archive(file):
        return "its digest is another" if is_sealed(file) else "it does not end as an archive does"
    try:
        with zipfile.ZipFile(file) as archive:
            return _entries_trouble(archive) or ("" if is_sealed(file) else _sums_trouble(archive))
    except (zipfile.BadZipFile, zlib.error, ValueError, EOFError, NotImplementedError) as error:
        return f"its table of contents cannot be read ({type(error).__name__})"


def _entries_trouble(archive: zipfile.ZipFile) -> str:
    entries = archive.infolist()
    if not entries or min(entry.header_offset for entry in entries) != 0:
        return "it does not begin as an archive does"
    top = entries[0].filename.partition("/")[0]
    seen: set[str] = set()
    for entry in entries:
        folder, _, name = entry.filename.partition("/")
        kind = stat.S_IFMT(entry.external_attr >> 16)
        if folder != top or not _NAMES.fullmatch(name) or name in seen:
            return f"its entry {entry.filename!r} is none of torch.save"
        if entry.external_attr & _FOLDER or kind not in (0, stat.S_IFREG):
            return f"its entry {entry.filename!r} is marked as something else than a file"
        packed = entry.compress_type != zipfile.ZIP_STORED or entry.flag_bits & _ENCRYPTED
        if packed or entry.file_size != entry.compress_size:
            return f"its entry {entry.filename!r} is packed"
        seen.add(name)
    return "" if "data.pkl" in seen else "it has no entry data.pkl"


def _sums_trouble(archive: zipfile.ZipFile) -> str:
    damaged = archive.testzip()
    return "" if damaged is None else f"the checksum of its entry {damaged!r} is another"
