"""Numbers, durations, tables and errors as plain text. Standard library only."""

from __future__ import annotations

import csv
import difflib
import io
import math
import os
import shlex
from collections.abc import Iterable, Sequence
from typing import Literal

__all__ = [
    "command",
    "csv_text",
    "did_you_mean",
    "first_line",
    "fixed",
    "format_seconds",
    "interval_text",
    "milliseconds",
    "one_line",
    "percent",
    "plain_table",
    "precise_seconds",
    "printable",
    "quoted",
    "size_text",
    "unit_for",
]

_UNITS = {
    "bytes": (1024, ("B", "KiB", "MiB", "GiB", "TiB")),
    "FLOPs": (1000, ("", "kilo", "mega", "giga", "tera", "peta")),
}


def fixed(value: float, decimals: int) -> str:
    """Write a number with fixed decimals, and zero without a minus sign.

    Example:
        >>> fixed(1.25, 1), fixed(-0.04, 1)
        ('1.2', '0.0')
    """
    text = f"{value:.{decimals}f}"
    return text.removeprefix("-") if float(text) == 0 else text


def percent(fraction: float) -> str:
    """Write a fraction as a percentage with one decimal.

    Example:
        >>> percent(0.236)
        '23.6 %'
    """
    return f"{fixed(100 * fraction, 1)} %"


def interval_text(interval: tuple[float, float] | None) -> str:
    """Write an interval of fractions as percentages, to stand behind `percent`.

    Args:
        interval: Its ends, or ``None``.

    Returns:
        A space and both ends in brackets; nothing without an interval.

    Example:
        >>> percent(0.236) + interval_text((0.2, 0.25))
        '23.6 % (20.0 to 25.0)'
    """
    if interval is None:
        return ""
    low, high = interval
    return f" ({fixed(100 * low, 1)} to {fixed(100 * high, 1)})"


def milliseconds(seconds: float) -> str:
    """Write seconds as milliseconds with two decimals.

    Example:
        >>> milliseconds(0.01234)
        '12.34 ms'
    """
    return f"{fixed(1000 * seconds, 2)} ms"


def unit_for(largest: float, of: Literal["bytes", "FLOPs"]) -> tuple[str, float]:
    """Choose a unit for numbers up to `largest`.

    Args:
        largest: The largest number, at least 0.
        of: What is counted.

    Returns:
        Its name, and the factor that makes a number one of that unit.

    Example:
        >>> unit_for(3000, "FLOPs")
        ('kilo', 0.001)
    """
    base, names = _UNITS[of]
    power = max((p for p in range(len(names)) if largest >= base**p), default=0)
    return names[power], 1.0 / base**power


def size_text(number: float) -> str:
    """Write a number of bytes with its unit.

    Example:
        >>> size_text(2560), size_text(512 * 2**20)
        ('2.5 KiB', '512 MiB')
    """
    unit, scale = unit_for(number, "bytes")
    value = number * scale
    return f"{value:.0f} {unit}" if scale == 1 or value >= 99.95 else f"{value:.1f} {unit}"


def format_seconds(seconds: float) -> str:
    """Write a duration in at most eight characters (below 1000 hours).

    Args:
        seconds: Any duration in seconds; negative ones keep their sign.

    Returns:
        ``"3.2 s"`` below ten seconds, then ``"42 s"``, ``"7m 05s"``, ``"12h 30m"``; ``"?"`` if it
        is not finite.

    Example:
        >>> format_seconds(425.2)
        '7m 05s'
    """
    if not math.isfinite(seconds):
        return "?"
    size = abs(seconds)
    if size < 9.95:
        text = f"{size:.1f} s"
    elif size < 59.5:
        text = f"{size:.0f} s"
    elif size < 3599.5:
        minutes, rest = divmod(round(size), 60)
        text = f"{minutes}m {rest:02d}s"
    else:
        hours, minutes = divmod(round(size / 60), 60)
        text = f"{hours}h {minutes:02d}m"
    return f"-{text}" if seconds < 0 and text != "0.0 s" else text


def precise_seconds(seconds: float) -> str:
    """Write a duration as `format_seconds` does, with three digits below ten seconds.

    Example:
        >>> precise_seconds(0.01234)
        '0.0123 s'
    """
    return f"{seconds:.3g} s" if abs(seconds) < 9.995 else format_seconds(seconds)


def plain_table(rows: Sequence[Sequence[str]]) -> list[str]:
    """Lay out rows of cells in columns: the second column to the left, the others to the right.

    The second column holds names; the first holds their numbers.

    Args:
        rows: The header first; all rows have the same number of cells.

    Returns:
        One line per row, without spaces at its end.

    Example:
        >>> plain_table([("layer", "name"), ("0", "stem")])
        ['layer  name', '    0  stem']
    """
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            cell.ljust(width) if i == 1 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]


def csv_text(rows: Iterable[Iterable[object]]) -> str:
    r"""Write rows, the header first, as CSV: numbers in full precision, ``None`` as nothing.

    A text that a spreadsheet would take for a formula gets an apostrophe in front, which shows it
    as the text it is.

    Example:
        >>> csv_text([("seed", "error"), (0, -5.5), (1, None), ("=1+1", "-5.5")])
        "seed,error\n0,-5.5\n1,\n'=1+1,-5.5\n"
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\r\n")  # either sign in a cell gets it quoted
    writer.writerows([_harmless(cell) for cell in row] for row in rows)
    return text.getvalue().replace("\r\n", "\n")


def _harmless(cell: object) -> object:
    """Return a cell that no spreadsheet takes for a formula; numbers stay as they are."""
    if not (isinstance(cell, str) and cell.startswith(("=", "+", "-", "@", "\t", "\r"))):
        return cell
    try:
        float(cell)
    except ValueError:
        return f"'{cell}"
    return cell


def quoted(word: str | os.PathLike[str]) -> str:
    r"""Write one word of a command as a shell reads it.

    Args:
        word: Any text or path, also one with control characters or bytes that are no UTF-8.

    Example:
        >>> quoted("runs/a-1"), quoted("my runs")
        ('runs/a-1', "'my runs'")
        >>> print(quoted("two\nlines"))
        $'two\012lines'
    """
    text = os.fspath(word)
    if text.isprintable() and "  " not in text:  # a line of an error has single spaces
        return shlex.quote(text)
    return f"$'{''.join(map(_escaped, text))}'"


def _escaped(sign: str) -> str:
    """Return a character within ``$'...'``: its bytes in octal where a line cannot hold it."""
    if sign in "'\\":
        return f"\\{sign}"
    if sign.isprintable() and sign != " ":
        return sign
    how = "surrogateescape" if "\udc80" <= sign <= "\udcff" else "surrogatepass"
    return "".join(rf"\{byte:03o}" for byte in sign.encode("utf-8", how))


def command(*words: str | os.PathLike[str]) -> str:
    """Write a command of the program, to be copied into a shell.

    Args:
        words: What comes after the program's name.

    Example:
        >>> command("train", "--resume", "my runs/one")
        "freezeout train --resume 'my runs/one'"
    """
    return " ".join(map(quoted, ("freezeout", *words)))


def printable(text: str) -> str:
    r"""Return a text in one line in which nothing controls a terminal.

    White space becomes single spaces, and what cannot be printed an escape.

    Example:
        >>> printable("two\nlines, \x1b[1m bold")
        'two lines, \\x1b[1m bold'
    """
    signs = (sign if sign.isprintable() else ascii(sign)[1:-1] for sign in " ".join(text.split()))
    return "".join(signs)


def did_you_mean(name: str, known: Iterable[str], otherwise: str) -> str:
    """Suggest the known name nearest to a misspelt one.

    Args:
        name: The misspelt name.
        known: The names there are.
        otherwise: What to say where none of them is near.

    Example:
        >>> did_you_mean("spaceing", ("t0", "spacing"), "")
        "Did you mean 'spacing'?"
    """
    near = difflib.get_close_matches(name, list(known), n=1)
    return f"Did you mean {near[0]!r}?" if near else otherwise


def one_line(error: BaseException) -> str:
    r"""Return all of an error's text in one line; its type's name if it has none.

    Example:
        >>> one_line(ValueError("no file\n  of that name."))
        'no file of that name.'
    """
    return printable(str(error)) or type(error).__name__


def first_line(error: BaseException) -> str:
    r"""Return the first line of an error's text without a full stop; its type's name without text.

    Example:
        >>> first_line(RuntimeError("shapes do not match:\n2 and 3"))
        'shapes do not match'
    """
    lines = str(error).strip().splitlines()
    return (lines[0].rstrip(" .:") if lines else "") or type(error).__name__
