"""What the repeats of the benchmark say together: the arithmetic, and the file of results."""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping, Sequence
from math import fsum
from pathlib import Path
from typing import Any, Literal, TypeAlias, cast

from benchmarks.common.machine import about, load, now
from benchmarks.common.measuring import must_be
from freezeout import Schedule
from freezeout.lab.training import Settings

__all__ = [
    "BAR",
    "Results",
    "Verdict",
    "cell",
    "describe_schedule",
    "is_done",
    "judge",
    "new_results",
    "points",
    "read",
    "saving",
    "shortcomings",
    "smoothed",
    "summarise",
    "taken_up",
]

Results: TypeAlias = dict[str, Any]
Verdict: TypeAlias = Literal["holds", "fails"]

BAR = 3.0
"""Percentage points."""

MAY_GROW = ("models", "repeats")
"""Settings in which a resumed run may differ."""


# ---------------------------------------------------------------- arithmetic


def saving(frozen: Sequence[float], unfrozen: Sequence[float]) -> float:
    """Return the saving of one run against another as long, from the seconds of their steps."""
    must_be(len(frozen) == len(unfrozen), "both runs must have as many steps")
    return 1.0 - fsum(frozen) / fsum(unfrozen)


def smoothed(seconds: Sequence[float], depths: Sequence[int]) -> list[float]:
    """Replace each step's seconds by their median over the steps at its depth."""
    by_depth: dict[int, list[float]] = {}
    for second, depth in zip(seconds, depths, strict=True):
        by_depth.setdefault(depth, []).append(second)
    medians = {depth: statistics.median(found) for depth, found in by_depth.items()}
    return [medians[depth] for depth in depths]


def points(measured: float, predicted: float) -> float:
    """Return by how many percentage points the measured fraction is above the predicted one."""
    return 100.0 * (measured - predicted)


def judge(difference: float) -> Verdict:
    """Decide whether a difference is within the bar."""
    return "holds" if abs(difference) <= BAR else "fails"


def cell(
    model: str, schedule: Mapping[str, Any], found: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    """Summarise the repeats of one network and schedule.

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


# ---------------------------------------------------------------- the file


def new_results(
    settings: Settings, schedules: Sequence[Schedule], models: Sequence[str], repeats: int
) -> Results:
    """Return the results before anything is measured."""
    kept = ("data", "train_size", "batch_size", "steps", "seed", "lr", "device", "threads")
    return {
        **about("predicted_saving", settings.device, load()),
        "settings": {
            **{name: getattr(settings, name) for name in kept},
            "optimizer": f"SGD, Nesterov momentum {settings.momentum:g}, weight decay "
            f"{settings.weight_decay:g}",
            "schedules": [describe_schedule(schedule) for schedule in schedules],
            "models": list(models),
            "repeats": repeats,
        },
        "repeats": [],
        "cells": [],
        "measuring": [],
    }


def taken_up(old: Results, new: Results) -> Results:
    """Return the results of an earlier run, to go on with.

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
    """Return what must be the same on resuming."""
    if not isinstance(part, Mapping):
        return part
    return {name: value for name, value in part.items() if name not in (*MAY_GROW, "load")}


def is_done(results: Results, model: str, repeat: int) -> bool:
    return any(one["model"] == model and one["repeat"] == repeat for one in results["repeats"])


def summarise(results: Results) -> None:
    """Work out everything that follows from the single repeats."""
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
    results["date"] = now()


def shortcomings(cells: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return one line for every bar that does not hold."""
    return [
        f"{one['model']}, {one['schedule']}: measured {100 * one['measured']:.1f} %, predicted "
        f"{100 * one['predicted']:.1f} %, median difference {one['median_difference']:+.2f} "
        f"points, bar {BAR:g}, fails"
        for one in cells
        if one["verdict"] != "holds"
    ]


def read(path: Path) -> Results:
    """Read results that were written before.

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
