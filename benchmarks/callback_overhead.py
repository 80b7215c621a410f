"""What FreezeOut costs in other trainers while nothing is frozen, as ratios within one run.

For each of Lightning, Hugging Face transformers and Accelerate: the time of a training step with
FreezeOut attached (``t0=1``, so that nothing ever freezes), divided by that without. Lightning and
transformers have the callback or not, and the loop with Accelerate has FreezeOut or torch's cosine
as its scheduler. The bar is 1.02.

Run it as ``python benchmarks/callback_overhead.py``; ``--help`` lists the settings. It prints a
table, writes a JSON file, and exits with 0 if every bar holds and with 1 otherwise.

Both loops of a trainer are alive at once and take turns step by step in shuffled orders, each in a
thread that waits for its turn. A step is everything that the trainer does from one batch to the
next. First steps are outside the clock. Figures are medians of ratios within rounds.
"""

from __future__ import annotations

import argparse
import datetime
import importlib.metadata
import json
import logging
import sys
import warnings
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from freezeout import FreezeOut
from machine import hardware, load, versions
from ratios import CONFIDENCE, Comparison, Effort, Question, Variant, compare
from stepped import LOOPS
from steps import Settings, must_be

__all__ = ["main"]

BAR = 1.02

RESULTS = Path(__file__).parent / "results"

FULL = {"model": "wrn-16-2", "image_size": 32, "batch_size": 16, "repeats": 32, "looks": 5}
QUICK = {"model": "resnet-8-4", "image_size": 8, "batch_size": 4, "repeats": 8, "looks": 1}


def overhead(name: str, settings: Settings, effort: Effort) -> Comparison:
    """A trainer with FreezeOut against the same without."""
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
        "median": answer.median,
        "interval": None if answer.low is None else [answer.low, answer.high],
        "level": answer.level,
        "rounds": answer.rounds,
        "seconds": {"attached": answer.seconds[0], "plain": answer.seconds[1]},
        "bar": BAR,
        "verdict": answer.verdict,
    }


def say(text: str = "") -> None:
    print(text, flush=True)


ROW = "{:<14} {:>8} {:>18} {:>7} {:>13} {:>10} {:>5}  {}"


def line(name: str, answer: Comparison) -> str:
    interval = "-" if answer.low is None else f"{answer.low:.4f} - {answer.high:.4f}"
    above, below = (f"{1e3 * seconds:.2f}" for seconds in answer.seconds)
    return ROW.format(
        name, f"{answer.median:.4f}", interval, answer.rounds, above, below, BAR, answer.verdict
    )


def measure(names: Sequence[str], settings: Settings, effort: Effort) -> dict[str, Any]:
    """Measures each trainer and says each figure as soon as it is known."""
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
        "benchmark": "callback_overhead",
        "format": 1,
        "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "hardware": {**hardware("cpu"), "load": {"before": before, "after": load()}},
        "versions": versions("cpu"),
        "settings": {
            **asdict(settings),
            "transformers": "GPT-2, six blocks, width 4 and length 2 x image_size, AdamW",
            "optimizer": "SGD, Nesterov momentum 0.9, weight decay 5e-4",
        },
        "statistics": {
            **asdict(effort),
            "figure": "median of the ratios of times within a round",
            "interval": "order statistics of the median (binomial), no distribution assumed",
            "confidence_of_all_looks": CONFIDENCE,
        },
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
    add("--image-size", type=_positive, help=f"pixels (default: {FULL['image_size']})")
    add("--batch-size", type=_positive, help=f"images (default: {FULL['batch_size']})")
    add("--threads", type=_positive, default=1, help="of torch (default: %(default)s)")
    add(
        "--repeats",
        type=_positive,
        help="rounds before the interval is first looked at; they double while it is undecided "
        f"(default: {FULL['repeats']})",
    )
    add("--looks", type=_positive, help=f"most looks (default: {FULL['looks']})")
    add("--seed", type=int, default=0)
    add(
        "--clock",
        choices=("wall", "cpu"),
        default="wall",
        help="seconds that went by, or that the processor worked (default: %(default)s)",
    )
    add("--out", type=Path, help="JSON file (default: results/callback_overhead-cpu.json)")
    add("--quick", action="store_true", help="toy size: shows that it runs, measures nothing")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the benchmark; returns the exit status."""
    given = arguments().parse_args(argv)
    for name, value in (QUICK if given.quick else FULL).items():
        if getattr(given, name) is None:
            setattr(given, name, value)
    settings = Settings(
        model=given.model,
        image_size=given.image_size,
        batch_size=given.batch_size,
        seed=given.seed,
    )
    effort = Effort(given.repeats, given.looks, warmup=5, seed=given.seed, clock=given.clock)
    out: Path | None = given.out
    if out is None and not given.quick:
        out = RESULTS / "callback_overhead-cpu.json"

    threads = torch.get_num_threads()
    torch.set_num_threads(given.threads)
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # advice of the trainers
            result = measure(given.trainers, settings, effort)
    finally:
        torch.set_num_threads(threads)
    say("Every bar holds." if result["passed"] else "Not every bar holds.")
    if out is not None:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(json.dumps(result, indent=2) + "\n")
        say(f"Written to {out}")
    return 0 if result["passed"] else 1


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, got {value}")
    return value


if __name__ == "__main__":
    sys.exit(main())
