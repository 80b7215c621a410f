"""What FreezeOut costs in other trainers while nothing is frozen, as ratios within one run.

For each of Lightning, Hugging Face transformers and Accelerate: the time of a training step with
FreezeOut attached (``t0=1``, so that nothing ever freezes), divided by that without. Lightning and
transformers have the callback or not, and the loop with Accelerate has FreezeOut or torch's cosine
as its scheduler. The bar is 1.02.

Run it as ``python -m benchmarks.stacks.callbacks``; ``--help`` lists the settings. It prints a
table, writes a JSON file, and exits with 0 if every bar holds and with 1 otherwise.

Both loops of a trainer are alive at once and take turns step by step in shuffled orders, each in a
thread that waits for its turn. A step is everything that the trainer does from one batch to the
next. First steps are outside the clock. Figures are medians of ratios within rounds.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import logging
import sys
import warnings
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from benchmarks.common.command import (
    add_effort,
    fill_in,
    positive,
    results_file,
    say,
    threads,
    write_json,
)
from benchmarks.common.machine import about, load
from benchmarks.common.measuring import must_be
from benchmarks.common.ratios import Comparison, Effort, Question, Variant, compare
from benchmarks.stacks.trainers import LOOPS
from benchmarks.step.loops import OPTIMIZER, Settings
from freezeout import FreezeOut

__all__ = ["main"]

BAR = 1.02

FULL = {"model": "wrn-16-2", "image_size": 32, "batch_size": 16, "repeats": 32, "looks": 5}
QUICK = {"model": "resnet-8-4", "image_size": 8, "batch_size": 4, "repeats": 8, "looks": 1}


def overhead(name: str, settings: Settings, effort: Effort) -> Comparison:
    """Compare a trainer with FreezeOut with the same without."""
    (attached, scheduler), (plain, _) = (LOOPS[name](settings, on) for on in (True, False))
    try:
        (answer,) = compare(
            {"attached": Variant(attached.step), "plain": Variant(plain.step)},
            [Question(f"{name}: attached / plain", "attached", "plain", BAR)],
            effort,
            torch.device("cpu"),
        )
        found = scheduler()
        must_be(isinstance(found, FreezeOut), "FreezeOut must be attached")
        # The step that is under way, and is never finished, may have been counted or not.
        steps = answer.rounds + effort.warmup
        must_be(abs(found.last_epoch - steps) <= 1, "every step must be an update, and be counted")
        must_be(found.frozen == 0, "nothing may be frozen here")
    finally:
        attached.close()
        plain.close()
    return answer


def describe(name: str, answer: Comparison) -> dict[str, Any]:
    return {
        "trainer": name,
        "version": importlib.metadata.version(name),
        **answer.described(),
    }


ROW = "{:<14} {:>8} {:>18} {:>7} {:>13} {:>10} {:>5}  {}"


def line(name: str, answer: Comparison) -> str:
    times = (f"{1e3 * seconds:.2f}" for seconds in answer.seconds)
    figures = (f"{answer.median:.4f}", answer.between, answer.rounds, *times, BAR, answer.verdict)
    return ROW.format(name, *figures)


def measure(names: Sequence[str], settings: Settings, effort: Effort) -> dict[str, Any]:
    """Measure each trainer and say each figure as soon as it is known."""
    before = load()
    say(
        ROW.format("trainer", "ratio", "interval", "rounds", "attached, ms", "plain, ms", "bar", "")
    )
    trainers = []
    for name in names:
        answer = overhead(name, settings, effort)
        trainers.append(describe(name, answer))
        say(line(name, answer))
    return {
        **about("callback_overhead", "cpu", before),
        "settings": {
            **asdict(settings),
            "transformers": "GPT-2, six blocks, width 4 and length 2 x image_size, AdamW",
            "optimizer": OPTIMIZER,
        },
        "statistics": effort.described(),
        "trainers": trainers,
        "passed": all(trainer["verdict"] == "holds" for trainer in trainers),
    }


def arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=(__doc__ or "").partition("\n")[0],
        epilog="Exit status: 0 if every bar holds, 1 if one fails or is undecided.",
    )
    add = parser.add_argument
    add("--trainers", nargs="+", choices=LOOPS, default=list(LOOPS), help="(default: all)")
    add("--model", help=f"a network's name (default: {FULL['model']})")
    add("--image-size", type=positive, help=f"pixels (default: {FULL['image_size']})")
    add("--batch-size", type=positive, help=f"images (default: {FULL['batch_size']})")
    add("--threads", type=positive, default=1, help="of torch (default: %(default)s)")
    add_effort(add, FULL)
    add("--out", type=Path, help="JSON file (default: results/callback_overhead-cpu.json)")
    add("--quick", action="store_true", help="toy size: shows that it runs, measures nothing")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the benchmark; return the exit status."""
    given = arguments().parse_args(argv)
    fill_in(given, QUICK if given.quick else FULL)
    settings = Settings(
        model=given.model,
        image_size=given.image_size,
        batch_size=given.batch_size,
        seed=given.seed,
    )
    effort = Effort(given.repeats, given.looks, warmup=5, seed=given.seed, clock=given.clock)
    out = results_file(given.out, "callback_overhead-cpu", toy=given.quick)
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    with threads(given.threads), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # advice of the trainers
        result = measure(given.trainers, settings, effort)
    say("Every bar holds." if result["passed"] else "Not every bar holds.")
    write_json(result, out, indent=2)
    if out is not None:
        say(f"Written to {out}")
    return 0 if result["passed"] else 1


if __name__ == "__main__":
    sys.exit(main())
