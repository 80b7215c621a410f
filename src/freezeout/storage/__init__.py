"""Files that are kept: written whole, with a digest, read with limits, refused in words."""

from freezeout.storage.archives import archive_trouble
from freezeout.storage.digests import add_archive_digest, check_archive, with_digest
from freezeout.storage.kept import KeptFile
from freezeout.storage.reading import (
    check_values,
    open_regular,
    parse_json,
    read_bytes,
    read_json,
    read_json_lines,
    read_text,
)
from freezeout.storage.writing import (
    is_part,
    json_line,
    remove_parts,
    write_archive,
    write_atomically,
    write_json,
    write_text,
)

__all__ = [
    "KeptFile",
    "add_archive_digest",
    "archive_trouble",
    "check_archive",
    "check_values",
    "is_part",
    "json_line",
    "open_regular",
    "parse_json",
    "read_bytes",
    "read_json",
    "read_json_lines",
    "read_text",
    "remove_parts",
    "with_digest",
    "write_archive",
    "write_atomically",
    "write_json",
    "write_text",
]
