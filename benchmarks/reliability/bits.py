"""What a run leaves behind, as digests: whatever does not depend on the clock."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from freezeout.lab.training import RunFolder
from freezeout.lab.training.checkpoint import load_checkpoint

__all__ = ["differing", "experiment_bits", "run_bits"]

_OF_THE_CLOCK = ("seconds", "saved_seconds", "memory", "torch")
_OF_SUMMARY = (
    *("model", "data", "steps", "epochs", "test_error", "frozen_layers", "layers", "predicted"),
    *("predicted_interval", "predicted_so_far", "interrupted", "total_steps"),
)


def run_bits(folder: Path) -> dict[str, str]:
    """Return a digest of each part of a finished run: weights, optimizer ... log, summary."""
    run = RunFolder(folder)
    state = load_checkpoint(run.checkpoint)
    history = [_untimed(record) for record in state["history"]]
    position = [state["step"], state["epoch"], state["batch"], state["sums"]]
    parts = {
        "weights": state["model"],
        "optimizer": state["optimizer"],
        "schedule": state["scheduler"],
        "random numbers": state["generator"],
        "position": position,
        "history": history,
        "settings": run.settings().to_dict(),
        "log": [_untimed(record) for record in run.read_log()],
        "summary": _of_summary(run.summary_file),
    }
    plan = run.plan()
    return {name: digest(value) for name, value in parts.items()} | {
        "plan": digest(None if plan is None else plan.to_dict())
    }


def experiment_bits(folder: Path) -> dict[str, str]:
    """Return the same of every run of an experiment."""
    runs = sorted(path.parent for path in (folder / "runs").rglob("settings.toml"))
    return {
        f"{run.relative_to(folder / 'runs')}: {name}": value
        for run in runs
        for name, value in run_bits(run).items()
    }


def differing(one: Mapping[str, str], other: Mapping[str, str]) -> list[str]:
    """Return the names of the parts that differ."""
    return sorted(k for k in one.keys() | other.keys() if one.get(k) != other.get(k))


def digest(value: Any) -> str:
    """Return a digest of plain values and tensors, bit by bit."""
    sums = hashlib.sha256()
    _feed(sums, value)
    return sums.hexdigest()


def _feed(sums: Any, value: Any) -> None:
    if isinstance(value, torch.Tensor):
        plain = value.detach().contiguous()
        sums.update(f"{plain.dtype}{tuple(plain.shape)}".encode())
        sums.update(plain.flatten().view(torch.uint8).numpy().tobytes())
    elif isinstance(value, Mapping):
        sums.update(b"{")
        for key, item in value.items():
            _feed(sums, key)
            _feed(sums, item)
    elif isinstance(value, (list, tuple)):
        sums.update(f"[{len(value)}".encode())
        for item in value:
            _feed(sums, item)
    else:
        sums.update(f"{type(value).__name__} {value!r};".encode())


def _untimed(record: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in record.items() if name not in _OF_THE_CLOCK}


def _of_summary(path: Path) -> dict[str, Any]:
    values = json.loads(path.read_text(encoding="utf-8"))
    depths = [(cost["frozen"], cost["steps"]) for cost in values["depth_costs"]]
    return {"depths": depths} | {name: values[name] for name in _OF_SUMMARY}
