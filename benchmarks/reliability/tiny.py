"""Tiny runs, and a process that is ready to fork them: everything imported, nothing measured.

A run takes a tenth of a second. Two things are replaced, so that it is the same every time and
spends its time where something can be lost: measured costs are made up, pictures are a line of
text. They are still written as always.
"""

from __future__ import annotations

import contextlib
import functools
import gc
import io
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

import torch

from benchmarks.reliability import workers
from freezeout.costs import Costs, LayerCost, device_name
from freezeout.lab.cli import main
from freezeout.layers import Layers
from freezeout.tensors import tensor_bytes

__all__ = ["COMPARE", "RECIPES", "SMALL", "command", "get_ready", "plan_file", "scratch_home"]

SMALL = (
    *("--model", "resnet-8", "--data", "digits", "--train-size", "60", "--batch-size", "20"),
    *("--threads", "1", "--device", "cpu"),
)
"""Three steps an epoch; five layers."""

RECIPES: dict[str, tuple[str, ...]] = {
    "epochs": (*SMALL, "--epochs", "3"),
    "every step": (*SMALL, "--steps", "7", "--checkpoint-minutes", "1e-9", "--seed", "1"),
    "adamw": (*SMALL, "--epochs", "2", "--optimizer", "adamw", "--lr", "0.01", "--no-scaled"),
    "constant time": (*SMALL, "--epochs", "2", "--const-time"),
    "predicted": (*SMALL, "--epochs", "2", "--predict", "--t0", "0.5", "--seed", "2"),
    "rates only": (*SMALL, "--epochs", "2", "--no-freeze", "--spacing", "linear"),
    "planned": (*SMALL, "--plan", "PLAN"),
}
"""Words of ``freezeout train``; ``PLAN`` stands for a plan."""

COMPARE = (*SMALL, "--epochs", "2", "--variants", "cubic:0.5", "--seeds", "1", "--processes", "1")
"""Words of ``freezeout compare``: a baseline, a variant, its equal-time baseline, its control."""


def command(words: Sequence[str]) -> Callable[[], int]:
    """Return what a new process with these words does."""

    def program() -> int:
        sys.argv = ["freezeout", *words]
        return main()

    return program


@functools.cache
def scratch_home() -> Path:
    """Return a new folder for this process, in memory where the system has that."""
    memory = Path("/dev/shm")
    usable = memory.is_dir() and os.access(memory, os.W_OK)
    return Path(tempfile.mkdtemp(prefix="reliability-", dir=memory if usable else None))


@functools.cache
def plan_file() -> Path:
    """Return a plan for the tiny runs."""
    folder = scratch_home() / "plan"
    _run(["plan", *SMALL, "--steps", "7", "--t0", "0.6", "--out", str(folder)])
    return folder / "plan.json"


def get_ready() -> None:
    """Import what runs need, replace what is slow or measured, and run everything once."""
    import freezeout.lab.report.figures.figure as figure
    import freezeout.lab.training.forecasting as forecasting

    torch.set_num_threads(1)
    for target, name, stand_in in (
        (forecasting, "measure_costs", _made_up_costs),
        (forecasting, "_loading_seconds", lambda trainer: 0.125),
        (figure.Figure, "render", lambda self, kind, title="": b"a picture\n"),
        (subprocess, "Popen", workers.start),
        (figure.Figure, "on_page", lambda self, prefix, label, narrow=False: "<svg></svg>"),
    ):
        mock.patch.object(target, name, stand_in).start()
    os.environ["SOURCE_DATE_EPOCH"] = "0"
    os.environ["COLUMNS"] = "200"
    first = scratch_home() / "first"
    _run(["train", *RECIPES["predicted"], "--out", str(first), "--display", "none"])
    _run(["report", str(first)])
    plan_file()
    gc.collect()


def _run(words: Sequence[str]) -> None:
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        code = main(list(words))
    if code:
        raise RuntimeError(f"freezeout {' '.join(words)} ended with {code}")


def _made_up_costs(model: Any, example: Any, *, layers: Layers, **_: Any) -> Costs:
    """Return costs of round numbers, in place of measuring them."""
    each = []
    for index, layer in enumerate(layers):
        size = sum(tensor_bytes(p) for _, p in layer.parameters)
        each.append(
            LayerCost(
                name=layer.name,
                forward=0.5,
                frozen_forward=0.25,
                backward=1.0 + index,
                optimizer=0.125,
                forward_flops=1000,
                backward_flops=2000,
                saved_bytes=1000,
                parameter_bytes=size,
                gradient_bytes=size,
                state_bytes=size,
            )
        )
    made = Costs(
        layers=tuple(each),
        overhead=0.125,
        depths=(0, len(each) - 1),
        rounds=((1.0, 1.0),),
        batch_size=len(example),
        device=device_name(next(model.parameters()).device, 1),
        threads=1,
        torch_version=str(torch.__version__),
    )
    steps = tuple(made.step_seconds(depth) for depth in made.depths)
    return Costs(**{**vars(made), "rounds": (steps,) * 6})
