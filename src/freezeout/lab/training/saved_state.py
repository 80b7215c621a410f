"""What a checkpoint holds, compared with what a run of its settings can have saved.

Digests tell what was damaged; they do not tell what somebody made by hand. Loading would take some
of that without a word, and fail in a later step or train on something else.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from itertools import pairwise
from typing import Any

import torch
from torch.optim import Optimizer

from freezeout.errors import is_number
from freezeout.lab.training.log import check_record

__all__ = [
    "check_clock",
    "check_generators",
    "check_history",
    "check_position",
    "check_tensors",
    "sound_optimizer",
]

_OF_SGD, _OF_ADAMW = {"momentum_buffer"}, {"exp_avg", "exp_avg_sq", "step"}
"""What they hold for a parameter."""


def check_tensors(own: Mapping[str, Any], saved: Any) -> None:
    """Raise unless saved tensors have the names, shapes and types of a model's own.

    Args:
        own: The model's state.
        saved: What is to be loaded.

    Raises:
        ValueError: If not.
    """
    if not isinstance(saved, Mapping) or saved.keys() != own.keys():
        raise ValueError("the model's state has other names")
    for name, value in own.items():
        if isinstance(value, torch.Tensor):  # a module may keep something else, too
            _check_tensor(f"the model's {name}", saved[name], value)


def sound_optimizer(optimizer: Optimizer, saved: Any) -> dict[str, Any]:
    """Return an optimizer's saved state in tensors of its own, with its settings as they are now.

    Args:
        optimizer: The optimizer that is to load it, made with the same settings.
        saved: What is to be loaded.

    Returns:
        What `Optimizer.load_state_dict` takes: of each group the saved rates, and else what the
        optimizer was made with.

    Raises:
        ValueError: If it is not the state of such an optimizer.
    """
    own = optimizer.state_dict()["param_groups"]
    groups, state = saved["param_groups"], saved["state"]
    if not isinstance(groups, list) or not isinstance(state, dict) or len(groups) != len(own):
        raise ValueError("the optimizer's state has other groups")
    for group, mine in zip(groups, own, strict=True):
        if group["params"] != mine["params"]:
            raise ValueError("the optimizer's groups hold other parameters")
        for name in ("lr", "initial_lr"):
            if name in mine and not (is_number(group[name]) and 0 <= group[name] < math.inf):
                raise ValueError(f"the optimizer's {name} is {group[name]!r}")
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    order = [index for group in own for index in group["params"]]
    held = dict(zip(order, parameters, strict=True))
    names = _OF_SGD if "momentum" in own[0] else _OF_ADAMW
    for index, values in state.items():
        if type(index) is not int or index not in held or not isinstance(values, dict):
            raise ValueError(f"the optimizer holds something for {index!r}")
        if values and values.keys() != names:
            raise ValueError("the optimizer holds other values for its parameters")
    rates = ("lr", "initial_lr")
    return {
        "state": {i: _own_values(values, held[i]) for i, values in state.items()},
        "param_groups": [
            {**mine, **{name: group[name] for name in rates if name in mine}}
            for group, mine in zip(groups, own, strict=True)
        ],
    }


def check_position(
    step: Any, epoch: Any, batch: Any, *, total_steps: int, epochs: int, length: int
) -> None:
    """Raise unless a position is one at which a run saves.

    Args:
        step: Steps done.
        epoch: Epochs finished.
        batch: Batches done in the epoch under way.
        total_steps: Steps of the whole run.
        epochs: Epochs of the whole run.
        length: Steps of a whole epoch.

    Raises:
        ValueError: If not.
    """
    position = step, epoch, batch
    if not all(type(number) is int and number >= 0 for number in position):
        raise ValueError(f"its position {position} is not valid")
    left = max(0, min(length, total_steps - epoch * length))
    done = total_steps if epoch == epochs else epoch * length + batch
    if epoch > epochs or batch > left or step != done:
        raise ValueError(f"its position {position} is not valid")


def check_generators(states: Any) -> None:
    """Raise unless there are states of torch's generators of random numbers, of the CPU at least.

    Args:
        states: Those of the CPU and of the GPU, for every process.

    Raises:
        ValueError: If not.
        RuntimeError: If one of them is none that torch takes.
        TypeError: The same.
    """
    if not isinstance(states, list) or not states:
        raise ValueError("it has no random generators")
    for on_cpu, _ in states:
        torch.Generator().set_state(on_cpu)


def check_history(history: Any, sums: Any, elapsed: Any, epoch: int) -> None:
    """Raise unless the records of finished epochs, and the sums of the open one, are such.

    Args:
        history: One record for each finished epoch.
        sums: Loss, correct and all images of the epoch under way.
        elapsed: Seconds of the run.
        epoch: Epochs finished.

    Raises:
        ValueError: If not.
    """
    if not isinstance(history, list) or len(history) != epoch:
        raise ValueError("its history has another length")
    for number, record in enumerate(history, 1):
        check_record({**record, "event": "epoch"})
        if record["epoch"] != number:
            raise ValueError("its history is out of order")
    loss, correct, images = sums["loss"], sums["correct"], sums["images"]
    counts = type(correct) is int and type(images) is int and 0 <= correct <= images
    if not (counts and _is_finite(loss) and _is_finite(elapsed) and elapsed >= 0):
        raise ValueError("its sums are not valid")


def check_clock(clock: Any, step: int, layers: int) -> None:
    """Raise unless timings are those of the steps done.

    Args:
        clock: What `StepClock.state_dict` returned.
        step: Steps done.
        layers: Number of layers.

    Raises:
        ValueError: If not.
    """
    counts, seconds = clock["counts"], clock["seconds"]
    _check_tensor("its clock", counts, torch.empty(len(counts), 3, dtype=torch.int64))
    _check_tensor("its clock", seconds, torch.empty(len(counts), dtype=torch.float64))
    rows = counts.tolist()
    ends = [0, *(end for end, _, _ in rows), step]
    sound = all(n >= 1 and 0 <= frozen < layers for _, n, frozen in rows)
    if not sound or any(a > b for a, b in pairwise(ends)):
        raise ValueError("its clock has counted other steps")
    if not all(_is_finite(s) and s >= 0 for s in seconds.tolist()):
        raise ValueError("its clock has times that no step takes")


def _own_values(values: Mapping[str, Any], parameter: torch.Tensor) -> dict[str, Any]:
    """Return what an optimizer holds for a parameter, in memory that nothing else uses."""
    made: dict[str, Any] = {}
    for name, value in values.items():
        if name == "step":
            number = torch.as_tensor(value)
            if number.numel() != 1 or not _is_finite(number.item()) or number.item() < 0:
                raise ValueError("the optimizer counts other steps")
            made[name] = number.detach().clone().reshape(()).to(torch.float32)
        elif value is None and name in _OF_SGD:  # without momentum
            made[name] = None
        else:
            _check_tensor(f"the optimizer's {name}", value, parameter)
            made[name] = value.detach().clone()
    return made


def _check_tensor(name: str, value: Any, like: torch.Tensor) -> None:
    if not isinstance(value, torch.Tensor) or value.layout != torch.strided or value.is_meta:
        raise ValueError(f"{name} is no tensor")
    if value.shape != like.shape or value.dtype != like.dtype:
        there, here = (f"{tuple(t.shape)} of {t.dtype}" for t in (value, like))
        raise ValueError(f"{name} is {there}, where {here} is needed")


def _is_finite(value: Any) -> bool:
    return is_number(value) and math.isfinite(value)
