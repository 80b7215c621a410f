"""Read and write settings as TOML."""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from freezeout.errors import RunError
from freezeout.storage import KeptFile, check_values, read_text, with_digest, write_text

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

__all__ = ["has_digest", "read_saved_toml", "read_toml", "toml_bytes", "write_toml"]

_FILE = KeptFile("settings file", "Give a TOML file.", "Give a TOML file.")
_SAVED = KeptFile("settings file", "Copy it again.", "Copy it again, or start the run again.")
_MOST_BYTES = 1 << 20
_MOST_PARTS = 64
_DIGEST = re.compile(r"^# digest: ([0-9a-f]{32})$", re.MULTILINE)


def read_toml(path: Path) -> dict[str, Any]:
    """Read a TOML file that a user has written, of at most 1 MiB.

    Raises:
        RunError: If it cannot be read, is not TOML, or is nested or holds whole numbers beyond what
            is sensible; the message names the file, and the line where there is one.
    """
    return _parse(path, read_text(path, _FILE, most=_MOST_BYTES))


def read_saved_toml(path: Path) -> dict[str, Any]:
    """Read a TOML file that `write_toml` wrote, and compare its values with their digest.

    One without a digest was written before there were any, and is taken as it is.

    Raises:
        RunError: As `read_toml`, and if the values are not those that were written.
    """
    text = read_text(path, _SAVED, most=_MOST_BYTES)
    values = _parse(path, text)
    found = _DIGEST.search(text)
    if found is not None and found[1] != _digest(values):
        raise _SAVED.damaged(
            path,
            "its digest is another. If you have changed it by hand, remove the line '# digest: "
            "...' in it",
        )
    return values


def has_digest(path: Path) -> bool:
    """Return whether a file is one that `write_toml` wrote and nobody has changed since."""
    try:
        text = read_text(path, _SAVED, most=_MOST_BYTES)
        return _DIGEST.search(text) is not None and bool(read_saved_toml(path))
    except RunError:
        return False


def toml_bytes(values: Mapping[str, Any]) -> bytes:
    """Return values as TOML."""
    import tomli_w

    return tomli_w.dumps(values).encode()


def write_toml(path: Path, values: Mapping[str, Any]) -> None:
    """Write plain values whole as TOML, with their digest in a comment.

    Raises:
        RunError: If the disk does not take it; an older file is left as it was.
    """
    write_text(path, f"# digest: {_digest(values)}\n{toml_bytes(values).decode()}")


def _digest(values: Mapping[str, Any]) -> str:
    try:
        return str(with_digest(values)["digest"])
    except (TypeError, ValueError):  # dates: nothing that was written has one
        return ""


def _parse(path: Path, text: str) -> dict[str, Any]:
    try:
        _check_keys(text)
        values = tomllib.loads(text)
        check_values(values)
    except RecursionError as error:
        raise RunError(f"{path} is not valid TOML: it is nested too deep. Make it flat.") from error
    except ValueError as error:  # of the parser too
        reason = str(error).rstrip(".")
        if "integer string" in reason:  # Python's own limit of digits
            reason = "it holds an integer of thousands of digits"
        raise RunError(f"{path} is not valid TOML: {reason}. Fix that line.") from error
    return values


def _check_keys(text: str) -> None:
    """Raise for a key of very many parts, at which the parser would take hours."""
    for number, line in enumerate(text.split("\n"), 1):
        if line.count(".") <= _MOST_PARTS or line.lstrip().startswith("#"):
            continue
        words = re.split(r"[\s,\[\]=]+", line)  # a list of numbers may be as long as it likes
        if any(word.count(".") > 1 or '"' in word or "'" in word for word in words):
            raise ValueError(f"line {number} has a key or a text with more than {_MOST_PARTS} dots")
