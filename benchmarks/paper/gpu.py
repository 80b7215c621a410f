"""Does freezing pay on a GPU, at the paper's scale? Run in pieces of under ten minutes.

Per network and data set: the baseline, the paper's recommended schedule (cubic, t0 = 0.8, scaled),
and a baseline shortened to the time of that schedule, with paired seeds, at the paper's protocol:
batch 50, 100 epochs, SGD with Nesterov momentum, rate 0.1. The arms of a seed take turns on the
device, a hundredth of a run at a time.

``python -m benchmarks.paper.gpu --data-dir DATA`` does one piece and ends; the same line goes on
where it stopped. Each cell is an experiment of ``freezeout sweep`` in a folder of its own, and one
is brought to its end before the next begins. Options of ``sweep`` that are not listed here, such
as ``--data-dir``, ``--device``, ``--processes`` and ``--retry``, are passed on to it. ``--epochs``,
``--batch-size`` and ``--precision`` fit the set into a smaller budget; the names of the cells then
say so.

Without its ``*.pt`` files the folder is small and has all finished runs: on a machine that has
only such a copy, the same line goes on, and begins again what was not finished.

``python -m benchmarks.paper.gpu --summarise FOLDER...`` compares the finished runs in folders and
writes ``results/paper_gpu.json``, with the tables beside it as CSV. Of a run that is in several
folders, such as those of several machines, the first counts.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import tomli_w

from benchmarks.common.command import RESULTS, positive, say, write_json
from benchmarks.common.machine import now
from benchmarks.paper.tables import markdown
from freezeout.errors import FreezeOutError
from freezeout.lab.cli import main as freezeout
from freezeout.lab.evidence import Comparison, RunRecord, compare, comparison_csv, comparison_rows
from freezeout.lab.experiments import read_run
from freezeout.lab.training import RunFolder
from freezeout.storage import write_text

__all__ = ["CELLS", "main"]

CELLS: dict[str, dict[str, Any]] = {
    "wrn-cifar100": {"model": "wrn-40-4", "data": "cifar100"},
    "densenet-cifar10": {"model": "densenet-76-12", "data": "cifar10"},
    "vgg-cifar100": {"model": "vgg16", "data": "cifar100"},
    "wrn-cifar10": {"model": "wrn-40-4", "data": "cifar10"},
    "densenet-cifar100": {"model": "densenet-76-12", "data": "cifar100"},
    "vgg-cifar10": {"model": "vgg16", "data": "cifar10"},
}
"""What is compared within, in the order in which it is run: first what the paper has numbers of."""

EPOCHS = 100
"""The paper's."""

TESTS = 10
"""Tests in a run. They are outside the clock of the training steps, but take time of the piece."""

MARGIN = 0.75
"""Minutes of a piece that are kept free, for loading and for saving at the end."""

STOPPED = 130
"""The exit status of a piece that was stopped with all saved."""

_STOPS = (STOPPED, 143)
"""Those of ``freezeout sweep``, by ``SIGINT`` or its time and by ``SIGTERM``."""


# ---------------------------------------------------------------- one piece


def sweep_file(name: str, cell: Mapping[str, Any], given: argparse.Namespace) -> Path:
    """Write what there is to run in a cell as a sweep file; return its path."""
    wanted = {n: getattr(given, n) for n in ("epochs", "batch_size", "precision")}
    budget = {n: [value] for n, value in wanted.items() if value is not None}
    values = {
        "preset": "paper",
        "device": "cuda",
        "threads": 2,  # on a GPU the backward pass is launched from a thread of its own
        "evaluate_every": max(1, (given.epochs or EPOCHS) // TESTS),
        **cell,
        "grid": {**budget, "seed": list(range(given.seeds))},  # what is here is in the cell's name
        "arms": {"equal_time": True, "turns": True},
    }
    file: Path = given.out / f"{name}.toml"
    file.parent.mkdir(parents=True, exist_ok=True)
    write_text(file, tomli_w.dumps(values))
    return file


def piece(
    given: argparse.Namespace, passed: Sequence[str], cells: Mapping[str, Mapping[str, Any]]
) -> int:
    """Do what is left, cell by cell, until the time is over; return the exit status."""
    begun = time.monotonic()
    minutes = given.minutes - min(MARGIN, given.minutes / 4)
    status = 0
    for name in given.cells:
        left = minutes - (time.monotonic() - begun) / 60
        if left <= 0:
            say(f"{name} is not begun: the time is over.")
            return STOPPED
        folder = given.out / name
        say(f"\n{name}:")
        words = ["--out", str(folder), "--minutes", str(left), "--drop-checkpoints", *passed]
        code = freezeout(["sweep", str(sweep_file(name, cells[name], given)), *words])
        if code in _STOPS or (code and not (folder / "experiment.json").is_file()):
            return code
        status = max(status, code)  # a cell in which something failed does not hold up the others
    return status


# ---------------------------------------------------------------- together


def finished_runs(folders: Sequence[Path]) -> tuple[dict[Path, RunRecord], int]:
    """Read the finished runs below some folders, each once; and count all others."""
    found: dict[Path, RunRecord] = {}
    seen = set()
    others = 0
    for folder in folders:
        for file in sorted(folder.rglob("settings.toml")):
            record = read_run(file.parent, file.parent.relative_to(folder).as_posix())
            key = (record.cell, record.arm, record.seed)
            if record.finished and key not in seen:
                seen.add(key)
                found[file.parent] = record
            else:
                others += 1
    return found, others


_LEFT_OUT = ("layer_names", "rate_steps", "rates", "step_times", "memory")
"""What a record has for figures alone: long, and no part of a comparison."""

_NOT_KEPT = ("data_dir", "device", "checkpoint_minutes")
"""Settings that say nothing of the training."""


def summary(records: Mapping[Path, RunRecord], comparisons: Sequence[Comparison]) -> dict[str, Any]:
    """Describe runs and what they say together; equal places are described once."""
    places: list[dict[str, Any]] = []
    runs = []
    for path, record in records.items():
        place = json.loads((path / "summary.json").read_text(encoding="utf-8"))["hardware"]
        if place not in places:
            places.append(place)
        by_depth: dict[int, list[float]] = {}
        for one in record.step_times:
            by_depth.setdefault(one.frozen, []).append(one.seconds)
        settings = RunFolder(path).settings().to_dict()
        runs.append(
            {
                **{name: v for name, v in asdict(record).items() if name not in _LEFT_OUT},
                "step_seconds": [[k, statistics.median(s)] for k, s in sorted(by_depth.items())],
                "settings": {name: v for name, v in settings.items() if name not in _NOT_KEPT},
                "place": places.index(place),
            }
        )
    tables = []
    for comparison in comparisons:
        columns, rows = comparison_rows(comparison)
        tables.append(
            {
                "cell": comparison.cell,
                "level": comparison.level,
                "margin": comparison.margin,
                "arms": [dict(zip(columns, row, strict=True)) for row in rows],
                "verdicts": [verdict.sentence for verdict in comparison.verdicts],
                "notes": list(comparison.notes),
            }
        )
    about = {"benchmark": "paper_gpu", "format": 2, "date": now()}
    return {**about, "places": places, "comparisons": tables, "runs": runs}


def summarise(folders: Sequence[Path], out: Path) -> None:
    """Compare the runs in folders and write what they say.

    Raises:
        ValueError: If there is no finished run, or one that cannot be read.
    """
    if out.suffix != ".json":
        raise ValueError(f"--results must end with .json, got {out}. The tables go beside it.")
    try:
        records, others = finished_runs(folders)
    except (FreezeOutError, KeyError, TypeError) as error:
        raise ValueError(f"a run cannot be read: {error}. Delete or fix its folder.") from error
    if not records:
        names = ", ".join(map(str, folders))
        raise ValueError(f"no finished run in {names}. Give folders that --out named.")
    comparisons = compare(list(records.values()))
    write_json(summary(records, comparisons), out, flat=True)
    write_text(out.with_suffix(".csv"), comparison_csv(comparisons))
    say(markdown(comparisons))
    for verdict in (verdict for one in comparisons for verdict in one.verdicts):
        say(verdict.sentence)
    say(f"\n{len(records)} runs; {others} not finished or there already")
    say(f"Written to {out} and {out.with_suffix('.csv').name}")


# ---------------------------------------------------------------- command line


def arguments(cells: Mapping[str, Mapping[str, Any]]) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.paper.gpu",
        description=(__doc__ or "").partition("\n")[0],
        epilog="Other options go to freezeout sweep, whose exit status this has: 0 if nothing is "
        "left, 2 if a run failed or the input is bad, 130 if it was stopped with all saved.",
        allow_abbrev=False,
    )

    def names(text: str) -> list[str]:
        found = list(dict.fromkeys(name.strip() for name in text.split(",")))
        for name in found:
            if name not in cells:
                raise argparse.ArgumentTypeError(
                    f"must be names with commas, out of {', '.join(cells)}, got {name!r}"
                )
        return found

    add = parser.add_argument
    add("--cells", type=names, default=list(cells), help="in this order (default: all)")
    add("--seeds", type=positive, default=3, help="in each cell (default: %(default)s)")
    add("--epochs", type=positive, help=f"(default: the paper's {EPOCHS})")
    add("--batch-size", type=positive, help="(default: the paper's 50); the rate stays")
    add("--precision", help="(default: fp32)")
    add("--minutes", type=_minutes, default=9.0, help="of a piece, in all (default: %(default)g)")
    add("--out", type=Path, metavar="DIR", default=Path("runs") / "paper_gpu")
    add("--summarise", type=Path, nargs="+", metavar="DIR", help="run nothing: compare")
    add("--results", type=Path, metavar="FILE", default=RESULTS / "paper_gpu.json")
    return parser


def main(
    argv: Sequence[str] | None = None, *, cells: Mapping[str, Mapping[str, Any]] = CELLS
) -> int:
    """Run the benchmark; return the exit status.

    Args:
        argv: The command line.
        cells: Settings of the cells by name, over the paper's protocol.
    """
    parser = arguments(cells)
    given, passed = parser.parse_known_args(argv)
    if given.summarise is None:
        return piece(given, passed, cells)
    if passed:
        parser.error(f"--summarise runs nothing: leave out {' '.join(passed)}.")
    try:
        summarise(given.summarise, given.results)
    except ValueError as error:
        parser.error(" ".join(str(error).split()))
    return 0


def _minutes(text: str) -> float:
    value = float(text)
    if not 0 < value < 1e6:
        raise argparse.ArgumentTypeError(f"must be above 0 and finite, got {text}")
    return value


if __name__ == "__main__":
    sys.exit(main())
