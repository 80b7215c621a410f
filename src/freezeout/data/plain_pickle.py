"""Reading the pickles of the CIFAR files without the power to run anything.

A pickle is a program. ``pickle.load`` runs it, imports what it names and calls what it likes. This
reader is a small interpreter of its own for the few operations that Python 2 used to write the
official files. It never imports or calls anything: a name becomes a :class:`Name`, a call becomes
a :class:`Call` that merely says what would have been called, and every other operation or name is
refused.
"""

from __future__ import annotations

import pickletools
from dataclasses import dataclass
from typing import Any

from freezeout.errors import DataError

__all__ = ["ALLOWED_NAMES", "Call", "Name", "bytes_of", "read_plain_pickle"]

ALLOWED_NAMES = frozenset(
    {"numpy.core.multiarray._reconstruct", "numpy.ndarray", "numpy.dtype"},
)

_CONSTANTS: dict[str, Any] = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_LITERALS = frozenset(
    {"BININT", "BININT1", "BININT2", "BINSTRING", "SHORT_BINSTRING", "BINUNICODE"},
)
_TUPLES = {"EMPTY_TUPLE": 0, "TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}


@dataclass(frozen=True)
class Name:
    """A name that the pickle mentions. Nothing is imported."""

    qualified: str


@dataclass(eq=False)
class Call:
    """A call that the pickle asks for. Nothing is called.

    Attributes:
        function: What would be called.
        arguments: With which arguments.
        state: What would then be handed to ``__setstate__``; ``None`` without.
    """

    function: Name
    arguments: tuple[Any, ...]
    state: Any = None


class _Mark:
    """Where a group of items begins on the stack."""


def bytes_of(text: str) -> bytes:
    """Return the bytes of a Python 2 string, which the reader holds as Latin-1 text."""
    return text.encode("latin-1")


def read_plain_pickle(content: bytes, source: str) -> Any:
    r"""Read plain data out of a protocol 2 pickle, running none of it.

    Args:
        content: The pickle.
        source: What it is, for messages.

    Returns:
        ``None``, booleans, integers, text (Python 2 strings as Latin-1 text, see
        :func:`bytes_of`), lists, tuples and dictionaries of these, :class:`Name` and
        :class:`Call`.

    Raises:
        DataError: If the pickle is damaged, holds an operation other than those of plain data, or
            names anything but the three names that a NumPy array needs.

    Example:
        >>> read_plain_pickle(b"\x80\x02}U\x01aK\x01s.", "example")
        {'a': 1}
    """
    try:
        return _Reader(source).run(content)
    except (IndexError, KeyError, TypeError, ValueError, OverflowError, RecursionError) as error:
        raise DataError(
            f"{source} is not an intact pickle ({type(error).__name__}: {error}). Expected a "
            "file of plain data as its authors published it; put an intact copy in its place."
        ) from error


class _Reader:
    def __init__(self, source: str) -> None:
        self.source = source
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}

    def run(self, content: bytes) -> Any:
        # genops only splits the bytes into operations and their literal arguments.
        for operation, argument, _ in pickletools.genops(content):
            if operation.name == "STOP":
                (result,) = self.stack
                return _data(result)
            self.step(operation.name, argument)
        raise ValueError("no STOP")

    def step(self, name: str, argument: Any) -> None:
        stack = self.stack
        if name in _LITERALS:
            stack.append(argument)
        elif name in ("BINPUT", "LONG_BINPUT"):
            self.memo[argument] = _data(stack[-1])
        elif name in ("BINGET", "LONG_BINGET"):
            stack.append(self.memo[argument])
        elif name in _CONSTANTS:
            stack.append(_CONSTANTS[name])
        elif name in _TUPLES:
            stack.append(self.pop(_TUPLES[name]))
        else:
            self.build(name, argument)

    def build(self, name: str, argument: Any) -> None:
        stack = self.stack
        if name == "PROTO":
            if argument != 2:
                raise ValueError(f"protocol {argument}, not 2")
        elif name == "MARK":
            stack.append(_Mark)
        elif name == "EMPTY_LIST":
            stack.append([])
        elif name == "EMPTY_DICT":
            stack.append({})
        elif name == "TUPLE":
            stack.append(self.pop_to_mark())
        elif name == "APPEND":
            self.extend(self.pop(1))
        elif name == "APPENDS":
            self.extend(self.pop_to_mark())
        elif name == "SETITEM":
            self.update(self.pop(2))
        elif name == "SETITEMS":
            self.update(self.pop_to_mark())
        elif name == "GLOBAL":
            stack.append(self.name(argument.replace(" ", ".")))
        elif name == "REDUCE":
            function, arguments = self.pop(2)
            stack.append(Call(_of(Name, function), _of(tuple, arguments)))
        elif name == "BUILD":
            (state,) = self.pop(1)
            _of(Call, stack[-1]).state = state
        else:
            self.refuse(name, argument)

    def name(self, qualified: str) -> Name:
        if qualified not in ALLOWED_NAMES:
            raise DataError(
                f"{self.source} is refused: its pickle names {_short(qualified)}, and a data "
                f"file may name only {', '.join(sorted(ALLOWED_NAMES))}. Nothing of it was run; "
                "get the file from its official address."
            )
        return Name(qualified)

    def refuse(self, name: str, argument: Any) -> None:
        detail = f" ({_short(argument)})" if argument is not None else ""
        if name == "STACK_GLOBAL":  # the only one whose name lies on the stack
            detail = f" ({', '.join(_short(part) for part in self.stack[-2:])})"
        raise DataError(
            f"{self.source} is refused: its pickle holds the operation {name}{detail}, and a data "
            "file may hold only plain data. Nothing of it was run; get the file from its official "
            "address."
        )

    def pop(self, count: int) -> tuple[Any, ...]:
        if count > len(self.stack):
            raise IndexError("stack underflow")
        items = tuple(_data(item) for item in self.stack[len(self.stack) - count :])
        del self.stack[len(self.stack) - count :]
        return items

    def pop_to_mark(self) -> tuple[Any, ...]:
        count = 0
        while self.stack[-1 - count] is not _Mark:
            count += 1
        items = self.pop(count)
        self.stack.pop()
        return items

    def extend(self, items: tuple[Any, ...]) -> None:
        _of(list, self.stack[-1]).extend(items)

    def update(self, items: tuple[Any, ...]) -> None:
        target = _of(dict, self.stack[-1])
        for key in items[::2]:
            _of(str, key)  # hashing nested tuples could take forever
        target.update(zip(items[::2], items[1::2], strict=True))


def _data(item: Any) -> Any:
    if item is _Mark:
        raise ValueError("a mark where data belongs")
    return item


def _short(item: Any) -> str:
    """Return a short text; containers that hold each other could make a full one endless."""
    if isinstance(item, (str, bytes)):
        return repr(item[:80])
    return str(item) if isinstance(item, int) else type(item).__name__


def _of(kind: type[Any], item: Any) -> Any:
    if not isinstance(item, kind):
        raise TypeError(f"{type(item).__name__} where {kind.__name__} belongs")
    return item
