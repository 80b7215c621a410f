"""Names of a room that are imported once they are asked for (PEP 562). Standard library only."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Mapping
from importlib import import_module
from typing import Any

__all__ = ["lazy_names"]


def lazy_names(
    module: str, homes: Mapping[str, Iterable[str]], rooms: Iterable[str] = ()
) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """Return ``__getattr__`` and ``__dir__`` for a module that imports its names on first use.

    The face of a room has the same imports under ``TYPE_CHECKING``, for editors and type checkers.

    Args:
        module: The full name of the module.
        homes: The full name of every module that names come from, and the names.
        rooms: Names of modules inside it.

    Returns:
        Both functions. A name that is asked for again is found in the module itself.

    Example:
        >>> find, _ = lazy_names("freezeout.lazy", {"math": ["pi"]})
        >>> find("pi")
        3.141592653589793
    """
    where = {name: home for home, names in homes.items() for name in names}
    inside = frozenset(rooms)

    def find(name: str) -> Any:
        if name in inside:
            return import_module(f"{module}.{name}")
        if name not in where:
            raise AttributeError(f"module {module!r} has no attribute {name!r}")
        value = getattr(import_module(where[name]), name)
        setattr(sys.modules[module], name, value)
        return value

    def listed() -> list[str]:
        return sorted({*vars(sys.modules[module]), *where, *inside})

    return find, listed
