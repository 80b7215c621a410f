"""Write to a terminal, a file or a pipe, in any encoding, for a reader who may go away."""

from __future__ import annotations

import io
from typing import IO

from rich.console import Console, ConsoleOptions, Group, RenderableType

from freezeout.errors import check_whole

__all__ = ["LastingConsole", "encodable", "has_blocks", "plain_text", "print_to"]

_PLAIN_WIDTH = 100
_LEAST_WIDTH = 40


class LastingConsole(Console):
    """A console that reports a reader who went away like any other error of the stream."""

    def on_broken_pipe(self) -> None:
        """Raise the error on, where rich would end the program."""
        raise


def encodable(text: str, stream: object) -> str:
    """Return the text with question marks for what the stream's encoding lacks."""
    encoding = getattr(stream, "encoding", None) or "utf-8"
    return text.encode(encoding, "replace").decode(encoding)


def has_blocks(console: Console, options: ConsoleOptions) -> bool:
    """Return whether block characters can be shown; plain text is kept to ASCII."""
    return console.is_terminal and not (options.ascii_only or options.legacy_windows)


def plain_text(*parts: RenderableType, width: int = _PLAIN_WIDTH) -> str:
    """Write what `rich` can lay out as plain text: no colour, no control codes.

    Args:
        parts: Such as a `LayerTable`; an empty line goes between them.
        width: Widest line in columns, at least 40.

    Returns:
        Text in ASCII but for names that are not, without trailing blanks and a final newline.

    Raises:
        ValueError: If `width` is below 40.
    """
    check_whole("width", width, "It counts columns; try 80.", least=_LEAST_WIDTH)
    target = io.StringIO()
    console = Console(
        file=target, width=width, color_system=None, force_terminal=False, legacy_windows=False
    )
    console.print(_spaced(parts))
    return "\n".join(line.rstrip() for line in target.getvalue().splitlines())


def print_to(stream: IO[str], *parts: RenderableType) -> None:
    """Write what `rich` can lay out: as wide as a terminal, else as plain text of 100 columns.

    Args:
        stream: Where to write. Characters its encoding lacks become question marks.
        parts: Such as a `LayerTable`; an empty line goes between them.

    Raises:
        OSError: If the stream cannot be written to, such as a pipe that was closed.
    """
    if stream.isatty():
        console = Console(file=stream)
        with console.capture() as capture:
            console.print(_spaced(parts))
        text = capture.get()
    else:
        text = plain_text(*parts) + "\n"
    stream.write(encodable(text, stream))
    stream.flush()


def _spaced(parts: tuple[RenderableType, ...]) -> Group:
    spaced = [item for part in parts for item in ("", part)]
    return Group(*spaced[1:])
