"""Entries of kept objects, each of the kind and in the range that it must have."""

from __future__ import annotations

import math
import reprlib
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar

from freezeout.errors import is_number

__all__ = ["Entries", "flag", "listed", "mapping", "number", "seconds", "text", "whole"]

_T = TypeVar("_T")

_MOST = 10**12
"""No run has as many steps, or seconds; sums and squares of such numbers are finite."""

_SHORTEST = 1e-9
_LONGEST = 1000  # characters of a name


class Entries:
    """The entries of one object of a file.

    Args:
        values: As read.
        where: Where it stands in the file, for messages: ``"epoch 3"``; may be empty.
    """

    def __init__(self, values: Mapping[str, Any], where: str = "") -> None:
        self._values = values
        self._where = where

    def get(self, name: str, check: Callable[[Any], _T]) -> _T:
        """Return an entry that must be there.

        Args:
            name: Its name.
            check: Returns the value as it must be, or raises `ValueError`.

        Raises:
            ValueError: If it is missing or not as it must be; the message has no full stop.
        """
        where = f"{name!r} of {self._where}" if self._where else repr(name)
        if name not in self._values:
            raise ValueError(f"{where} is missing")
        try:
            return check(self._values[name])
        except ValueError as error:
            raise ValueError(f"{where} {error}") from error

    def maybe(self, name: str, check: Callable[[Any], _T]) -> _T | None:
        """Return an entry that may be missing or null; as `get`."""
        return None if self._values.get(name) is None else self.get(name, check)

    def only(self, names: Iterable[str]) -> None:
        """Raise `ValueError` if there is an entry of another name."""
        other = sorted(set(self._values) - set(names))
        if other:
            raise ValueError(f"{_shown(other[0])} is no entry of {self._where or 'it'}")


def whole(value: Any, most: int = _MOST) -> int:
    """Return a whole number from 0 to `most`, or raise `ValueError`."""
    if type(value) is not int or not 0 <= value <= most:
        raise ValueError(f"must be a whole number from 0 to {most}, got {_shown(value)}")
    return value


def number(value: Any, least: float = 0.0, most: float = _MOST) -> float:
    """Return a finite number from `least` to `most`, or raise `ValueError`."""
    if not is_number(value) or not math.isfinite(value) or not least <= value <= most:
        raise ValueError(f"must be a number from {least:g} to {most:g}, got {_shown(value)}")
    return float(value)


def seconds(value: Any) -> float:
    """Return a duration, 0 or so long that ratios of two are finite, or raise `ValueError`."""
    found = number(value)
    if 0 < found < _SHORTEST:
        raise ValueError(f"must be 0 or at least {_SHORTEST:g} seconds, got {_shown(value)}")
    return found


def text(value: Any) -> str:
    """Return a text that a table can hold, or raise `ValueError`."""
    if not isinstance(value, str) or not 0 < len(value) <= _LONGEST or not value.isprintable():
        raise ValueError(f"must be a text that can be printed, got {_shown(value)}")
    return value


def flag(value: Any) -> bool:
    """Return ``True`` or ``False``, or raise `ValueError`."""
    if not isinstance(value, bool):
        raise ValueError(f"must be true or false, got {_shown(value)}")
    return value


def listed(value: Any, check: Callable[[Any], _T]) -> tuple[_T, ...]:
    """Return a list of which `check` takes every item, or raise `ValueError`."""
    if not isinstance(value, list):
        raise ValueError(f"must be a list, got {_shown(value)}")
    return tuple(map(check, value))


def mapping(value: Any) -> Mapping[str, Any]:
    """Return a JSON object, or raise `ValueError`."""
    if not isinstance(value, dict):
        raise ValueError(f"must be an object, got {_shown(value)}")
    return value


def _shown(value: Any) -> str:
    """Return a value for a message, short whatever it is."""
    return reprlib.repr(value)
