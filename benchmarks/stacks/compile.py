"""A whole short training run under ``torch.compile``, every freeze included.

A model that is compiled as a whole is compiled again at every freeze; blocks that are compiled one
by one are not. What that comes to over a run is measured here, compilation included: eager, the
whole model (with few freezes, too), and each block by itself, with freezing and without, on a
network of equal blocks and on one whose blocks differ in shape.

Run it as ``python -m benchmarks.stacks.compile``; ``--help`` lists the settings. It prints tables
and writes a JSON file. Every run has a process of its own, with an empty cache of the compiler; the
compiler itself is loaded and prepared outside the clock. The runs of a network take turns step by
step in shuffled orders, so a machine that speeds up or slows down changes all alike.
"""

from __future__ import annotations

import argparse
import itertools
import multiprocessing
import os
import random
import shutil
import statistics
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch
from torch._dynamo import config as dynamo_config

from benchmarks.common.command import pick_device, positive, results_file, say, write_json
from benchmarks.common.machine import about, load
from benchmarks.common.ratios import CONFIDENCE, median_interval
from benchmarks.stacks.compile_worker import WIDE, Cell, Length, Run, serve, warm_compiler
from benchmarks.step.loops import OPTIMIZER

__all__ = ["against", "cells", "describe", "main"]

FEW = 3


def cells(name: str) -> list[Cell]:
    """Return the ways in which a network is run.

    A limit of more graphs is tried for single blocks that differ in shape: with the usual one
    graphs that would be of use again are dropped.
    """
    return [
        Cell(name, "eager"),
        Cell(name, "whole"),
        Cell(name, "whole", max_freezes=FEW),
        Cell(name, "block"),
        *([] if name.startswith("equal-") else [Cell(name, "block", limit=WIDE)]),
        *(Cell(name, how, freezing=False) for how in ("eager", "whole", "block")),
    ]


@dataclass(frozen=True)
class Plan:
    """What is run: the networks, how long, and how often."""

    networks: tuple[str, ...]
    length: Length
    repeats: int


FULL = Plan(("equal-12-64", "resnet-14"), Length(64, 16, 32, "inductor", "cpu", 0), 1)
TOY = Plan(("equal-2-8",), Length(9, 2, 8, "eager", "cpu", 0), 1)


# ---------------------------------------------------------------- taking turns


class Remote:
    """A run in a process of its own."""

    def __init__(self, cell: Cell, length: Length, cache: Path) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, there = context.Pipe()
        self._process = context.Process(
            target=serve, args=(cell, length, str(cache), there), daemon=True
        )
        self._process.start()
        there.close()

    def ready(self) -> dict[str, Any]:
        """Wait until it can begin; return what is known then."""
        answer: dict[str, Any] = self._pipe.recv()
        return answer

    def step(self) -> dict[str, Any]:
        """Take one step, while nothing else runs."""
        _ask(self._pipe)
        return self.ready()

    def close(self) -> None:
        self._process.kill()
        self._process.join()


def _ask(pipe: Connection) -> None:
    pipe.send(True)


def in_turns(
    ways: Sequence[Cell], length: Length, prepared: Path, seed: int
) -> list[dict[str, Any]]:
    """Run every cell in a process of its own; they take turns step by step."""
    generator = random.Random(seed)
    remotes: list[Remote] = []
    with tempfile.TemporaryDirectory() as folder:
        try:
            about = []
            for position, cell in enumerate(ways):
                cache = Path(folder) / str(position)
                shutil.copytree(prepared, cache)
                remotes.append(Remote(cell, length, cache))
                about.append(remotes[-1].ready())
            taken: list[list[dict[str, Any]]] = [[] for _ in ways]
            for _ in range(length.steps):
                for position in generator.sample(range(len(ways)), len(ways)):
                    taken[position].append(remotes[position].step())
        finally:
            for remote in remotes:
                remote.close()
    return [{**one, "steps": steps} for one, steps in zip(about, taken, strict=True)]


def one_by_one(ways: Sequence[Cell], length: Length) -> list[dict[str, Any]]:
    """Run the toy: every cell in this process, one after another. It measures nothing."""
    found = []
    limit = dynamo_config.recompile_limit
    try:
        for cell in ways:
            warm_compiler(length)
            run = Run(cell, length)
            steps = [run.step() for _ in range(length.steps)]
            run.close()
            layers = len(run.scheduler.layers)
            found.append({"warned": run.warned, "layers": layers, "steps": steps})
            torch.compiler.reset()
    finally:
        dynamo_config.recompile_limit = limit
    return found


def prepare(length: Length, cache: Path) -> None:
    """Fill a cache with what the compiler prepares once for every machine, and nothing else."""
    context = multiprocessing.get_context("spawn")
    process = context.Process(target=_prepare, args=(length, str(cache)))
    process.start()
    process.join()


def _prepare(length: Length, cache: str) -> None:
    os.environ["TORCHINDUCTOR_CACHE_DIR"] = cache
    torch.set_num_threads(1)
    warm_compiler(length)


# ---------------------------------------------------------------- what came out


def describe(cell: Cell, found: Mapping[str, Any]) -> dict[str, Any]:
    """Describe a run in figures: its seconds, those of steps that compiled, and its graphs."""
    steps = found["steps"]
    compiled = [s["seconds"] for s in steps if s["graphs"]]
    steady = [s["seconds"] for s in steps if not s["graphs"]]
    return {
        **asdict(cell),
        "name": cell.name,
        "seconds": sum(compiled) + sum(steady),
        "compiling_seconds": sum(compiled),
        "compiling_steps": len(compiled),
        "first_step_seconds": steps[0]["seconds"],
        "steady_seconds": sum(steady),
        "steady_step_seconds": sum(steady) / len(steady) if steady else None,
        "graphs": sum(s["graphs"] for s in steps),
        "freezes": sum(b["frozen"] > a["frozen"] for a, b in itertools.pairwise(steps)),
        "frozen": steps[-1]["frozen"],
        "limit_hit": steps[-1]["limit_hit"],
        "warned": found["warned"],
        "losses": [s["loss"] for s in steps],
        "step_seconds": [s["seconds"] for s in steps],
        "step_graphs": [s["graphs"] for s in steps],
    }


def compared(rows: list[dict[str, Any]]) -> None:
    """Add to each run what it is relative to the eager run with freezing, steps paired."""
    eager = next(row for row in rows if row["how"] == "eager" and row["freezing"])
    for row in rows:
        pairs = [mine / theirs for mine, theirs in _uncompiled(row, eager)]
        interval = median_interval(pairs, CONFIDENCE)
        row["total_ratio"] = row["seconds"] / eager["seconds"]
        row["step_ratio"] = statistics.median(pairs) if pairs else None
        row["step_ratio_interval"] = None if interval is None else list(interval)
        row["even_after_steps"] = _even_after(row, eager)
        row["largest_loss_difference"] = (
            max(abs(a - b) for a, b in zip(row["losses"], eager["losses"], strict=True))
            if row["freezing"] and row["max_freezes"] is None
            else None
        )


def _uncompiled(row: Mapping[str, Any], eager: Mapping[str, Any]) -> list[tuple[float, float]]:
    """Return the seconds of steps that compiled nothing, each with the eager run's step."""
    steps = zip(row["step_seconds"], eager["step_seconds"], row["step_graphs"], strict=True)
    return [(mine, theirs) for mine, theirs, graphs in steps if not graphs]


def _even_after(row: Mapping[str, Any], eager: Mapping[str, Any]) -> int | None:
    """Return the steps of a run frozen at the same fractions after which compiling has paid.

    Computed, not measured: compilation costs the same in a longer run, and every other step as much
    as on average here. ``None`` where a step is no faster, or nothing was compiled.
    """
    pairs = _uncompiled(row, eager)
    if not row["graphs"] or not pairs:
        return None
    gain = sum(theirs - mine for mine, theirs in pairs) / len(pairs)
    return round(row["compiling_seconds"] / gain) if gain > 0 else None


def merged(repeats: list[list[dict[str, Any]]]) -> list[dict[str, Any]]:
    """Return medians over repeats of every figure; the steps are those of the first."""
    if len(repeats) == 1:
        return repeats[0]
    kept = ("seconds", "compiling_seconds", "steady_seconds", "total_ratio", "step_ratio")
    rows = []
    for same in zip(*repeats, strict=True):
        medians = {name: statistics.median(row[name] for row in same) for name in kept}
        rows.append({**same[0], **medians, "repeats": {n: [r[n] for r in same] for n in kept}})
    return rows


def against(networks: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return what the figures say against compiling, against freezing, or against both."""
    lines = []
    for one in networks:
        rows = {(row["name"], row["freezing"]): row for row in one["runs"]}
        eager = rows["eager", True]
        for row in one["runs"]:
            what = f"{one['network']}, {row['name']}{'' if row['freezing'] else ', no freezing'}"
            if row["graphs"] and row["seconds"] > eager["seconds"]:
                even = row["even_after_steps"]
                when = "never" if even is None else f"after {even:,} steps (computed)"
                lines.append(
                    f"{what}: {row['total_ratio']:.1f} times as long as eager over this run; "
                    f"even {when}"
                )
            if row["limit_hit"]:
                lines.append(f"{what}: the limit of graphs was hit, the rest ran uncompiled")
            plain = rows.get((row["name"], False))
            if row["freezing"] and plain and row["seconds"] > plain["seconds"]:
                lines.append(
                    f"{what}: freezing costs more than it saves here, {row['seconds']:.1f} s "
                    f"against {plain['seconds']:.1f} s without"
                )
    return lines


# ---------------------------------------------------------------- tables

ROW = "{:<24} {:>8} {:>8} {:>8} {:>10} {:>8} {:>7} {:>6} {:>8} {:>18} {:>9}"


def table(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the runs of a network as lines."""
    heads = ("total, s", "/ eager", "compile", "others, s", "graphs", "freezes", "limit")
    lines = [ROW.format("", "", *heads, "step / eager", "even at")]
    for row in rows:
        ends = row["step_ratio_interval"]
        ratio = "-" if row["step_ratio"] is None else f"{row['step_ratio']:.2f}"
        lines.append(
            ROW.format(
                row["name"],
                "freezing" if row["freezing"] else "none",
                f"{row['seconds']:.2f}",
                f"{row['total_ratio']:.2f}",
                f"{row['compiling_seconds']:.2f}",
                f"{row['steady_seconds']:.2f}",
                row["graphs"],
                row["freezes"],
                "hit" if row["limit_hit"] else "-",
                ratio if ends is None else f"{ratio} ({ends[0]:.2f}-{ends[1]:.2f})",
                "-" if row["even_after_steps"] is None else f"{row['even_after_steps']:,}",
            )
        )
    return lines


# ---------------------------------------------------------------- command line


def arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    add = parser.add_argument
    add("--networks", help=f"with commas (default: {','.join(FULL.networks)})")
    add("--steps", type=positive, help=f"of a run (default: {FULL.length.steps})")
    add("--batch-size", type=positive, help=f"images (default: {FULL.length.batch_size})")
    add("--repeats", type=positive, help=f"runs of each way (default: {FULL.repeats})")
    add("--backend", help=f"of torch.compile (default: {FULL.length.backend})")
    add("--device", choices=("auto", "cpu", "cuda"), default="auto")
    add("--seed", type=int, default=0)
    add("--toy", action="store_true", help="one process, tiny: shows that it runs")
    add(
        "--out", type=Path, help="JSON file (default: results/compile_run-<device>.json; toy: none)"
    )
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the benchmark; return the exit status."""
    given = arguments().parse_args(argv)
    plan = TOY if given.toy else FULL
    device = pick_device(given.device)
    length = replace(
        plan.length,
        steps=given.steps or plan.length.steps,
        batch_size=given.batch_size or plan.length.batch_size,
        backend=given.backend or plan.length.backend,
        device=device,
        seed=given.seed,
    )
    names = tuple(given.networks.split(",")) if given.networks else plan.networks
    os.environ["TORCHINDUCTOR_COMPILE_THREADS"] = "1"  # helpers would run in others' turns
    os.environ["OMP_NUM_THREADS"] = "1"
    plan = Plan(names, length, given.repeats or plan.repeats)
    out = results_file(given.out, f"compile_run-{device}", toy=given.toy)
    before = load()
    networks = []
    with tempfile.TemporaryDirectory() as folder:
        prepared = Path(folder) / "cache"
        prepared.mkdir()
        if not given.toy:
            prepare(length, prepared)
        for name in names:
            networks.append(measure(name, plan, None if given.toy else prepared))
            write_json(results(networks, plan, before), out)  # after each: a run takes minutes
    for line in against(networks):
        say(f"against: {line}")
    if out is not None:
        say(f"Written to {out}")
    return 0


def measure(name: str, plan: Plan, prepared: Path | None) -> dict[str, Any]:
    """Run a network in every way and say the table; without a cache, as the toy does."""
    ways = cells(name)
    repeats = []
    for repeat in range(plan.repeats):
        found = (
            one_by_one(ways, plan.length)
            if prepared is None
            else in_turns(ways, plan.length, prepared, plan.length.seed + repeat)
        )
        repeats.append([describe(cell, one) for cell, one in zip(ways, found, strict=True)])
        compared(repeats[-1])
    rows = merged(repeats)
    length = plan.length
    say(f"{name}: {length.steps} steps of {length.batch_size} images, {length.backend}")
    for line in table(rows):
        say(line)
    say()
    return {"network": name, "layers": found[0]["layers"], "runs": rows}


def results(
    networks: Sequence[Mapping[str, Any]], plan: Plan, load_before: float | None
) -> dict[str, Any]:
    """Return what is written: the networks measured so far, on what, and how."""
    device = plan.length.device
    return {
        **about("compile_run", device, load_before, threads=1),
        "settings": {
            **asdict(plan.length),
            "networks": list(plan.networks),
            "repeats": plan.repeats,
            "t0": 0.5,
            "spacing": "cubic",
            "optimizer": OPTIMIZER,
        },
        "statistics": {
            "total": "plain sum of the seconds of all steps, compilation included",
            "step_ratio": "median over steps that compiled nothing, each against the eager run's "
            "step of the same number",
            "interval": "order statistics of the median (binomial)",
            "confidence": CONFIDENCE,
        },
        "networks": list(networks),
        "against": against(networks),
    }


if __name__ == "__main__":
    sys.exit(main())
