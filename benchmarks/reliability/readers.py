"""The readers of texts: a valid document for each, and what reads it."""

from __future__ import annotations

import functools
import json
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tomli_w

from benchmarks.reliability.children import run_child
from benchmarks.reliability.going_on import train_words
from benchmarks.reliability.tiny import command, plan_file, scratch_home
from freezeout.costs import Costs
from freezeout.lab.experiments import Experiment, Grid, Variant, read_runs
from freezeout.lab.training import RunFolder, Settings, read_toml
from freezeout.planning import Plan

__all__ = ["READERS", "Reader", "documents", "plain_values"]


@dataclass(frozen=True)
class Reader:
    """A reader of texts.

    Attributes:
        file: Name of the file that it reads.
        read: Reads it, from the folder that holds it.
        share: How often it is chosen, beside the others.
    """

    file: str
    read: Callable[[Path], object]
    share: float = 1.0


def _settings(folder: Path) -> object:
    return Settings.from_dict(read_toml(folder / "config.toml"))


def _variant(folder: Path) -> object:
    return Variant.parse((folder / "variant").read_text(encoding="utf-8", errors="replace"))


READERS: dict[str, Reader] = {
    "settings": Reader("config.toml", _settings, 2.0),
    "sweep": Reader("sweep.toml", lambda folder: Grid.load(folder / "sweep.toml"), 2.0),
    "plan": Reader("plan.json", lambda folder: Plan.load(folder / "plan.json"), 2.0),
    "costs": Reader("costs.json", lambda folder: Costs.load(folder / "costs.json"), 2.0),
    "experiment": Reader("experiment.json", Experiment.load, 2.0),
    "variant": Reader("variant", _variant, 1.0),
    "log": Reader("log.jsonl", lambda folder: RunFolder(folder).read_log(), 1.0),
    "run: log": Reader("run/log.jsonl", lambda folder: read_runs([folder]), 1.0),
    "run: settings": Reader("run/settings.toml", lambda folder: read_runs([folder]), 0.5),
    "run: summary": Reader("run/summary.json", lambda folder: read_runs([folder]), 0.5),
    "run: plan": Reader("run/plan.json", lambda folder: read_runs([folder]), 0.5),
    "run: arm": Reader("run/arm.json", lambda folder: read_runs([folder]), 0.5),
    "run: failure": Reader("run/failed.json", lambda folder: read_runs([folder]), 0.5),
}
"""By name. Those of runs read a folder with a finished run, of which one file is the text."""


@functools.cache
def documents() -> dict[str, bytes]:
    """Return the valid text of every file that is read, by its name."""
    grid = Grid.from_dict(
        {
            "epochs": 2,
            "grid": {"t0": [0.5, 0.8], "seed": [0, 1], "model": ["resnet-8", "wrn-10-1"]},
            "arms": {"equal_time": True, "rates_only": True},
        },
        "a sweep",
    )
    run = _finished_run()
    arm = {"cell": "a cell", "arm": "cubic:0.5", "kind": "variant", "of": None}
    failed = {"reason": "it did not work", "traceback": None, **arm}
    texts = {
        "config.toml": tomli_w.dumps(Settings(t0=0.5, lr=0.05).to_dict()).encode(),
        "sweep.toml": _SWEEP,
        "plan.json": plan_file().read_bytes(),
        "costs.json": plan_file().with_name("costs.json").read_bytes(),
        "experiment.json": json.dumps(grid.to_dict()).encode(),
        "variant": b"cubic:0.5:unscaled:max_freezes=3",
        "log.jsonl": run["log.jsonl"],
        **{f"run/{name}": text for name, text in run.items()},
        "run/arm.json": json.dumps(arm).encode(),
        "run/failed.json": json.dumps(failed).encode(),
    }
    return {name: _bare(name, text) for name, text in texts.items()}


def plain_values(name: str) -> Any:
    """Return the values of a document that is JSON, or ``None``."""
    text = documents()[name]
    return json.loads(text) if name.endswith(".json") else None


def _bare(name: str, text: bytes) -> bytes:
    """Return a text without its digests: a mutation is then refused for what it says."""
    if name.endswith(".json"):
        return json.dumps(_without_digest(json.loads(text)), indent=1).encode()
    if name.endswith(".jsonl"):
        lines = (json.dumps(_without_digest(json.loads(line))) for line in text.splitlines())
        return "".join(f"{line}\n" for line in lines).encode()
    return text


def _without_digest(values: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in values.items() if key not in ("digest", "sum")}


def _finished_run() -> dict[str, bytes]:
    home = Path(tempfile.mkdtemp(prefix="readers-", dir=scratch_home()))
    end = run_child(command(train_words("predicted", "run")), home)
    if end.code:
        raise RuntimeError(f"a run ended with {end.words}: {end.err}")
    names = ("settings.toml", "log.jsonl", "summary.json", "plan.json")
    found = {name: (home / "run" / name).read_bytes() for name in names}
    shutil.rmtree(home)
    return found


_SWEEP = b"""\
preset = "paper"
epochs = 20
[grid]
model = ["wrn-16-4", "densenet-40-12"]
data = ["cifar10"]
t0 = [0.8, 0.5]
spacing = ["cubic", "linear"]
scaled = [true, false]
seed = [0, 1, 2, 3, 4]
[arms]
equal_time = true
rates_only = true
"""
