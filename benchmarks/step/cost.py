"""What a training step costs under FreezeOut, as ratios within one run.

Three questions, each with a bar:

a. Attached but nothing frozen, against the plain loop: at most 1.01. ``scheduler.step()`` against
   that of torch's ``CosineAnnealingLR`` on equally many parameter groups: at most 2.
b. With k layers frozen, for every k, against the floor (the same prefix run by hand under
   ``no_grad`` in inference mode, only the rest trained): at most 1.02.
c. Bytes that the frozen prefix saves for backward, and optimizer state held for it: none.

Run it as ``python -m benchmarks.step.cost``; ``--help`` lists the settings. It prints tables,
writes a JSON file, and exits with 0 if every bar holds and with 1 otherwise.

Times: variants take turns step by step in shuffled orders. A step is batch, ``zero_grad``, forward,
backward, ``optimizer.step()`` and ``scheduler.step()``, timed alone, with the device synchronised
at both ends (on a GPU this lays bare the work of the CPU that would otherwise overlap). Figures are
medians of ratios within rounds. On a machine that does other work as well, ``--clock cpu`` counts
the seconds that the processor worked for this process, with far less noise.
"""

from __future__ import annotations

import argparse
import gc
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from torch.optim.lr_scheduler import CosineAnnealingLR

from benchmarks.common.command import (
    add_effort,
    conclude,
    fill_in,
    pick_device,
    positive,
    results_file,
    say,
    threads,
)
from benchmarks.common.machine import about, hardware, load, place, versions
from benchmarks.common.measuring import must_be
from benchmarks.common.ratios import CONFIDENCE, Comparison, Effort, Question, Variant, compare
from benchmarks.step.loops import (
    OPTIMIZER,
    TOTAL_STEPS,
    Holding,
    Settings,
    driven,
    floor_agrees,
    floor_of,
    groups_by_layer,
    holding,
    plain_loop,
    sgd,
    training_step,
)
from freezeout import FreezeOut, split_layers

__all__ = ["Settings", "main"]

ATTACHED_BAR = 1.01
SCHEDULER_BAR = 2.0
FLOOR_BAR = 1.02


# ---------------------------------------------------------------- (a) attached, nothing frozen


def attached(settings: Settings, effort: Effort) -> list[Comparison]:
    """Time FreezeOut on a plain loop, with nothing frozen yet.

    The bar is the tightest, so this may take one look more.
    """
    model = settings.network()
    optimizer = sgd([list(model.parameters())])
    scheduler = FreezeOut(optimizer, model, total_steps=TOTAL_STEPS)
    answers = compare(
        {
            "plain": Variant(plain_loop(settings, by_layer=False)),
            "attached": Variant(training_step(settings, model, optimizer, scheduler)),
            "groups": Variant(plain_loop(settings, by_layer=True)),
        },
        [
            Question("attached / plain loop", "attached", "plain", ATTACHED_BAR),
            Question("attached / plain loop, a group per layer", "attached", "groups"),
            Question("plain loop, a group per layer / plain loop", "groups", "plain"),
        ],
        replace(effort, looks=effort.looks + 1),
        torch.device(settings.device),
    )
    must_be(scheduler.frozen == 0, "nothing may be frozen here")
    return answers


def scheduler_step(settings: Settings, effort: Effort, *, calls: int = 50) -> list[Comparison]:
    """Time ``scheduler.step()`` alone, with equally many parameter groups.

    Before every call an optimizer step without gradients happens outside the clock, so that there
    is progress to act on. No device is involved.
    """
    model = settings.network()
    ours = sgd([list(model.parameters())])
    freeze_out = FreezeOut(ours, model, total_steps=TOTAL_STEPS)
    theirs = sgd(groups_by_layer(split_layers(settings.network())))
    cosine = CosineAnnealingLR(theirs, T_max=TOTAL_STEPS)
    groups = len(theirs.param_groups)
    must_be(len(ours.param_groups) == groups, "both optimizers must hold as many groups")
    answers = compare(
        {
            "FreezeOut": Variant(freeze_out.step, ours.step, calls),
            "CosineAnnealingLR": Variant(cosine.step, theirs.step, calls),
        },
        [
            Question(
                f"scheduler.step() / CosineAnnealingLR.step(), {groups} groups",
                "FreezeOut",
                "CosineAnnealingLR",
                SCHEDULER_BAR,
            )
        ],
        effort,
        torch.device("cpu"),
    )
    must_be(freeze_out.last_epoch == cosine.last_epoch, "both must have advanced alike")
    return answers


# ---------------------------------------------------------------- (b) k layers frozen


def at_depth(settings: Settings, depth: int, effort: Effort) -> list[Comparison]:
    """Time a step with `depth` layers frozen against the floor, and against nothing frozen."""
    subject = driven(settings, depth)
    twin, floor = floor_of(settings, subject)
    must_be(
        floor_agrees(settings, subject, twin, floor),
        f"the floor at depth {depth} must compute the same loss and gradients",
    )
    groups = floor.groups
    if settings.floor_groups == "one":
        groups = [[p for group in groups for p in group]]
    optimizer = sgd(groups)
    scheduler = CosineAnnealingLR(optimizer, T_max=TOTAL_STEPS)
    variants = {
        "frozen": Variant(subject.step),
        "floor": Variant(training_step(settings, floor, optimizer, scheduler)),
    }
    questions = [Question(f"{depth} frozen / floor", "frozen", "floor", FLOOR_BAR, depth)]
    if depth:
        variants["unfrozen"] = Variant(driven(settings, 0).step)
        questions.append(
            Question(f"{depth} frozen / nothing frozen", "frozen", "unfrozen", depth=depth)
        )
    answers = compare(variants, questions, effort, torch.device(settings.device))
    must_be(subject.scheduler.frozen == depth, "the depth must not change under the clock")
    return answers


# ---------------------------------------------------------------- results


def describe_comparison(answer: Comparison) -> dict[str, Any]:
    return {"name": answer.question.name, "depth": answer.question.depth, **answer.described()}


def describe_holding(found: Holding) -> dict[str, Any]:
    return {**asdict(found), "bar": 0, "verdict": "holds" if found.good else "fails"}


def shortcomings(result: dict[str, Any]) -> list[str]:
    """Return one line for every bar that does not hold, or was not decided."""
    return [
        f"{row['name']}: {row['median']:.4f}, bar {row['bar']:g}, {row['verdict']}"
        for row in result["comparisons"]
        if row["verdict"] not in (None, "holds")
    ] + [
        f"{row['depth']} frozen: prefix holds {row['prefix_saved']} bytes for backward, "
        f"{row['prefix_state']} of optimizer state (before: {row['prefix_state_before']}), "
        f"{row['prefix_gradients']} of gradients"
        for row in result["memory"]
        if row["verdict"] != "holds"
    ]


# ---------------------------------------------------------------- tables


COMPARISON_ROW = "{:<52} {:>8} {:>18} {:>6} {:>9} {:>9} {:>5}  {}"
MEMORY_ROW = "{:>6} {:>13} {:>13} {:>13} {:>13} {:>14} {:>13}  {}"


def comparison_line(answer: Comparison) -> str:
    question = answer.question
    above, below = (f"{1e3 * t:.3f}" for t in answer.seconds)
    bar = "" if question.bar is None else f"{question.bar:g}"
    return COMPARISON_ROW.format(
        question.name,
        f"{answer.median:.4f}",
        answer.between,
        answer.rounds,
        above,
        below,
        bar,
        answer.verdict or "",
    ).rstrip()


def memory_line(found: Holding) -> str:
    return MEMORY_ROW.format(
        found.depth,
        f"{found.prefix_saved:,}",
        f"{found.prefix_state:,}",
        f"{found.prefix_state_before:,}",
        f"{found.prefix_gradients:,}",
        f"{found.total_saved:,}",
        f"{found.total_state:,}",
        "holds" if found.good else "fails",
    )


def measure(settings: Settings, effort: Effort, depths: Sequence[int]) -> dict[str, Any]:
    """Measure everything and say each figure as soon as it is known."""
    layers = split_layers(settings.network())
    before = load()
    say("(c) bytes held with k layers frozen")
    above = ("", "saved by", "state of", "state before", "gradients of", "saved", "state", "")
    below = ("k", "prefix", "prefix", "freezing", "prefix", "in all", "in all", "bar 0")
    say(MEMORY_ROW.format(*above).rstrip())
    say(MEMORY_ROW.format(*below))
    memory = []
    for depth in depths:
        memory.append(holding(settings, depth))
        say(memory_line(memory[-1]))
        gc.collect()

    say()
    say(
        f"(a), (b) ratios of times ({effort.clock} clock) within a round; "
        f"intervals of {100 * CONFIDENCE:g} % over all looks"
    )
    heads = ("a / b", "median", "interval", "rounds", "a, ms", "b, ms", "bar", "")
    say(COMPARISON_ROW.format(*heads).rstrip())
    comparisons: list[Comparison] = []
    questions: list[Callable[[], list[Comparison]]] = [
        lambda: scheduler_step(settings, effort),
        lambda: attached(settings, effort),
        *(_asking(settings, depth, effort) for depth in depths),
    ]
    for ask in questions:
        answers = ask()
        comparisons += answers
        for answer in answers:
            say(comparison_line(answer))
        gc.collect()

    result: dict[str, Any] = {
        **about("step_cost", settings.device, before),
        "settings": {
            **asdict(settings),
            "depths": list(depths),
            "optimizer": OPTIMIZER,
        },
        "layers": [
            {"index": layer.index, "name": layer.name, "parameters": layer.num_parameters}
            for layer in layers
        ],
        "statistics": effort.described(),
        "comparisons": [describe_comparison(answer) for answer in comparisons],
        "memory": [describe_holding(found) for found in memory],
    }
    result["shortcomings"] = shortcomings(result)
    result["passed"] = not result["shortcomings"]
    return result


def _asking(settings: Settings, depth: int, effort: Effort) -> Callable[[], list[Comparison]]:
    return lambda: at_depth(settings, depth, effort)


# ---------------------------------------------------------------- command line

FULL = {"model": "wrn-16-2", "image_size": 32, "batch_size": 16, "repeats": 16, "looks": 6}
QUICK = {"model": "resnet-8-4", "image_size": 8, "batch_size": 4, "repeats": 8, "looks": 1}


def arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=(__doc__ or "").partition("\n")[0],
        epilog="Exit status: 0 if every bar holds, 1 if one fails or is undecided.",
    )
    add = parser.add_argument
    add("--model", help=f"a network's name (default: {FULL['model']})")
    add("--image-size", type=positive, help=f"pixels (default: {FULL['image_size']})")
    add("--channels", type=positive, default=3, help="of an image (default: %(default)s)")
    add("--classes", type=positive, default=10, help="number of them (default: %(default)s)")
    add("--batch-size", type=positive, help=f"images (default: {FULL['batch_size']})")
    add("--device", choices=("auto", "cpu", "cuda"), default="auto")
    add("--precision", choices=("fp32", "bf16"), default="fp32")
    add("--threads", type=positive, default=1, help="of torch on the CPU (default: %(default)s)")
    add("--depths", default="all", help="'all', or numbers of frozen layers such as 0,3,7")
    add_effort(add, FULL)
    add(
        "--floor-groups",
        choices=("layer", "one"),
        default="layer",
        help="parameter groups of the floor's optimizer (default: %(default)s)",
    )
    add(
        "--out",
        type=Path,
        help="JSON file (default: results/step_cost-<device>.json beside this script; with "
        "--quick none)",
    )
    add("--quick", action="store_true", help="toy size: shows that it runs, measures nothing")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the benchmark; return the exit status."""
    parser = arguments()
    given = parser.parse_args(argv)
    fill_in(given, QUICK if given.quick else FULL)
    device = pick_device(given.device)
    settings = Settings(
        model=given.model,
        image_size=given.image_size,
        channels=given.channels,
        classes=given.classes,
        batch_size=given.batch_size,
        device=device,
        precision=given.precision,
        floor_groups=given.floor_groups,
        seed=given.seed,
    )
    if device == "cuda" and given.clock == "cpu":
        parser.error("--clock cpu sees no work of a GPU. Leave it out, or choose --device cpu.")
    effort = Effort(given.repeats, given.looks, seed=given.seed, clock=given.clock)
    try:
        depths = parse_depths(given.depths, len(split_layers(settings.network())))
    except ValueError as error:
        parser.error(str(error))
    out = results_file(given.out, f"step_cost-{device}", toy=given.quick)
    with threads(given.threads):
        say(_heading(settings))
        result = measure(settings, effort, depths)
    say()
    return conclude(result, out, indent=2)


def parse_depths(text: str, num_layers: int) -> list[int]:
    """Read numbers of frozen layers from ``"all"`` or a list with commas.

    Raises:
        ValueError: If a number is none, or is out of range.
    """
    if text == "all":
        return list(range(num_layers))
    wrong = (
        f"--depths must be 'all' or numbers from 0 to {num_layers - 1} with commas, got {text!r}. "
        "They count frozen layers; the last layer never freezes."
    )
    try:
        depths = sorted({int(part) for part in text.split(",")})
    except ValueError:
        raise ValueError(wrong) from None
    if depths[0] < 0 or depths[-1] >= num_layers:
        raise ValueError(wrong)
    return depths


def _heading(settings: Settings) -> str:
    where = place(hardware(settings.device), versions(settings.device))
    return (
        f"{settings.model}, batch {settings.batch_size} of {settings.channels} x "
        f"{settings.image_size} x {settings.image_size}, {settings.precision}, "
        f"{settings.device} {where}"
    )


if __name__ == "__main__":
    sys.exit(main())
