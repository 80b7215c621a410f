"""One repeat of the benchmark: predict, warm up, and train in turns under the clock."""

from __future__ import annotations

import gc
import random
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from math import fsum
from typing import Any

from benchmarks.common.machine import load
from benchmarks.common.measuring import must_be, wait_for
from benchmarks.prediction.results import describe_schedule, saving, smoothed
from freezeout import Plan, Schedule
from freezeout.lab.data import Dataset
from freezeout.lab.training import Settings, Trainer, run_costs
from freezeout.planning import paper_saving

__all__ = ["Run", "Subject", "measure_repeat", "outcome", "predict", "take_turns", "warm_up"]

STEPS_PER_DEPTH = 3
"""Of the warm-up."""

ROUNDS_PER_COLLECTION = 25


@dataclass(frozen=True)
class Subject:
    """What is trained and where; all but network, schedule and seed.

    Attributes:
        settings: Resolved settings without freezing.
        dataset: The data.
        schedules: Those to predict and to measure.
    """

    settings: Settings
    dataset: Dataset
    schedules: tuple[Schedule, ...]

    def trainer(self, **changes: Any) -> Trainer:
        """Make a trainer, with some settings changed."""
        return Trainer(replace(self.settings, **changes), self.dataset)


class Run:
    """A training run, advanced and timed step by step.

    Attributes:
        seconds: Of every step so far.
        depths: Number of layers that were frozen in it.
    """

    def __init__(self, trainer: Trainer, now: Callable[[], float] = time.perf_counter) -> None:
        self.trainer = trainer
        self.seconds: list[float] = []
        self.depths: list[int] = []
        self._now = now
        self._batches = trainer.batches()

    def step(self) -> None:
        """Take a step; do outside the clock what `freezeout train` does between steps."""
        trainer = self.trainer
        if trainer.batch == trainer.epoch_steps:
            trainer.finish_epoch()
            self._batches = trainer.batches()
        self.depths.append(trainer.frozen)
        wait_for(trainer.device)
        begin = self._now()
        trainer.take_step(*next(self._batches))
        wait_for(trainer.device)
        self.seconds.append(self._now() - begin)
        trainer.read()


def take_turns(steps: Sequence[Callable[[], object]], rounds: int, seed: int) -> None:
    """Call every step once per round, each round in an order of its own."""
    generator = random.Random(seed)
    was_on = gc.isenabled()
    gc.disable()
    try:
        for done in range(rounds):
            if done % ROUNDS_PER_COLLECTION == 0:
                gc.collect()
            for step in generator.sample(steps, len(steps)):
                step()
    finally:
        if was_on:
            gc.enable()


def predict(subject: Subject, model: str, seed: int) -> tuple[list[Plan], dict[str, Any]]:
    """Plan every schedule from one measurement; return the plans and what measuring took."""
    trainer = subject.trainer(model=model, seed=seed)
    steps = 0

    def count(done: int, to_do: int) -> None:
        nonlocal steps
        steps = done

    wait_for(trainer.device)
    begin = time.perf_counter()
    costs = run_costs(trainer, progress=count)
    wait_for(trainer.device)
    seconds = time.perf_counter() - begin
    plans = [Plan(costs, schedule, trainer.total_steps) for schedule in subject.schedules]
    return plans, {"seconds": seconds, "steps": steps}


def warm_up(subject: Subject, model: str, num_layers: int) -> None:
    """Train a network that is thrown away, at every number of frozen layers."""
    steps = STEPS_PER_DEPTH * num_layers
    run = Run(
        subject.trainer(
            model=model, steps=steps, t0=1.0 / num_layers, spacing="linear", scaled=False
        )
    )
    for _ in range(steps):
        run.step()
    must_be(set(run.depths) == set(range(num_layers)), "the warm-up must come by every depth")


def measure_repeat(subject: Subject, model: str, repeat: int) -> dict[str, Any]:
    """Predict, train and compare once."""
    seed = subject.settings.seed + repeat
    before = load()
    plans, measuring = predict(subject, model, seed)
    warm_up(subject, model, len(plans[0].costs))
    unfrozen = Run(subject.trainer(model=model, seed=seed))
    frozen = [
        Run(subject.trainer(model=model, seed=seed, t0=s.t0, spacing=s.spacing))
        for s in subject.schedules
    ]
    runs = [unfrozen, *frozen]
    begin = time.perf_counter()
    take_turns([run.step for run in runs], plans[0].total_steps, seed)
    trained = time.perf_counter() - begin
    must_be(set(unfrozen.depths) == {0}, "nothing may freeze in the unfrozen run")
    measuring["unfrozen_steps"] = measuring["seconds"] / statistics.median(unfrozen.seconds)
    return {
        "model": model,
        "repeat": repeat,
        "seed": seed,
        "load": {"before": before, "after": load()},
        "measuring": measuring,
        "training_seconds": trained,
        "schedules": [
            outcome(plan, run, unfrozen) for plan, run in zip(plans, frozen, strict=True)
        ],
        "unfrozen": _described(unfrozen),
        "costs": plans[0].costs.to_dict(),
    }


def outcome(plan: Plan, run: Run, unfrozen: Run) -> dict[str, Any]:
    """Return what was predicted for a frozen run and what it then took."""
    at_depth = [run.depths.count(depth) for depth in range(len(plan.costs))]
    must_be(at_depth == list(plan.steps_at_depth), "the run must freeze when the plan says")
    flops = [layer.forward_flops for layer in plan.costs.layers]
    schedule = plan.schedule
    return {
        **describe_schedule(schedule),
        "predicted": plan.saving,
        "interval": plan.interval,
        "measured": saving(run.seconds, unfrozen.seconds),
        "measured_robust": saving(
            smoothed(run.seconds, run.depths), smoothed(unfrozen.seconds, unfrozen.depths)
        ),
        "paper": paper_saving(flops, schedule.t0, spacing=schedule.spacing),
        "steps_at_depth": at_depth,
        **_described(run),
    }


def _described(run: Run) -> dict[str, Any]:
    return {
        "seconds": fsum(run.seconds),
        "training_loss": run.trainer.running_loss,
        "step_microseconds": [round(1e6 * s, 1) for s in run.seconds],
    }
