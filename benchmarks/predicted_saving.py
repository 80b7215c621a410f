"""Is the saving that `freezeout` predicts before a run the one that a clock then measures?

For each network and schedule: the difference in percentage points between the saving measured over
whole training runs on real data and the one predicted before. The bar: its median over repeats is
at most 3 points.

Run it as ``python benchmarks/predicted_saving.py``; ``--help`` lists the settings. It prints
tables, writes a JSON file after every repeat, and exits with 0 if every bar holds and with 1
otherwise. ``--resume`` goes on with an interrupted run.

A repeat, each with a seed of its own:

1. Predict, as the tool does: the step is measured once, and a `Plan` made for every schedule.
2. Warm up with a run that is thrown away, three steps at each number of frozen layers.
3. Train: one run without freezing and one per schedule, all from the first step to the last. They
   take turns step by step in an order drawn anew for every step, so a machine that speeds up or
   slows down meanwhile changes all alike. A step is batch, forward, backward, optimizer and
   scheduler, timed alone, with the device synchronised at both ends (on a GPU this lays bare the
   work of the CPU that would otherwise overlap). Garbage is collected between steps only.

The measured saving is 1 minus the sum of the frozen run's seconds over that of the unfrozen run's.
The robust one puts in place of each step's seconds their median over all steps with as many frozen
layers. The bar is on the first.
"""

from __future__ import annotations

import argparse
import datetime
import gc
import json
import random
import re
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import fsum
from pathlib import Path
from typing import Any, Literal, TypeAlias, cast

import torch

from freezeout import FreezeOutError, Plan, Schedule
from freezeout.data import Dataset
from freezeout.paper_estimate import paper_saving
from freezeout.schedule import POWERS, Spacing
from freezeout.training import Settings, Trainer
from freezeout.training.forecast import run_costs
from freezeout.training.run import on_machine, prepare
from machine import hardware, load, versions
from steps import must_be

__all__ = ["Run", "main"]

Verdict: TypeAlias = Literal["holds", "fails"]

BAR = 3.0
"""Percentage points."""

LEARNING_RATE = 0.02
"""Small batches; scaled rates of early layers are up to 8 times it."""

STEPS_PER_DEPTH = 3
"""Of the warm-up."""

ROUNDS_PER_COLLECTION = 25

FORMAT = 1

RESULTS = Path(__file__).parent / "results"
SHARED_DATA = Path(__file__).parents[2] / "shared" / "data"


# ---------------------------------------------------------------- arithmetic


def saving(frozen: Sequence[float], unfrozen: Sequence[float]) -> float:
    """The saving of one run against another as long, from the seconds of their steps."""
    must_be(len(frozen) == len(unfrozen), "both runs must have as many steps")
    return 1.0 - fsum(frozen) / fsum(unfrozen)


def smoothed(seconds: Sequence[float], depths: Sequence[int]) -> list[float]:
    """Each step's seconds replaced by their median over the steps at its depth."""
    by_depth: dict[int, list[float]] = {}
    for second, depth in zip(seconds, depths, strict=True):
        by_depth.setdefault(depth, []).append(second)
    medians = {depth: statistics.median(found) for depth, found in by_depth.items()}
    return [medians[depth] for depth in depths]


def points(measured: float, predicted: float) -> float:
    """Percentage points by which the measured fraction lies above the predicted one."""
    return 100.0 * (measured - predicted)


def judge(difference: float) -> Verdict:
    """Against the bar."""
    return "holds" if abs(difference) <= BAR else "fails"


def cell(
    model: str, schedule: Mapping[str, Any], found: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    """What the repeats of one network and schedule say together.

    Args:
        model: The network.
        schedule: Name, spacing and t0.
        found: One entry per repeat, as `measure_repeat` lists them under ``schedules``.
    """
    differences = [points(one["measured"], one["predicted"]) for one in found]
    robust = [points(one["measured_robust"], one["predicted"]) for one in found]
    middle = statistics.median(differences)
    return {
        "model": model,
        **schedule,
        "predicted": statistics.median(one["predicted"] for one in found),
        "intervals": [one["interval"] for one in found],
        "measured": statistics.median(one["measured"] for one in found),
        "measured_robust": statistics.median(one["measured_robust"] for one in found),
        "paper": found[0]["paper"],
        "differences": differences,
        "differences_robust": robust,
        "median_difference": middle,
        "median_difference_robust": statistics.median(robust),
        "largest_difference": max(differences, key=abs),
        "repeats": len(found),
        "repeats_within": sum(judge(difference) == "holds" for difference in differences),
        "bar": BAR,
        "verdict": judge(middle),
    }


# ---------------------------------------------------------------- one repeat


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
        """One step; what `freezeout train` does between steps is done outside the clock."""
        trainer = self.trainer
        if trainer.batch == trainer.epoch_steps:
            trainer.finish_epoch()
            self._batches = trainer.batches()
        self.depths.append(trainer.frozen)
        _wait(trainer.device)
        begin = self._now()
        trainer.take_step(*next(self._batches))
        _wait(trainer.device)
        self.seconds.append(self._now() - begin)
        trainer.read()


def take_turns(steps: Sequence[Callable[[], object]], rounds: int, seed: int) -> None:
    """Calls every step once per round, each round in an order of its own."""
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
    """A plan for every schedule from one measurement, and what measuring took."""
    trainer = subject.trainer(model=model, seed=seed)
    steps = 0

    def count(done: int, to_do: int) -> None:
        nonlocal steps
        steps = done

    _wait(trainer.device)
    begin = time.perf_counter()
    costs = run_costs(trainer, progress=count)
    _wait(trainer.device)
    seconds = time.perf_counter() - begin
    plans = [Plan(costs, schedule, trainer.total_steps) for schedule in subject.schedules]
    return plans, {"seconds": seconds, "steps": steps}


def warm_up(subject: Subject, model: str, num_layers: int) -> None:
    """Trains a network that is thrown away, at every number of frozen layers."""
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
    """Predicts, trains and compares once."""
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
            _outcome(plan, run, unfrozen) for plan, run in zip(plans, frozen, strict=True)
        ],
        "unfrozen": _described(unfrozen),
        "costs": plans[0].costs.to_dict(),
    }


def _outcome(plan: Plan, run: Run, unfrozen: Run) -> dict[str, Any]:
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


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


# ---------------------------------------------------------------- results

Results: TypeAlias = dict[str, Any]

MAY_GROW = ("models", "repeats")
"""Settings in which a resumed run may differ."""


def new_results(subject: Subject, models: Sequence[str], repeats: int) -> Results:
    """The results before anything is measured."""
    settings = subject.settings
    kept = ("data", "train_size", "batch_size", "steps", "seed", "lr", "device", "threads")
    return {
        "benchmark": "predicted_saving",
        "format": FORMAT,
        "date": _now(),
        "hardware": {
            **hardware(settings.device),
            "load": {"before": load(), "after": None},
        },
        "versions": versions(settings.device),
        "settings": {
            **{name: getattr(settings, name) for name in kept},
            "optimizer": f"SGD, Nesterov momentum {settings.momentum:g}, weight decay "
            f"{settings.weight_decay:g}",
            "schedules": [describe_schedule(schedule) for schedule in subject.schedules],
            "models": list(models),
            "repeats": repeats,
        },
        "repeats": [],
        "cells": [],
        "measuring": [],
    }


def taken_up(old: Results, new: Results) -> Results:
    """The results of an earlier run, to go on with.

    Raises:
        ValueError: If they were made in another way or elsewhere.
    """
    for part in ("benchmark", "format", "hardware", "versions", "settings"):
        there, here = _comparable(old.get(part)), _comparable(new[part])
        if there != here:
            raise ValueError(
                f"--resume: the {part} of the results there is {there}, of this run {here}. "
                "Choose the same, or another --out."
            )
    settings = new["settings"]
    models = [*old["settings"]["models"], *settings["models"]]
    settings["models"] = list(dict.fromkeys(models))
    settings["repeats"] = max(old["settings"]["repeats"], settings["repeats"])
    new["hardware"]["load"]["before"] = old["hardware"]["load"]["before"]
    return {**new, "repeats": old["repeats"]}


def _comparable(part: Any) -> Any:
    """What must be the same on resuming."""
    if not isinstance(part, Mapping):
        return part
    return {name: value for name, value in part.items() if name not in (*MAY_GROW, "load")}


def is_done(results: Results, model: str, repeat: int) -> bool:
    return any(one["model"] == model and one["repeat"] == repeat for one in results["repeats"])


def summarise(results: Results) -> None:
    """Everything that follows from the single repeats."""
    settings = results["settings"]
    cells, measuring = [], []
    for model in settings["models"]:
        found = [one for one in results["repeats"] if one["model"] == model]
        if not found:
            continue
        for i, schedule in enumerate(settings["schedules"]):
            cells.append(cell(model, schedule, [one["schedules"][i] for one in found]))
        costs = [one["measuring"] for one in found]
        middle = {name: statistics.median(one[name] for one in costs) for name in costs[0]}
        measuring.append({"model": model, **middle})
    wanted = [(m, r) for m in settings["models"] for r in range(settings["repeats"])]
    results["cells"] = cells
    results["measuring"] = measuring
    results["shortcomings"] = shortcomings(cells)
    results["complete"] = all(is_done(results, model, repeat) for model, repeat in wanted)
    results["passed"] = results["complete"] and not results["shortcomings"]
    results["hardware"]["load"]["after"] = load()
    results["date"] = _now()


def shortcomings(cells: Sequence[Mapping[str, Any]]) -> list[str]:
    """One line for every bar that does not hold."""
    return [
        f"{one['model']}, {one['schedule']}: measured {100 * one['measured']:.1f} %, predicted "
        f"{100 * one['predicted']:.1f} %, median difference {one['median_difference']:+.2f} "
        f"points, bar {BAR:g}, fails"
        for one in cells
        if one["verdict"] != "holds"
    ]


def write(results: Results, out: Path) -> None:
    """Writes the file anew, lists of numbers in one line each; the old one stays until it is."""
    text = re.sub(
        r"\[[-+.,\deE\s]+\]",
        lambda found: re.sub(r"\s+", " ", found[0]).replace("[ ", "[").replace(" ]", "]"),
        json.dumps(results, indent=1),
    )
    out.parent.mkdir(parents=True, exist_ok=True)
    part = out.with_name(out.name + ".part")
    part.write_text(text + "\n")
    part.replace(out)


def read(path: Path) -> Results:
    """Results written before.

    Raises:
        ValueError: If the file holds none.
    """
    try:
        found = json.loads(path.read_text())
        if not isinstance(found, dict) or found.get("benchmark") != "predicted_saving":
            raise ValueError("no results of this benchmark")
    except (OSError, ValueError) as error:
        raise ValueError(f"--resume cannot read {path}: {error}. Choose another --out.") from error
    return cast("Results", found)


def describe_schedule(schedule: Schedule) -> dict[str, Any]:
    name = f"{schedule.spacing}:{schedule.t0:g}"
    return {"schedule": name, "spacing": schedule.spacing, "t0": schedule.t0}


def _now() -> str:
    return datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")


# ---------------------------------------------------------------- tables

CELL_ROW = "{:<16} {:<12} {:>9} {:>9} {:>7} {:>10} {:>8} {:>7} {:>6}  {}"
MEASURING_ROW = "{:<16} {:>8} {:>7} {:>15}"


def say(text: str = "") -> None:
    print(text, flush=True)


def cell_line(one: Mapping[str, Any]) -> str:
    return CELL_ROW.format(
        one["model"],
        one["schedule"],
        f"{100 * one['predicted']:.1f}",
        f"{100 * one['measured']:.1f}",
        f"{100 * one['measured_robust']:.1f}",
        f"{one['median_difference']:+.2f}",
        f"{one['largest_difference']:+.2f}",
        f"{one['repeats_within']} of {one['repeats']}",
        f"{100 * one['paper']:.1f}",
        one["verdict"],
    )


def say_tables(results: Results) -> None:
    say("Savings in percent, medians over repeats; differences, measured - predicted, in points")
    say(CELL_ROW.format("", "", "", "", "", "median", "largest", "within", "", f"bar {BAR:g}"))
    heads = ("network", "schedule", "predicted", "measured", "robust", "difference", "", "bar")
    say(CELL_ROW.format(*heads, "paper", "").rstrip())
    for one in results["cells"]:
        say(cell_line(one))
    say()
    say("What measuring beforehand took, medians over repeats")
    say(MEASURING_ROW.format("network", "seconds", "steps", "unfrozen steps"))
    for one in results["measuring"]:
        say(
            MEASURING_ROW.format(
                one["model"],
                f"{one['seconds']:.1f}",
                f"{one['steps']:g}",
                f"{one['unfrozen_steps']:.1f}",
            )
        )
    say()


# ---------------------------------------------------------------- command line


def measure(subject: Subject, models: Sequence[str], results: Results, out: Path | None) -> None:
    """Takes the repeats that are not there yet; writes after each."""
    wanted = int(results["settings"]["repeats"])
    for model in models:
        for repeat in range(wanted):
            head = f"{model}, repeat {repeat + 1} of {wanted}:"
            if is_done(results, model, repeat):
                say(f"{head} there already")
                continue
            one = measure_repeat(subject, model, repeat)
            results["repeats"].append(one)
            measuring = one["measuring"]
            say(
                f"{head} measured the step in {measuring['seconds']:.1f} s, as long as "
                f"{measuring['unfrozen_steps']:.1f} unfrozen steps; "
                f"trained in {one['training_seconds']:.1f} s"
            )
            gc.collect()
            summarise(results)
            if out is not None:
                write(results, out)
    summarise(results)


FULL = {
    "models": "wrn-16-2,densenet-22-12,vgg11-32,resnet-20",
    "data": "cifar10",
    "batch_size": 16,
    "steps": 130,
    "repeats": 3,
}
QUICK = {
    "models": "resnet-8-4,wrn-10-1",
    "data": "digits",
    "batch_size": 8,
    "steps": 12,
    "repeats": 1,
}
SCHEDULES = "cubic:0.5,cubic:0.8,linear:0.5,linear:0.8"


def arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=(__doc__ or "").partition("\n")[0],
        epilog="Exit status: 0 if every bar holds, 1 if one fails.",
    )
    add = parser.add_argument
    add("--models", help=f"networks' names, with commas (default: {FULL['models']})")
    add(
        "--schedules",
        type=parse_schedules,
        default=SCHEDULES,
        help="spacing:t0 with commas; all scaled (default: %(default)s)",
    )
    add("--steps", type=_positive, help=f"of a training run (default: {FULL['steps']})")
    add("--repeats", type=_positive, help=f"each with a new seed (default: {FULL['repeats']})")
    add("--batch-size", type=_positive, help=f"images (default: {FULL['batch_size']})")
    add("--data", help=f"data set (default: {FULL['data']})")
    add(
        "--data-dir",
        default=str(SHARED_DATA) if SHARED_DATA.is_dir() else None,
        help="folder that holds it (default: %(default)s; None: the user's cache)",
    )
    add("--device", choices=("cpu", "cuda"), default="cpu")
    add("--threads", type=_positive, default=1, help="of torch on the CPU (default: %(default)s)")
    add("--seed", type=int, default=0, help="of the first repeat (default: %(default)s)")
    add(
        "--out",
        type=Path,
        help="JSON file (default: results/predicted_saving-<device>.json beside this script; with "
        "--quick none)",
    )
    add(
        "--resume",
        action="store_true",
        help="go on with the file of --out, where there is one: skip what is done",
    )
    add("--quick", action="store_true", help="toy size: shows that it runs, measures nothing")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the benchmark; returns the exit status."""
    parser = arguments()
    given = parser.parse_args(argv)
    for name, value in (QUICK if given.quick else FULL).items():
        if getattr(given, name) is None:
            setattr(given, name, value)
    out: Path | None = given.out
    if out is None and not given.quick:
        out = RESULTS / f"predicted_saving-{given.device}.json"
    models = list(dict.fromkeys(name.strip() for name in given.models.split(",")))
    try:
        if given.resume and out is None:
            raise ValueError("--resume needs --out with --quick. Give the file to go on with.")
        old = read(out) if out is not None and given.resume and out.exists() else None
        subject = prepared(given)
        for model in models:
            subject.trainer(model=model)  # what cannot be built is said before anything is measured
    except (FreezeOutError, ValueError) as error:
        parser.error(str(error))
    with on_machine(subject.settings):
        results = new_results(subject, models, given.repeats)
        try:
            if old is not None:
                results = taken_up(old, results)
        except ValueError as error:
            parser.error(str(error))
        say(_heading(results))
        try:
            measure(subject, models, results, out)
        except FreezeOutError as error:  # what was finished before is in the file
            parser.error(str(error))
    say()
    say_tables(results)
    for line in results["shortcomings"]:
        say(f"not met: {line}")
    if not results["complete"]:
        say("Not complete: go on with --resume.")
    say("Every bar holds." if results["passed"] else f"{len(results['shortcomings'])} not met.")
    if out is not None:
        write(results, out)
        say(f"Written to {out}")
    return 0 if results["passed"] else 1


def prepared(given: argparse.Namespace) -> Subject:
    """Data and settings, with as many training images as one epoch of all steps needs.

    Raises:
        FreezeOutError: If the data cannot be read, or the device is not there.
        ValueError: If a setting is out of range.
    """
    settings, dataset = prepare(
        Settings(
            data=given.data,
            data_dir=given.data_dir,
            batch_size=given.batch_size,
            steps=given.steps,
            lr=LEARNING_RATE,
            t0=1.0,
            device=given.device,
            threads=given.threads,
            seed=given.seed,
            evaluate_every=10**6,  # no test between epochs
        )
    )
    size = min(len(dataset.train_images), given.steps * given.batch_size)
    dataset = replace(
        dataset,
        train_images=dataset.train_images[:size],
        train_labels=dataset.train_labels[:size],
    )
    return Subject(replace(settings, train_size=size), dataset, given.schedules)


def parse_schedules(text: str) -> tuple[Schedule, ...]:
    """Schedules from words such as ``"cubic:0.5,linear:0.8"``.

    Raises:
        argparse.ArgumentTypeError: If a word is none.
    """
    found: dict[str, Schedule] = {}
    for word in text.split(","):
        spacing, _, t0 = word.strip().partition(":")
        try:
            value = float(t0)
        except ValueError:
            value = 0.0
        if spacing not in POWERS or not 0.0 < value < 1.0:
            raise argparse.ArgumentTypeError(
                f"must be spacing:t0 with commas, where spacing is {', '.join(POWERS)} and t0 lies "
                f"in (0, 1), got {word!r}. The run without freezing is always there"
            )
        schedule = Schedule(t0=value, spacing=cast("Spacing", spacing))
        found[describe_schedule(schedule)["schedule"]] = schedule
    return tuple(found.values())


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, got {value}")
    return value


def _heading(results: Results) -> str:
    machine, software, settings = results["hardware"], results["versions"], results["settings"]
    place = machine["gpu"] or f"{machine['threads']} thread(s) of {machine['cores']} cores"
    return (
        f"{settings['data']}, batch {settings['batch_size']}, {settings['steps']} steps, "
        f"{settings['repeats']} repeat(s), {settings['device']} ({machine['cpu']}, {place})\n"
        f"torch {software['torch']}, freezeout {software['freezeout']}, "
        f"Python {software['python']}\n"
    )


if __name__ == "__main__":
    sys.exit(main())
