"""Terminals that keep what was written, and what a display is told."""

from __future__ import annotations

import dataclasses
import io
from typing import Any

from rich.console import Console

from freezeout.freezing import FreezeEvent
from freezeout.lab.report.terminal import LiveDisplay
from freezeout.lab.training import EpochRecord, Observer, Progress, RunStart

HIDE_CURSOR, SHOW_CURSOR = "\x1b[?25l", "\x1b[?25h"
NAMES = ["stem", "body.0", "body.1", "body.2", "head"]
FREEZE_STEPS = [100, 250, 1200, 1600, None]


def begin(display: Observer, title: str = "t", **changes: Any) -> None:
    """Tells a display that a run of 2000 steps in 10 epochs begins."""
    names = changes.get("names", NAMES)
    freeze_steps = changes.get("freeze_steps", FREEZE_STEPS)
    display.start(RunStart(title, names, freeze_steps, 2000, changes.get("epochs", 10), 0))


def a_moment(**changes: Any) -> Progress:
    return dataclasses.replace(Progress(1000, 6, 0.4321, 87.65, 2, 425.0, -12.0), **changes)


def an_epoch(**changes: Any) -> EpochRecord:
    record = EpochRecord(5, 1000, 0.5, 12.345, 0.4, 11.2, 62.0, 2, 95.0)
    return dataclasses.replace(record, **changes)


def a_freeze(index: int, step: int, *, frozen: bool = True) -> FreezeEvent:
    return FreezeEvent(index=index, name=NAMES[index], step=step, frozen=frozen)


def terminal(width: int = 80) -> Console:
    return Console(
        file=io.StringIO(), width=width, height=24, force_terminal=True, legacy_windows=False
    )


def paper_like(width: int, file: Any = None) -> Console:
    """A console that is no terminal: the live lines come out once, at the end, without codes."""
    file = io.StringIO() if file is None else file
    return Console(file=file, width=width, force_terminal=False, legacy_windows=False)


def written(console: Console) -> str:
    file = console.file
    assert isinstance(file, io.StringIO)
    return file.getvalue()


def live_text(
    width: int, moment: Progress | None, names: list[str], freeze: list[Any]
) -> list[str]:
    console = paper_like(width)
    with LiveDisplay(console) as display:
        begin(display, names=names, freeze_steps=freeze)
        if moment is not None:
            display.progress(moment)
    lines = written(console).splitlines()
    assert lines[0] == "t"
    return lines[1:]


class Clock:
    def __init__(self) -> None:
        self.now = 50.0

    def __call__(self) -> float:
        return self.now
