"""Read text that may be damaged or hostile: with limits, and with the line where it is wrong."""

from __future__ import annotations

import errno
import json
import math
import os
import stat
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from freezeout.storage.digests import DIGEST, is_right, line_sum
from freezeout.storage.kept import KeptFile, NotRegularError

__all__ = [
    "LINE_SUM",
    "check_values",
    "open_regular",
    "parse_json",
    "read_bytes",
    "read_json",
    "read_json_lines",
    "read_text",
]

LINE_SUM = "sum"
"""The entry of a line of JSON that holds the checksum of the others."""

_MOST_BYTES = 256 << 20
_MOST_JSON = 32 << 20  # of one value: its objects take many times as much memory
_MOST_DEPTH = 64
_MOST_INTEGER = 1 << 63  # what NumPy, torch and other readers of JSON can hold


@contextmanager
def open_regular(path: Path) -> Iterator[IO[bytes]]:
    """Open a regular file for reading; pipes and devices may have no end, or be waited for.

    Args:
        path: The file, or a link to one.

    Raises:
        OSError: If it cannot be opened, or is something else.
    """
    with open(path, "rb", opener=_at_once) as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise NotRegularError(errno.EINVAL, "not a regular file, but a pipe or a device", path)
        yield file


def _at_once(path: str, flags: int) -> int:
    """Open a file without waiting, as for the other end of a pipe."""
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))


def read_bytes(path: Path, kept: KeptFile, *, most: int = _MOST_BYTES) -> bytes:
    """Return the content of a regular file.

    Args:
        path: The file.
        kept: What it is, for messages.
        most: Bytes that it may have; one more is no such file.

    Raises:
        FreezeOutError: `kept.error`, if it is not there, cannot be read, is too large, or is a pipe
            or a device.
    """
    try:
        return _content(path, kept, most)
    except FileNotFoundError as error:
        raise kept.missing(path) from error


def _content(path: Path, kept: KeptFile, most: int) -> bytes:
    """Do the same, but pass on that there is no file."""
    try:
        with open_regular(path) as file:
            size = os.fstat(file.fileno()).st_size
            content: bytes | None = b"" if size > most else file.read(most + 1)
            if content is None:  # a file of the system that has nothing to give yet
                raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN), path)
    except FileNotFoundError:
        raise
    except ValueError as error:  # a zero byte in its name
        raise kept.missing(path) from error
    except OSError as error:
        raise kept.unreadable(path, error) from error
    if max(size, len(content)) > most:
        raise kept.damaged(path, f"it has more than {most:,} bytes")
    return content


def read_text(path: Path, kept: KeptFile, *, most: int = _MOST_BYTES) -> str:
    """Return the content of a text file; as `read_bytes`, and it must be UTF-8."""
    content = read_bytes(path, kept, most=most)
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise kept.damaged(path, f"line {line} is not UTF-8") from error


def read_json(path: Path, kept: KeptFile) -> dict[str, Any]:
    """Return the object in a JSON file, without its digest.

    Args:
        path: The file.
        kept: What it is, for messages.

    Raises:
        FreezeOutError: `kept.error`, if it is not there, cannot be read, is no such file, or has
            changed since it was written.
    """
    text = read_text(path, kept, most=_MOST_JSON)
    try:
        values = parse_json(text)
    except ValueError as error:
        raise kept.damaged(path, str(error)) from error
    if not isinstance(values, dict):
        raise kept.damaged(path, f"it holds no object, but {type(values).__name__}")
    if not is_right(values):
        raise kept.damaged(
            path, f'its digest is another. If you have changed it by hand, remove "{DIGEST}" in it'
        )
    values.pop(DIGEST, None)
    return values


def read_json_lines(
    path: Path,
    kept: KeptFile,
    *,
    check: Callable[[dict[str, Any]], object] = lambda values: None,
) -> tuple[list[dict[str, Any]], list[str]]:
    """Return the objects in a file of JSON lines, and what is wrong with the other lines.

    The last line may lack its end, if a crash cut it off; then it is left out without a word.

    Args:
        path: The file; one that is not there has no lines.
        kept: What it is, for messages.
        check: Called with each object; raises `ValueError` for one that is no such line.

    Returns:
        The objects without their checksums, and one text for each damaged line: ``"line 3: ..."``.

    Raises:
        FreezeOutError: `kept.error`, if it cannot be read.
    """
    found: list[dict[str, Any]] = []
    wrong: list[str] = []
    try:
        *lines, rest = _content(path, kept, _MOST_BYTES).split(b"\n")
    except FileNotFoundError:
        return found, wrong
    for number, line in enumerate([*lines, rest], 1):
        if not line.strip():
            continue
        try:
            values = _parse_line(line)
            check(values)
            found.append(values)
        except ValueError as error:
            if line is not rest:
                wrong.append(f"line {number}: {error}")
    return found, wrong


def _parse_line(line: bytes) -> dict[str, Any]:
    if len(line) > _MOST_JSON:
        raise ValueError(f"more than {_MOST_JSON:,} bytes")
    try:
        values = parse_json(line.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise ValueError("not UTF-8") from error
    if not isinstance(values, dict):
        raise ValueError(f"no object, but {type(values).__name__}")
    found = values.pop(LINE_SUM, None)
    if found is not None and found != line_sum(values):
        raise ValueError("its checksum is another")
    return values


def parse_json(text: str) -> Any:
    """Return the value of a JSON text, within `check_values`' limits.

    Args:
        text: The whole text.

    Raises:
        ValueError: If it is not JSON, or beyond the limits; the message names the line, and has no
            full stop.
    """
    try:
        values = json.loads(text, parse_constant=_no_number, parse_float=_number)
    except json.JSONDecodeError as error:
        raise ValueError(f"line {error.lineno}: {error.msg[0].lower()}{error.msg[1:]}") from error
    except RecursionError as error:
        raise ValueError(f"it is nested more than {_MOST_DEPTH} deep") from error
    except ValueError as error:
        if "integer" in str(error):  # Python's own limit of digits
            raise ValueError("it holds an integer of thousands of digits") from error
        raise
    check_values(values)
    return values


def check_values(values: Any) -> None:
    """Raise where plain values are nested too deep, or hold a number that few programs can hold.

    Args:
        values: As a parser gave them.

    Raises:
        ValueError: If so; the message has no full stop.
    """
    level: list[Any] = [values]
    for _ in range(_MOST_DEPTH):
        below: list[Any] = []
        for value in level:
            if isinstance(value, Mapping):
                below.extend(value.values())
            elif isinstance(value, list):
                below.extend(value)
            elif type(value) is int and not -_MOST_INTEGER <= value < _MOST_INTEGER:
                raise ValueError("it holds an integer beyond 64 bits")
        if not below:
            return
        level = below
    raise ValueError(f"it is nested more than {_MOST_DEPTH} deep")


def _number(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"the number {text[:12]}... is too large")
    return value


def _no_number(text: str) -> float:
    raise ValueError(f"{text} is no number of JSON")
