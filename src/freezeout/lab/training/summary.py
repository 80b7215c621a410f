"""What a run leaves behind once it is over: its summary, as an object and as ``summary.json``."""

from __future__ import annotations

import platform
import statistics
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from itertools import groupby

import torch

from freezeout.lab.training.clock import DepthCost, Window, measured_saving
from freezeout.lab.training.folder import RunFolder
from freezeout.lab.training.run import RunResult
from freezeout.lab.training.trainer import Trainer
from freezeout.planning import predicted_saving

__all__ = ["RunSummary", "save_summary", "step_times", "summarise"]

_POINTS = 200  # step times that a summary keeps


@dataclass(frozen=True, kw_only=True)
class RunSummary:
    """What there is to say about a run once it is over.

    Attributes:
        model: Name of the network.
        data: Name of the data set.
        steps: Optimizer steps done.
        epochs: Epochs the run was to have.
        test_error: Final error on the test data in percent, 0-100; ``None`` if never measured.
        train_seconds: Time spent in training steps, in seconds.
        total_seconds: Wall time of the run including evaluation and saving, in seconds.
        seconds_per_epoch: Training time of each finished epoch, in seconds.
        depth_costs: Step count and median step time per length of the frozen prefix, in rising
            order.
        frozen_layers: Layers frozen at the end.
        layers: Number of layers.
        saving: Measured saving as a fraction, from `depth_costs`; ``None`` if the run had no
            unfrozen steps to compare with, or nothing froze.
        out: Folder of the run.
        device: Where it ran, in words.
        precision: Number format of the training steps.
        predicted: Saving that was predicted before the run, as a fraction; ``None`` if it was not.
        predicted_interval: Where the prediction lay with 95 % confidence; ``None`` if not known.
        predicted_so_far: The same prediction for the steps that were done.
        predicted_trouble: Why the prediction is not to be relied on; empty if it may be.
        interrupted: Whether the run was stopped before its end.
        total_steps: Steps the run was to have; shown when it was interrupted.
    """

    model: str
    data: str
    steps: int
    epochs: int
    test_error: float | None
    train_seconds: float
    total_seconds: float
    seconds_per_epoch: tuple[float, ...]
    depth_costs: tuple[DepthCost, ...]
    frozen_layers: int
    layers: int
    saving: float | None = field(init=False)
    out: str
    device: str
    precision: str
    predicted: float | None = None
    predicted_interval: tuple[float, float] | None = None
    predicted_so_far: float | None = None
    predicted_trouble: str = ""
    interrupted: bool = False
    total_steps: int | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "saving", measured_saving(self.depth_costs))


def summarise(result: RunResult, folder: RunFolder) -> RunSummary:
    """Return what there is to say about a finished or interrupted run."""
    trainer, plan = result.trainer, result.plan
    settings = trainer.settings
    tested = [r.test_error for r in trainer.history if r.test_error is not None]
    costs = tuple(trainer.clock.costs())
    so_far = {cost.frozen: cost.steps for cost in costs}
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
        predicted=None if plan is None else plan.saving,
        predicted_interval=None if plan is None else plan.interval,
        predicted_so_far=None if plan is None else predicted_saving(plan.costs, so_far),
        predicted_trouble="" if plan is None else plan.costs.trouble,
        out=str(folder.path),
        device=_device_words(trainer),
        precision=settings.precision,
        interrupted=result.interrupted,
    )


def save_summary(summary: RunSummary, result: RunResult, folder: RunFolder) -> None:
    """Write ``summary.json``: the summary, step times, peak of memory, hardware.

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
            "hardware": {
                "device": summary.device,
                "processes": trainer.processes.size,
                "machine": platform.machine(),
                "system": platform.system(),
                "python": sys.version.split()[0],
                "torch": torch.__version__,
            },
        }
    )


def step_times(windows: Sequence[Window], points: int = _POINTS) -> list[tuple[int, float, int]]:
    """Thin out step times to about `points` stretches of steps with one depth each.

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


def _device_words(trainer: Trainer) -> str:
    """Name where a trainer runs: ``"CPU, 1 thread"`` or a GPU's name; how many, if several."""
    count = trainer.processes.size
    times = "" if count == 1 else f"{count} x "
    if trainer.device.type == "cuda":
        return times + torch.cuda.get_device_name(trainer.device)
    threads = trainer.settings.threads
    return f"{times}CPU, {threads} thread{'' if threads == 1 else 's'}"
