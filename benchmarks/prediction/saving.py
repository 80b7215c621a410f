"""Is the saving that `freezeout` predicts before a run the one that a clock then measures?

For each network and schedule: the difference in percentage points between the saving measured over
whole training runs on real data and the one predicted before. The bar: its median over repeats is
at most 3 points.

Run it as ``python -m benchmarks.prediction.saving``; ``--help`` lists the settings. It prints
tables, writes a JSON file after every repeat, and exits with 0 if every bar holds and with 1
otherwise. ``--resume`` goes on with an interrupted run.

A repeat, each with a seed of its own:

1. Predict, as the tool does: the step is measured once, and a `Plan` made for every schedule.
2. Warm up with a run that is thrown away, three steps at each number of frozen layers.
3. Train: one run without freezing and one per schedule, all from the first step to the last. They
   take turns step by step in an order drawn again for every step, so a machine that speeds up or
   slows down meanwhile changes all alike. A step is batch, forward, backward, optimizer and
   scheduler, timed alone, with the device synchronised at both ends (on a GPU this lays bare the
   work of the CPU that would otherwise overlap). Garbage is collected between steps only.

The measured saving is 1 minus the sum of the frozen run's seconds over that of the unfrozen run's.
The robust one puts in place of each step's seconds their median over all steps with as many frozen
layers. The bar is on the first.
"""

from __future__ import annotations

import argparse
import gc
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

from benchmarks.common.command import conclude, fill_in, positive, results_file, say, write_json
from benchmarks.common.machine import place
from benchmarks.prediction.results import (
    BAR,
    Results,
    describe_schedule,
    is_done,
    new_results,
    read,
    summarise,
    taken_up,
)
from benchmarks.prediction.runs import Subject, measure_repeat
from freezeout import FreezeOutError, Schedule
from freezeout.lab.training import Settings, on_machine, prepare
from freezeout.schedule import POWERS, Spacing

__all__ = ["main"]

LEARNING_RATE = 0.02
"""Small batches; scaled rates of early layers are up to 8 times it."""


# ---------------------------------------------------------------- tables

CELL_ROW = "{:<16} {:<12} {:>9} {:>9} {:>7} {:>10} {:>8} {:>7} {:>6}  {}"
MEASURING_ROW = "{:<16} {:>8} {:>7} {:>15}"


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
    """Take the repeats that are not there yet; write after each."""
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
            write_json(results, out, flat=True)
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
    add("--steps", type=positive, help=f"of a training run (default: {FULL['steps']})")
    add("--repeats", type=positive, help=f"each with a new seed (default: {FULL['repeats']})")
    add("--batch-size", type=positive, help=f"images (default: {FULL['batch_size']})")
    add("--data", help=f"data set (default: {FULL['data']})")
    add("--data-dir", help="folder that holds it (default: the user's cache)")
    add("--device", choices=("cpu", "cuda"), default="cpu")
    add("--threads", type=positive, default=1, help="of torch on the CPU (default: %(default)s)")
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
    """Run the benchmark; return the exit status."""
    parser = arguments()
    given = parser.parse_args(argv)
    fill_in(given, QUICK if given.quick else FULL)
    out = results_file(given.out, f"predicted_saving-{given.device}", toy=given.quick)
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
        results = new_results(subject.settings, subject.schedules, models, given.repeats)
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
    if not results["complete"]:
        say("Not complete: go on with --resume.")
    return conclude(results, out, flat=True)


def prepared(given: argparse.Namespace) -> Subject:
    """Prepare data and settings, with as many training images as all steps need in one epoch.

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
    """Read schedules from words such as ``"cubic:0.5,linear:0.8"``.

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


def _heading(results: Results) -> str:
    settings, where = results["settings"], place(results["hardware"], results["versions"])
    return (
        f"{settings['data']}, batch {settings['batch_size']}, {settings['steps']} steps, "
        f"{settings['repeats']} repeat(s), {settings['device']} {where}"
    )


if __name__ == "__main__":
    sys.exit(main())
