"""What freezing saves in the examples of trainers, whole runs, as ratios within one run.

Each of the examples for Lightning, Hugging Face transformers and Accelerate is run as its page
says, with freezing and with ``--t0 1``, which freezes nothing. A run has a process of its own, and
says the seconds that the processor trained, and how good the result is.

Run it as ``python -m benchmarks.stacks.examples``; ``--help`` lists the settings. It prints a
table and writes a JSON file.

The runs of an example take turns in shuffled orders, after a short round that is not counted. A
figure is the median of the ratios within rounds. Seeds are the examples' own, so that only times
differ from round to round.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import os
import re
import statistics
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.common.command import positive, results_file, say, write_json
from benchmarks.common.machine import about, load
from benchmarks.common.measuring import must_be
from benchmarks.common.ratios import CONFIDENCE, median_interval, orders, paired

__all__ = ["EXAMPLES", "Example", "Run", "main", "parse"]

SCRIPTS = Path(__file__).parents[2] / "examples"

NOTHING = "1"
"""The ``t0`` at which nothing freezes."""

REPEATS = 7

SAID = re.compile(
    r"^(\d+) layers frozen, (?:test accuracy )?([\d.]+) (%|bits per character), "
    r"([\d.]+) s of the processor$",
    re.M,
)
"""The last line of an example."""


@dataclass(frozen=True)
class Example:
    """A script, and how it is run.

    Attributes:
        script: Its name.
        t0: What it is run with, beside `NOTHING`.
        length: Its option for the length of a run.
        full: That length.
        toy: A length at which something freezes and nothing is measured.
    """

    script: str
    t0: tuple[str, ...]
    length: str
    full: int
    toy: int


EXAMPLES = {
    "lightning": Example("lightning_digits.py", ("0.5",), "--epochs", 8, 1),
    "transformers": Example("transformers_text.py", ("0.8", "0.5"), "--steps", 300, 8),
    "accelerate": Example("accelerate_digits.py", ("0.5",), "--epochs", 8, 1),
}


@dataclass(frozen=True)
class Run:
    """What a run said in the end."""

    frozen: int
    quality: float
    unit: str
    seconds: float


def parse(output: str) -> Run:
    """Read the last line of an example.

    Raises:
        ValueError: If there is no such line, or more than one.
    """
    found = SAID.findall(output)
    if len(found) != 1:
        raise ValueError(
            f"an example must end with one line of layers, quality and seconds, got {len(found)} "
            f"of them in {output[-300:]!r}. Look at its last print()."
        )
    frozen, quality, unit, seconds = found[0]
    return Run(int(frozen), float(quality), unit, float(seconds))


def run(example: Example, t0: str, length: int) -> Run:
    """Run an example in a process of its own, with one thread.

    Raises:
        RuntimeError: If it fails.
    """
    words = [str(SCRIPTS / example.script), "--t0", t0, example.length, str(length)]
    done = subprocess.run(
        [sys.executable, *words],
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"},
    )
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(words)} failed:\n{done.stderr[-2000:]}")
    return parse(done.stdout)


def in_turns(example: Example, length: int, repeats: int, seed: int) -> dict[str, list[Run]]:
    """Run at every ``t0``, one of each in a round."""
    ways = (NOTHING, *example.t0)
    for t0 in ways:  # what the first process reads from disk, the next ones find in memory
        run(example, t0, example.toy)
    found: dict[str, list[Run]] = {t0: [] for t0 in ways}
    order = orders(len(ways), seed)
    for _ in range(repeats):
        for position in next(order):
            found[ways[position]].append(run(example, ways[position], length))
    for t0, runs in found.items():
        must_be(
            all((one.frozen > 0) is (t0 != NOTHING) for one in runs),
            "layers must freeze, but for t0 = 1",
        )
    return found


def describe(
    name: str, example: Example, length: int, found: dict[str, list[Run]]
) -> dict[str, Any]:
    plain = found[NOTHING]
    rows = []
    for t0, runs in found.items():
        ratios = paired([one.seconds for one in runs], [one.seconds for one in plain])
        interval = median_interval(ratios, CONFIDENCE)
        rows.append(
            {
                "t0": float(t0),
                "frozen": runs[0].frozen,
                "quality": statistics.median(one.quality for one in runs),
                "seconds": [one.seconds for one in runs],
                "median_seconds": statistics.median(one.seconds for one in runs),
                "ratio": statistics.median(ratios),
                "ratios": ratios,
                "interval": None if interval is None else list(interval),
            }
        )
    return {
        "trainer": name,
        "version": importlib.metadata.version(name),
        "script": example.script,
        "length": f"{length} {example.length.removeprefix('--')}",
        "unit": plain[0].unit,
        "rows": rows,
    }


def against(examples: Sequence[dict[str, Any]]) -> list[str]:
    """Return what the figures say against freezing."""
    lines = []
    for one in examples:
        plain, *rest = one["rows"]
        more_is_better = one["unit"] == "%"
        for row in rest:
            what = f"{one['trainer']}, t0 = {row['t0']}"
            if row["interval"] is None or row["interval"][1] >= 1:
                lines.append(f"{what}: no clear saving of time")
            lost = plain["quality"] - row["quality"]
            if (lost if more_is_better else -lost) > 0:
                lines.append(
                    f"{what}: ends worse, {row['quality']} {one['unit']} against "
                    f"{plain['quality']} with nothing frozen"
                )
    return lines


ROW = "{:<14} {:>5} {:>7} {:>9} {:>7} {:>16} {:>9} {}"


def table(one: dict[str, Any]) -> list[str]:
    """Return an example's rows as lines."""
    lines = []
    for row in one["rows"]:
        ends = row["interval"]
        lines.append(
            ROW.format(
                one["trainer"],
                f"{row['t0']:g}",
                row["frozen"],
                f"{row['median_seconds']:.2f}",
                f"{row['ratio']:.2f}",
                "-" if ends is None else f"{ends[0]:.2f} - {ends[1]:.2f}",
                row["quality"],
                one["unit"],
            )
        )
    return lines


def results(
    examples: Sequence[dict[str, Any]], repeats: int, seed: int, before: float | None
) -> dict[str, Any]:
    """Return what is written: the examples measured so far, on what, and how."""
    return {
        **about("examples", "cpu", before, threads=1),
        "settings": {"repeats": repeats, "order_seed": seed, "seeds": "those of the examples: one"},
        "statistics": {
            "figure": "median of the ratios of processor seconds within a round",
            "interval": "order statistics of the median (binomial), no distribution assumed",
            "confidence": CONFIDENCE,
        },
        "examples": list(examples),
        "against": against(examples),
    }


def arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    add = parser.add_argument
    add("--trainers", nargs="+", choices=EXAMPLES, default=list(EXAMPLES), help="(default: all)")
    add(
        "--repeats",
        type=positive,
        help=f"rounds; an interval needs 6 (default: {REPEATS}; toy: 1)",
    )
    add("--seed", type=int, default=0, help="of the orders (default: %(default)s)")
    add("--toy", action="store_true", help="tiny runs: shows that it works, measures nothing")
    add("--out", type=Path, help="JSON file (default: results/examples-cpu.json; toy: none)")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the benchmark; return the exit status."""
    given = arguments().parse_args(argv)
    repeats = given.repeats or (1 if given.toy else REPEATS)
    out = results_file(given.out, "examples-cpu", toy=given.toy)
    before = load()
    say(ROW.format("trainer", "t0", "frozen", "s", "ratio", "interval", "quality", "").rstrip())
    examples = []
    for name in given.trainers:
        example = EXAMPLES[name]
        length = example.toy if given.toy else example.full
        found = in_turns(example, length, repeats, given.seed)
        examples.append(describe(name, example, length, found))
        for line in table(examples[-1]):
            say(line)
        # after each example: all take minutes
        write_json(results(examples, repeats, given.seed, before), out)
    for line in against(examples):
        say(f"against: {line}")
    if out is not None:
        say(f"Written to {out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
