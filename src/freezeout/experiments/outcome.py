"""What a run leaves behind once it is over: its summary, as an object and as ``summary.json``."""

from __future__ import annotations

import platform
import statistics
import sys
from collections.abc import Sequence
from dataclasses import asdict
from itertools import groupby
from typing import Any

import torch

from freezeout.report.summary import DepthCost, RunSummary, measured_saving
from freezeout.saving import predicted_saving
from freezeout.training.clock import Window
from freezeout.training.folder import RunFolder
from freezeout.training.run import RunResult
from freezeout.training.trainer import Trainer

__all__ = ["device_words", "save_summary", "step_times", "summarise"]

_POINTS = 200  # step times that a summary keeps


def summarise(result: RunResult, folder: RunFolder) -> RunSummary:
    """What there is to say about a finished or interrupted run."""
    trainer = result.trainer
    settings = trainer.settings
    tested = [r.test_error for r in trainer.history if r.test_error is not None]
    costs = tuple(DepthCost(*cost) for cost in trainer.clock.costs())
    return RunSummary(
        model=settings.model,
        data=settings.data,
        steps=trainer.step,
        total_steps=trainer.total_steps,
        epochs=trainer.epochs,
        test_error=tested[-1] if tested else None,
        train_seconds=trainer.clock.total_since(0),
        total_seconds=result.seconds,
        seconds_per_epoch=tuple(r.seconds for r in trainer.history),
        depth_costs=costs,
        frozen_layers=trainer.frozen,
        layers=len(trainer.scheduler.layers),
        saving=measured_saving(costs),
        predicted=None if result.plan is None else result.plan.saving,
        predicted_interval=None if result.plan is None else result.plan.interval,
        predicted_so_far=_predicted_so_far(result, costs),
        out=str(folder.path),
        device=device_words(trainer),
        precision=settings.precision,
        interrupted=result.interrupted,
    )


def save_summary(summary: RunSummary, result: RunResult, folder: RunFolder) -> None:
    """Writes ``summary.json``: the summary, step times, peak of memory, hardware.

    Raises:
        RunError: If the disk does not take it.
    """
    trainer = result.trainer
    peaks = [r.memory for r in trainer.history if r.memory is not None]
    folder.write_summary(
        {
            **asdict(summary),
            "peak_memory": max(peaks, default=None),
            "step_times": step_times(trainer.clock.windows),
            "hardware": _hardware(trainer),
        }
    )


def step_times(windows: Sequence[Window], points: int = _POINTS) -> list[tuple[int, float, int]]:
    """Step times thinned out: about `points` stretches of steps with one depth each.

    Args:
        windows: Timed windows, in order.
        points: About how many stretches to keep.

    Returns:
        For each stretch the steps done at its end, the median seconds of a step, and the length of
        the frozen prefix.
    """
    size = max(1, len(windows) // points)
    thinned = []
    for frozen, group in groupby(windows, key=lambda w: w.frozen):
        same = list(group)
        for begin in range(0, len(same), size):
            part = same[begin : begin + size]
            thinned.append((part[-1].end, statistics.median(w.seconds for w in part), frozen))
    return thinned


def device_words(trainer: Trainer) -> str:
    """Where a trainer runs, in words: ``"CPU, 1 thread"`` or a GPU's name; how many, if several."""
    count = trainer.processes.size
    times = "" if count == 1 else f"{count} x "
    if trainer.device.type == "cuda":
        return times + torch.cuda.get_device_name(trainer.device)
    threads = trainer.settings.threads
    return f"{times}CPU, {threads} thread{'' if threads == 1 else 's'}"


def _predicted_so_far(result: RunResult, costs: Sequence[DepthCost]) -> float | None:
    """The saving predicted before the run, for the steps that were done."""
    if result.plan is None:
        return None
    return predicted_saving(result.plan.costs, {cost.frozen: cost.steps for cost in costs})


def _hardware(trainer: Trainer) -> dict[str, Any]:
    return {
        "device": device_words(trainer),
        "processes": trainer.processes.size,
        "machine": platform.machine(),
        "system": platform.system(),
        "python": sys.version.split()[0],
        "torch": torch.__version__,
    }
