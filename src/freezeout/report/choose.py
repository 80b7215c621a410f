"""Choosing a display."""

from __future__ import annotations

import sys
from typing import IO, Literal, get_args

from rich.console import Console

from freezeout.report.display import Display, LineDisplay, SilentDisplay
from freezeout.report.live import LiveDisplay

__all__ = ["DisplayMode", "make_display"]

DisplayMode = Literal["auto", "live", "lines", "none"]
"""``"auto"`` is live on a terminal and lines elsewhere."""


def make_display(
    mode: DisplayMode = "auto",
    *,
    console: Console | None = None,
    stream: IO[str] | None = None,
) -> Display:
    """Choose a display.

    Args:
        mode: ``"live"``, ``"lines"``, ``"none"``, or ``"auto"``: live where the output is a
            terminal that can move its cursor, lines elsewhere (also where an environment variable
            asks for colours in a pipe).
        console: A console to draw on; made from `stream` by default.
        stream: Where to write; standard output by default.

    Returns:
        A display that has not started.

    Raises:
        ValueError: If `mode` is not one of the four, or both `console` and `stream` are given.
    """
    if mode not in get_args(DisplayMode):
        known = ", ".join(repr(name) for name in get_args(DisplayMode))
        raise ValueError(f"mode must be one of {known}, got {mode!r}. 'auto' suits most uses.")
    if console is not None and stream is not None:
        raise ValueError("give a console or a stream, got both. A console has its own stream.")
    if mode == "none":
        return SilentDisplay()
    if console is None:
        console = Console(file=stream if stream is not None else sys.stdout)
    if mode == "live" or (mode == "auto" and _can_redraw(console)):
        return LiveDisplay(console)
    return LineDisplay(console.file)


def _can_redraw(console: Console) -> bool:
    """Whether cursor movements make sense there; asks the stream, not the environment."""
    isatty = getattr(console.file, "isatty", None)
    return bool(isatty and isatty()) and console.is_terminal and not console.is_dumb_terminal
