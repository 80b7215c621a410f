"""The log of a run: one JSON object a line, each with its checksum."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from freezeout.errors import RunError, is_number
from freezeout.storage import KeptFile, json_line, read_json_lines, write_text
from freezeout.text import command

__all__ = ["RunLog", "check_record"]

_FILE = KeptFile("log", "Copy it again.", "Copy it again, or remove it.")


class RunLog:
    """What a run tells of itself on disk: ``start``, ``freeze``, ``epoch``, ``resume``, ``end``.

    A line that is damaged costs that line: it is left out, and `damage` tells.

    Args:
        path: The file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def append(self, values: Mapping[str, Any]) -> None:
        """Write one more line.

        Raises:
            RunError: If the disk does not take it.
        """
        try:
            with self.path.open("a", encoding="utf-8") as file:
                file.write(json_line(values))
        except OSError as error:
            raise RunError(
                f"cannot write {self.path}: {error.strerror}. What was saved before is "
                "untouched; make room or fix permissions, then go on with: "
                f"{command('train', '--resume', self.path.parent)}"
            ) from error

    def sync(self) -> None:
        """Bring what was written to the disk, so that no checkpoint is newer than the log.

        Raises:
            RunError: If the disk does not take it.
        """
        try:
            with self.path.open("ab") as file:
                os.fsync(file.fileno())
        except OSError as error:
            raise RunError(
                f"cannot write {self.path}: {error.strerror}. What was saved before is untouched."
            ) from error

    def read(self) -> list[dict[str, Any]]:
        """Return all whole records; each has an ``event`` and the ``step`` at which it was.

        Raises:
            RunError: If the file cannot be read.
        """
        return self._lines()[0]

    def damage(self) -> list[str]:
        """Return what is wrong with the lines that `read` leaves out: ``"line 3: ..."``.

        A last line that a crash cut off is not among them.

        Raises:
            RunError: If the file cannot be read.
        """
        return self._lines()[1]

    def rewind(self, step: int, epochs: int) -> None:
        """Drop what was logged after a checkpoint, because that will be done again.

        A checkpoint within an epoch may be of the same step as the end of that epoch, so that the
        step alone does not tell whether the epoch was closed before it. A line that is there twice
        is kept once.

        Args:
            step: Of the checkpoint.
            epochs: Number of epochs that were finished then.

        Raises:
            RunError: If the file cannot be read or written.
        """
        kept: dict[tuple[Any, ...], dict[str, Any]] = {}
        for record in self.read():
            event = record["event"]
            undone = event == "epoch" and record["epoch"] > epochs
            if record["step"] <= step and event != "end" and not undone:
                what = (record.get(name) for name in ("step", "epoch", "index", "processes"))
                kept.setdefault((event, *what), record)
        write_text(self.path, "".join(json_line(record) for record in kept.values()))

    def _lines(self) -> tuple[list[dict[str, Any]], list[str]]:
        return read_json_lines(self.path, _FILE, check=check_record)


def check_record(record: Mapping[str, Any]) -> None:
    """Raise unless a record has the shape of its event.

    Args:
        record: As read. Only ``event``, ``step`` and what tells records of one event apart must be
            there; what else there is must have the right type.

    Raises:
        ValueError: If not; the message has no full stop.
    """
    event = record.get("event")
    if not isinstance(event, str):
        raise ValueError("it has no event")
    shape = {"step": _is_count, **_SHAPES.get(event, {})}
    needed = {"step", "epoch" if event == "epoch" else "index" if "index" in shape else "step"}
    for name, fits in shape.items():
        if (name in record or name in needed) and not fits(record.get(name)):
            raise ValueError(f"its {name} is none of a record of {event}")


def _is_count(value: object) -> bool:
    return type(value) is int and value >= 0


def _is_some(value: object) -> bool:
    return value is None or is_number(value)


def _is_text(value: object) -> bool:
    return isinstance(value, str)


def _all(fits: Callable[[object], bool]) -> Callable[[object], bool]:
    return lambda value: isinstance(value, list) and all(map(fits, value))


_FREEZE: dict[str, Callable[[object], bool]] = {"index": _is_count, "name": _is_text}
_SHAPES: dict[str, dict[str, Callable[[object], bool]]] = {
    "start": {
        "settings": lambda value: isinstance(value, dict),
        "total_steps": _is_count,
        "epoch_steps": _is_count,
        "layers": _all(_is_text),
        "freeze_steps": _all(lambda value: value is None or _is_count(value)),
        "torch": _is_text,
        "device": _is_text,
        "processes": _is_count,
    },
    "freeze": _FREEZE,
    "unfreeze": _FREEZE,
    "epoch": {
        "epoch": _is_count,
        "frozen": _is_count,
        "memory": lambda value: value is None or _is_count(value),
        **dict.fromkeys(
            (
                *("train_loss", "train_error", "test_loss", "test_error"),
                *("seconds", "saved_seconds"),
            ),
            _is_some,
        ),
    },
    "resume": {"processes": _is_count},
    "end": {"finished": lambda value: isinstance(value, bool), "seconds": _is_some},
}
