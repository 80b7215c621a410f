"""What a training run will cost, measured on its own network, batch and optimizer."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import TypedDict

import torch
import torch.nn.functional as F
from torch.optim import Optimizer

from freezeout.costs import Costs, device_name, measure_costs, measure_threads
from freezeout.errors import CostError
from freezeout.lab.training.trainer import Trainer
from freezeout.planning import Plan

__all__ = ["LEAST_STEPS", "cost_differences", "forecast", "run_costs", "step_seconds"]

LEAST_STEPS = 400
"""Runs shorter than this are not predicted unless asked for: measuring takes a few dozen steps."""

_BATCHES = 8  # timed to know what loading one takes


def forecast(
    trainer: Trainer, *, rounds: int = 6, progress: Callable[[int, int], None] | None = None
) -> Plan:
    """Predict what the schedule of a run saves; the trainer is left exactly as it was.

    Args:
        trainer: The run, with its settings, data and optimizer.
        rounds: See `freezeout.measure_costs`.
        progress: Told of steps done and to do.

    Raises:
        CostError: If the step cannot be measured.
    """
    costs = run_costs(trainer, rounds=rounds, progress=progress)
    return Plan(costs, trainer.settings.schedule, trainer.total_steps)


def run_costs(
    trainer: Trainer, *, rounds: int = 6, progress: Callable[[int, int], None] | None = None
) -> Costs:
    """Measure a step of a run: network, loss and optimizer, and what loading a batch adds.

    Raises:
        CostError: If the step cannot be measured.
    """
    images, step = _step(trainer)
    try:
        costs = measure_costs(
            trainer.model,
            images,
            layers=trainer.scheduler.layers,
            rounds=rounds,
            progress=progress,
            **step,
        )
    except (ValueError, TypeError) as error:  # of a network that freezeout does not know
        raise CostError(str(error)) from error
    return costs.with_overhead(_loading_seconds(trainer))


def step_seconds(trainer: Trainer, most: int) -> dict[int, float]:
    """Return what a step of a run takes with 1, 2, 4 ... threads; see `measure_threads`.

    Raises:
        CostError: If the step cannot be measured.
    """
    images, step = _step(trainer)
    try:
        return measure_threads(trainer.model, trainer.scheduler.layers, images, most=most, **step)
    except (ValueError, TypeError) as error:
        raise CostError(str(error)) from error


def cost_differences(costs: Costs, trainer: Trainer, threads: int | None = None) -> list[str]:
    """Say how a step of a run differs from the one that was measured: one phrase for each.

    Args:
        costs: What was measured.
        trainer: The run.
        threads: Its threads; by default those of its settings.
    """
    settings = trainer.settings
    batch = min(settings.batch_size, trainer.task.train_data.num_images)
    return costs.differences(
        trainer.scheduler.layers,
        batch_size=batch,
        precision="bfloat16" if settings.precision == "bf16" else "float32",
        optimizer=type(trainer.optimizer).__name__,
        device=device_name(trainer.device, threads or settings.threads),
    )


class _Step(TypedDict):
    loss: Callable[[torch.Tensor], torch.Tensor]
    optimizer: Optimizer
    autocast: torch.dtype | None


def _step(trainer: Trainer) -> tuple[torch.Tensor, _Step]:
    """Return a batch of a run, and how it is learned from."""
    images, labels = next(iter(trainer.task.train_data.epoch(0)))

    def loss(logits: torch.Tensor) -> torch.Tensor:
        return F.cross_entropy(logits, labels)

    autocast = torch.bfloat16 if trainer.settings.precision == "bf16" else None
    return images, {"loss": loss, "optimizer": trainer.optimizer, "autocast": autocast}


def _loading_seconds(trainer: Trainer) -> float:
    """Return the typical seconds until the next batch is ready on the device."""
    wait = torch.cuda.synchronize if trainer.device.type == "cuda" else _nothing
    batches = trainer.task.train_data.epoch(0)
    taken = []
    for _ in range(_BATCHES):
        wait()
        begin = time.perf_counter()
        if next(batches, None) is None:
            break
        wait()
        taken.append(time.perf_counter() - begin)
    return statistics.median(taken)


def _nothing() -> None:
    pass
