"""Saving a figure: whole or not at all, and equal figures to equal bytes."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable
from pathlib import Path

import matplotlib
from matplotlib.figure import Figure

__all__ = ["save_figure"]


def save_figure(path: Path, kinds: tuple[str, ...], build: Callable[[], Figure]) -> None:
    """Writes a figure beside its place, then moves it there.

    Args:
        path: Where to write; its suffix is the kind.
        kinds: Suffixes that are allowed, without the dot.
        build: Draws the figure; called once the suffix is known to be right.

    Raises:
        ValueError: If the suffix is another.
        OSError: If the file cannot be written; an older one is then left as it was.
    """
    kind = path.suffix.lower().removeprefix(".")
    if kind not in kinds:
        allowed = " or ".join(f".{name}" for name in kinds)
        raise ValueError(f"path must end in {allowed}, got {path.name!r}. Choose another name.")
    figure = build()
    # Neither a date nor a version in the file.
    metadata = {"Date": None, "Creator": None} if kind == "svg" else {"Software": None}
    draft = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with (
            warnings.catch_warnings(),
            matplotlib.rc_context({"svg.hashsalt": "freezeout"}),
        ):
            warnings.filterwarnings("ignore", message="Glyph .* missing from")
            figure.savefig(draft, format=kind, metadata=metadata)
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)
