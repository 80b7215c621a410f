"""What a kind of figure consists of."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from freezeout.evidence.record import RunRecord
from freezeout.report.arms import ArmKey
from freezeout.report.figures._drawing import Drawing
from freezeout.report.palette import Palette
from freezeout.report.table import Table

__all__ = ["FigureKind", "Records"]

Records: TypeAlias = Sequence[RunRecord]


@dataclass(frozen=True)
class FigureKind:
    """A figure that can be drawn of runs.

    Attributes:
        id: Short name, for file names.
        title: Heading.
        missing: Why the figure cannot be drawn of these runs, in one line; ``None`` if it can.
        caption: What is seen and how to read it, as plain sentences.
        draw: Draws it at a width in inches.
        table: The drawn numbers.
        arms: Arms that are in it; empty if arms need no legend.
    """

    id: str
    title: str
    missing: Callable[[Records], str | None]
    caption: Callable[[Records], str]
    draw: Callable[[Records, Palette, float], Drawing]
    table: Callable[[Records], Table]
    arms: Callable[[Records], list[ArmKey]]
