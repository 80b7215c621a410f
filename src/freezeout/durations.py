"""Durations in a few characters. Standard library only."""

from __future__ import annotations

import math

__all__ = ["format_seconds", "precise_seconds"]


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
    """As `format_seconds`, with three digits below ten seconds.

    Example:
        >>> precise_seconds(0.01234)
        '0.0123 s'
    """
    return f"{seconds:.3g} s" if abs(seconds) < 9.995 else format_seconds(seconds)
