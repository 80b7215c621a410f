"""Read the pickles of the CIFAR files without the power to run anything.

A pickle is a program. ``pickle.load`` runs it, imports what it names and calls what it likes. Here
an `Unpickler` of the standard library is allowed three names, which a NumPy array needs, and gets
a harmless class in the place of each. So NumPy does not see the file either: its own unpickling
takes the sizes and types in a file on trust.
"""

from __future__ import annotations

import io
import pickle
import pickletools
from typing import Any

from freezeout.errors import DataError

__all__ = ["ArrayRecipe", "DtypeRecipe", "Recipe", "read_plain_pickle"]

# The operations of plain data in protocol 2. Those that are missing include EXT1 to EXT4, which
# take objects from a cache past `find_class`.
_PLAIN = {
    "PROTO", "STOP", "MARK", "NONE", "NEWTRUE", "NEWFALSE", "BININT", "BININT1", "BININT2",
    "BINSTRING", "SHORT_BINSTRING", "BINUNICODE", "EMPTY_LIST", "APPEND", "APPENDS", "EMPTY_DICT",
    "SETITEM", "SETITEMS", "EMPTY_TUPLE", "TUPLE", "TUPLE1", "TUPLE2", "TUPLE3", "BINPUT",
    "LONG_BINPUT", "BINGET", "LONG_BINGET", "GLOBAL", "REDUCE", "BUILD",
}  # fmt: skip


class Recipe:
    """Stand for what a pickle would make by calling an allowed name; nothing is called.

    Attributes:
        arguments: The arguments of the call.
        state: What ``__setstate__`` would get; ``None`` without.
    """

    state: Any = None

    def __init__(self, *arguments: Any) -> None:
        self.arguments = arguments

    def __setstate__(self, state: Any) -> None:
        self.state = state


class ArrayRecipe(Recipe):
    """Stand for a NumPy array."""


class DtypeRecipe(Recipe):
    """Stand for the type of an array's values."""


_ALLOWED: dict[str, type[Recipe]] = {
    "numpy.core.multiarray._reconstruct": ArrayRecipe,
    "numpy.dtype": DtypeRecipe,
    "numpy.ndarray": Recipe,
}


def read_plain_pickle(content: bytes, source: str) -> Any:
    r"""Read plain data out of a protocol 2 pickle, running none of it.

    Args:
        content: The pickle.
        source: What it is, for messages.

    Returns:
        ``None``, booleans, integers, text (Python 2 strings as Latin-1 text), lists, tuples and
        dictionaries of these, and recipes in the place of arrays.

    Raises:
        DataError: If the pickle is damaged, holds an operation other than those of plain data, or
            names anything but the three names that a NumPy array needs.

    Example:
        >>> read_plain_pickle(b"\x80\x02}U\x01aK\x01s.", "example")
        {'a': 1}
    """
    try:
        _check_operations(content, source)
        return _Unpickler(content, source).load()
    except DataError:
        raise
    except Exception as error:  # damage can raise almost anything in an unpickler
        raise DataError(
            f"{source} is not an intact pickle ({type(error).__name__}: {error}). Expected a "
            "file of plain data as its authors published it; put an intact copy in its place."
        ) from error


class _Unpickler(pickle.Unpickler):
    """Look up allowed names only."""

    def __init__(self, content: bytes, source: str) -> None:
        super().__init__(io.BytesIO(content), encoding="latin-1")
        self._source = source

    def find_class(self, module: str, name: str) -> type[Recipe]:
        """Return what stands for an allowed name."""
        qualified = f"{module}.{name}"
        if qualified not in _ALLOWED:
            raise DataError(
                f"{self._source} is refused: its pickle names {qualified[:80]!r}, and a data file "
                f"may name only {', '.join(sorted(_ALLOWED))}. Nothing of it was run; get the "
                "file from its official address."
            )
        return _ALLOWED[qualified]


def _check_operations(content: bytes, source: str) -> None:
    """Raise unless a pickle holds only the operations of plain data."""
    for operation, argument, _ in pickletools.genops(content):
        if operation.name not in _PLAIN:
            detail = f" ({repr(argument)[:80]})" if argument is not None else ""
            raise DataError(
                f"{source} is refused: its pickle holds the operation {operation.name}{detail}, "
                "and a data file may hold only plain data. Nothing of it was run; get the file "
                "from its official address."
            )
        if operation.name == "LONG_BINPUT" and int(argument or 0) > len(content):
            raise ValueError(f"memo {argument}")  # the unpickler would make room for so many
