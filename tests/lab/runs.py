"""Small runs on the embedded digits, shared by the tests of training and of the command line."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import torch

from freezeout.lab.cli import main
from freezeout.lab.experiments import run_job
from freezeout.lab.experiments.job import measure_job
from freezeout.lab.training import Observer, RunFolder, Settings, start
from freezeout.lab.training.checkpoint import load_checkpoint

SMALL: dict[str, Any] = {
    "model": "resnet-8-8",
    "data": "digits",
    "train_size": 64,
    "batch_size": 16,
    "epochs": 3,
    "t0": 0.6,
    "device": "cpu",
}
"""Twelve steps; five layers, of which four freeze at steps 3, 5, 7 and 9."""

SHORT = {"steps": 11, "epochs": 7, "evaluate_every": 2}
"""Two whole epochs of four steps and three steps of a third; `epochs` does not count."""

SMALL_ARGUMENTS = [
    word for name, value in SMALL.items() for word in (f"--{name.replace('_', '-')}", str(value))
]


def small(**changes: Any) -> Settings:
    """Settings of a run of a fraction of a second."""
    return Settings(**{**SMALL, **changes})


def train(folder: Path, observers: tuple[Observer, ...] = (), **changes: Any) -> RunFolder:
    """A whole small run in a folder."""
    run = RunFolder(folder)
    start(small(**changes), run, observers)
    return run


def search_path(*folders: Path) -> str:
    """A PYTHONPATH for processes of a test: these folders first, then that of this process."""
    return os.pathsep.join([*map(str, folders), *filter(None, [os.environ.get("PYTHONPATH")])])


class Here:
    """Stands for a pool, and does all tasks of an experiment at once and in this process."""

    def run(self, teams: Any, *, deadline: float | None = None) -> bool:
        for task in (task for team in teams for task in team):
            if task.do == "measure":
                measure_job(task.job)
            else:
                assert run_job(task.job) == "done"
        return True


class KilledError(Exception):
    """Stands for a process that is gone: nothing is saved any more."""


class KillAt(Observer):
    """Ends the run the hard way, after a step."""

    def __init__(self, step: int) -> None:
        self.step = step

    def progress(self, progress: Any) -> None:
        if progress.step == self.step:
            raise KilledError


def assert_same_end(one: RunFolder, other: RunFolder) -> None:
    """Both runs ended with the same bits: weights, optimizer, generators, errors."""
    a, b = load_checkpoint(one.checkpoint), load_checkpoint(other.checkpoint)
    assert a["step"] == b["step"]
    assert a["model"].keys() == b["model"].keys()
    for name, value in a["model"].items():
        assert torch.equal(value, b["model"][name]), name
    assert a["optimizer"]["param_groups"] == b["optimizer"]["param_groups"]
    assert a["optimizer"]["state"].keys() == b["optimizer"]["state"].keys()
    for key, state in a["optimizer"]["state"].items():
        for name, value in state.items():
            assert torch.equal(
                torch.as_tensor(value), torch.as_tensor(b["optimizer"]["state"][key][name])
            )
    assert torch.equal(a["generator"], b["generator"])
    assert a["scheduler"] == b["scheduler"]
    timed = ("seconds", "saved_seconds", "memory")  # of the machine, not of the run
    for x, y in zip(a["history"], b["history"], strict=True):
        assert {k: v for k, v in x.items() if k not in timed} == {
            k: v for k, v in y.items() if k not in timed
        }


def planned(capsys: pytest.CaptureFixture[str], *words: object, code: int = 0) -> Any:
    """Run ``freezeout plan`` in this process; return what it printed."""
    assert main(["plan", *map(str, words)]) == code
    return capsys.readouterr()


class Listening(Observer):
    """Keeps what a run says."""

    def __init__(self) -> None:
        self.messages: list[str] = []

    def message(self, text: str) -> None:
        self.messages.append(text)
