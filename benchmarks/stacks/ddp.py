"""What freezing saves where several processes train together, as ratios within one run.

1. ``DistributedDataParallel``: at every number of frozen layers, the gradient elements and buffer
   elements that are exchanged, and the step time as a ratio to the unfrozen step; beside it two
   ways without FreezeOut, ``find_unused_parameters=True`` and a new wrapper, and the step without
   any exchange.
2. What following a freeze costs: the freeze itself, and the slower steps after it.
3. ``fully_shard`` (FSDP2): the same, with and without ``keep_unsharded``.

Run it as ``python -m benchmarks.stacks.ddp``; ``--help`` lists the settings. It starts the
processes, prints tables and writes a JSON file. It exits with 0 if exactly the gradients of what
still learns were exchanged at every depth, and with 1 otherwise. Elements are counted twice, by a
communication hook and among the collective operations that PyTorch runs; times are taken without
either.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from benchmarks.common import command
from benchmarks.common.command import pick_device, positive, results_file, write_json
from benchmarks.common.machine import about, load
from benchmarks.common.ratios import CONFIDENCE
from benchmarks.stacks.ddp_runs import Rounds, data_parallel, mlp, rebuild_cost, sharded
from benchmarks.stacks.processes import Place, run_joined
from benchmarks.step.loops import OPTIMIZER, Settings
from freezeout import split_layers

__all__ = ["Plan", "against", "main"]


@dataclass(frozen=True)
class Plan:
    """What is measured.

    Attributes:
        networks: Names, each with its image size and the images of a process.
        size: Width and hidden layers of the network of the sharded part.
        batch: Images of a process in the sharded part.
        rounds: Steps of each variant at each depth.
        repeats: Freezes whose cost is measured.
        seed: Of weights, data and orders.
    """

    networks: tuple[tuple[str, int, int], ...]
    size: tuple[int, int]
    batch: int
    rounds: int
    repeats: int
    seed: int

    def settings(self, name: str, image_size: int, batch_size: int) -> Settings:
        """Return the settings of one network."""
        return Settings(
            model=name, image_size=image_size, batch_size=batch_size, seed=self.seed, device="cpu"
        )


FULL = Plan((("wrn-16-2", 32, 8), ("vgg11-64", 32, 4)), (1024, 6), 16, 16, 8, 0)
TOY = Plan((("resnet-8-4", 8, 2),), (16, 2), 2, 2, 1, 0)


# ---------------------------------------------------------------- tables

DDP_ROW = "{:>6} {:>11} {:>9} {:>8} {:>18} {:>12} {:>11} {:>9} {:>9} {:>9}"
COST_ROW = "{:<16} {:>6} {:>11} {:>11} {:>11} {:>11}"
FSDP_ROW = "{:>6} {:>12} {:>9} {:>9} {:>10} {:>18} {:>10} {:>18}"
DDP_HEADS = (
    "frozen,FreezeOut,buffers,step /,,find unused,step /,wrapped,step /,alone /",
    ",reduced,sent,unfrozen,95 % interval,reduced,unfrozen,buffers,unfrozen,unfrozen",
)
COST_HEADS = ("following", "frozen", "freeze, ms", "1st step /", "2nd step /", "a step, ms")
FSDP_HEADS = (
    "frozen,reduced,gathers,gathers,step /,,kept /,",
    ",,,kept,unfrozen,95 % interval,unfrozen,95 % interval",
)


def say(text: str = "") -> None:
    if not dist.is_initialized() or dist.get_rank() == 0:
        command.say(text)


def _interval(ratio: dict[str, Any]) -> str:
    ends = ratio["interval"]
    return "-" if ends is None else f"{ends[0]:.3f} - {ends[1]:.3f}"


def _middle(way: dict[str, Any]) -> str:
    return f"{way['ratio']['median']:.3f}"


def ddp_line(row: dict[str, Any]) -> str:
    ours, unused, again, alone = (
        row["ways"][name] for name in ("followed", "find unused", "wrapped again", "no exchange")
    )
    return DDP_ROW.format(
        row["depth"],
        f"{ours['reduced']:,}",
        f"{ours['operations']['broadcast']:,}",
        _middle(ours),
        _interval(ours["ratio"]),
        f"{unused['reduced']:,}",
        _middle(unused),
        f"{again['operations']['broadcast']:,}",
        _middle(again),
        _middle(alone),
    )


def fsdp_line(row: dict[str, Any]) -> str:
    ours, kept = row["ways"]["sharded"], row["ways"]["kept"]
    return FSDP_ROW.format(
        row["depth"],
        f"{ours['operations']['reduced']:,}",
        ours["operations"]["gathers"],
        kept["operations"]["gathers"],
        _middle(ours),
        _interval(ours["ratio"]),
        _middle(kept),
        _interval(kept["ratio"]),
    )


def _cost_lines(part: dict[str, Any]) -> list[str]:
    return [
        COST_ROW.format(
            way["way"],
            part["depth"],
            f"{way['freeze_milliseconds']:.1f}",
            *(f"{step:.2f}" for step in way["median_first_steps"]),
            f"{way['step_milliseconds']:.1f}",
        )
        for way in part["ways"]
    ]


# ---------------------------------------------------------------- measuring, in every process


def job(device: torch.device, plan: Plan) -> dict[str, Any]:
    """Measure what needs the joined processes; process 0 says each row when it is known."""
    rounds = Rounds(plan.rounds, plan.repeats, plan.seed)
    found: dict[str, Any] = {"data_parallel": [], "following": [], "fully_shard": {}}
    for given in plan.networks:
        settings = plan.settings(*given)
        layers = split_layers(settings.network())
        say(f"{settings.model}, {settings.batch_size} images a process, DistributedDataParallel")
        for heads in DDP_HEADS:
            say(DDP_ROW.format(*heads.split(",")))
        rows = []
        for depth in range(len(layers)):
            rows.append(data_parallel(device, settings, depth, rounds))
            say(ddp_line(rows[-1]))
        parameters = sum(p.numel() for p in layers.model.parameters())
        found["data_parallel"].append(
            {**_about(settings), "parameters": parameters, "layers": len(layers), "rows": rows}
        )
        say()
        part = _summed(rebuild_cost(device, settings, len(layers) // 2, rounds))
        found["following"].append({"network": settings.model, **part})
        say(COST_ROW.format(*COST_HEADS))
        for line in _cost_lines(part):
            say(line)
        say()
    settings = plan.settings("mlp", 32, plan.batch)
    model = mlp(settings, plan.size)
    say(f"{plan.size[1]} hidden layers of width {plan.size[0]}, fully_shard on each")
    for heads in FSDP_HEADS:
        say(FSDP_ROW.format(*heads.split(",")).rstrip())
    rows = []
    for depth in range(len(model)):
        rows.append(sharded(device, settings, plan.size, depth, rounds))
        say(fsdp_line(rows[-1]))
    say()
    found["fully_shard"] = {
        "width": plan.size[0],
        "hidden": plan.size[1],
        "batch_size": plan.batch,
        "parameters": sum(p.numel() for p in model.parameters()),
        "layers": len(model),
        "rows": rows,
    }
    return found


def _about(settings: Settings) -> dict[str, Any]:
    kept = ("model", "image_size", "batch_size")
    return {name: value for name, value in asdict(settings).items() if name in kept}


def _summed(part: dict[str, Any]) -> dict[str, Any]:
    for way in part["ways"]:
        way["freeze_milliseconds"] = statistics.median(way["milliseconds"])
        way["step_milliseconds"] = statistics.median(way["steady_milliseconds"])
        way["median_first_steps"] = [
            statistics.median(column) for column in zip(*way["first_steps"], strict=True)
        ]
    return part


# ---------------------------------------------------------------- what it says


def miscounted(found: dict[str, Any]) -> list[str]:
    """Return a line for every depth at which not exactly the live gradients were exchanged."""
    lines = []
    for network in found["data_parallel"]:
        for row in network["rows"]:
            ours = row["ways"]["followed"]
            counts = {ours["reduced"], ours["operations"]["reduced"], row["live_parameters"]}
            if len(counts) > 1:
                lines.append(
                    f"{network['model']}, {row['depth']} frozen: {sorted(counts)} elements by "
                    "hook, by operation and still learning"
                )
    return lines


def against(found: dict[str, Any]) -> list[str]:
    """Return what the figures say against FreezeOut, one line each."""
    lines = []
    for network in found["data_parallel"]:
        rows = [row for row in network["rows"] if row["depth"]]
        saves = [r for r in rows if _ends(r["ways"]["followed"])[1] < 1.0]
        if len(saves) < len(rows):
            depths = ", ".join(str(r["depth"]) for r in rows if r not in saves)
            lines.append(f"{network['model']}: no clear saving of time with {depths} frozen")
        for name, what in (
            ("find unused", "find_unused_parameters=True"),
            ("wrapped again", "a new wrapper"),
        ):
            same = [
                str(r["depth"])
                for r in rows
                if _ends(r["ways"]["followed"])[1] >= _ends(r["ways"][name])[0]
            ]
            if same:
                lines.append(
                    f"{network['model']}: not clearly faster than {what} with "
                    f"{', '.join(same)} frozen"
                )
    for part in found["following"]:
        way = part["ways"][0]
        first, second = way["median_first_steps"]
        lines.append(
            f"{part['network']}: following a freeze takes {way['freeze_milliseconds']:.1f} ms, and "
            f"the next two steps take {first:.2f} and {second:.2f} times a step"
        )
    rows = [row for row in found["fully_shard"]["rows"] if row["depth"]]
    same = [str(r["depth"]) for r in rows if _ends(r["ways"]["sharded"])[1] >= 1.0]
    if same:
        lines.append(f"fully_shard: no clear saving of time with {', '.join(same)} frozen")
    same = [
        str(r["depth"])
        for r in rows
        if _ends(r["ways"]["kept"])[1] >= _ends(r["ways"]["sharded"])[0]
    ]
    if same:
        lines.append(f"keep_unsharded: not clearly faster with {', '.join(same)} frozen")
    return lines


def _ends(way: dict[str, Any]) -> tuple[float, float]:
    """Return the interval; with too few rounds for one, that nothing is known."""
    low, high = way["ratio"]["interval"] or (0.0, float("inf"))
    return float(low), float(high)


# ---------------------------------------------------------------- command line


def arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=(__doc__ or "").partition("\n")[0],
        epilog="Exit status: 0 if exactly the gradients of live layers were exchanged, 1 if not.",
    )
    add = parser.add_argument
    add("--device", choices=("auto", "cpu", "cuda"), default="auto")
    add("--processes", type=positive, default=2, help="at most one per GPU (default: %(default)s)")
    add("--rounds", type=positive, help=f"steps of each variant (default: {FULL.rounds})")
    add("--repeats", type=positive, help=f"freezes that are timed (default: {FULL.repeats})")
    add("--seed", type=int, default=0)
    add("--toy", action="store_true", help="shows that it runs, measures nothing")
    add("--out", type=Path, help="JSON file (default: results/ddp_step-<device>.json; toy: none)")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the benchmark; return the exit status."""
    given = arguments().parse_args(argv)
    plan = TOY if given.toy else FULL
    plan = replace(
        plan,
        rounds=given.rounds or plan.rounds,
        repeats=given.repeats or plan.repeats,
        seed=given.seed,
    )
    device = pick_device(given.device)
    place = Place(device, given.processes)
    os.environ["TORCH_CPP_LOG_LEVEL"] = "ERROR"  # of the processes: what they say on purpose
    os.environ["OMP_NUM_THREADS"] = "1"
    before = load()
    found = run_joined(place, job, plan)
    result: dict[str, Any] = {
        **about("ddp_step", device, before, threads=1),
        "settings": {
            **asdict(plan),
            "device": device,
            "backend": place.backend,
            "processes": place.processes,
            "optimizer": OPTIMIZER,
        },
        "statistics": {
            "figure": "median of the ratios of times within a round; a time is that of the slowest "
            "process",
            "interval": "order statistics of the median (binomial), no distribution assumed",
            "confidence": CONFIDENCE,
        },
        **found,
        "miscounted": miscounted(found),
        "against": against(found),
    }
    for line in result["against"]:
        say(f"against: {line}")
    for line in result["miscounted"]:
        say(f"wrong: {line}")
    out = results_file(given.out, f"ddp_step-{device}", toy=given.toy)
    write_json(result, out)
    if out is not None:
        say(f"Written to {out}")
    return 1 if result["miscounted"] else 0


if __name__ == "__main__":
    sys.exit(main())
