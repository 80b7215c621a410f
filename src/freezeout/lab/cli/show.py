"""What a run leaves on the screen and on the disk once it is over."""

from __future__ import annotations

import sys
from dataclasses import replace

from freezeout.lab.evidence import StepTime
from freezeout.lab.experiments import read_run
from freezeout.lab.report.terminal import print_to, render_summary
from freezeout.lab.streams import outlive
from freezeout.lab.training import RunFolder, RunResult, Trainer, save_summary, summarise

__all__ = ["finish"]


def finish(result: RunResult, folder: RunFolder) -> None:
    """Save the summary, draw the picture, and print the summary, in this order.

    Args:
        result: The finished or interrupted run.
        folder: Where ``summary.json`` and ``run.png`` go.

    Raises:
        RunError: If the disk does not take them.
    """
    summary = summarise(result, folder)
    save_summary(summary, result, folder)
    _draw(result.trainer, folder)
    with outlive(sys.stdout):
        print_to(sys.stdout, render_summary(summary))


def _draw(trainer: Trainer, folder: RunFolder) -> None:
    """Draw the run from its folder, with the step times of every window."""
    from freezeout.lab.report.figures import RunFigure

    windows = (StepTime(w.end, w.seconds, w.frozen) for w in trainer.clock.windows)
    record = replace(read_run(folder.path), step_times=tuple(windows))
    RunFigure(record).save(folder.picture, trainer.settings.title)
