"""The steps in several processes that `stacks.ddp` measures: DistributedDataParallel and FSDP2."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from torch import nn
from torch.distributed.fsdp import fully_shard
from torch.nn.parallel import DistributedDataParallel
from torch.optim.lr_scheduler import CosineAnnealingLR

from benchmarks.common.measuring import must_be
from benchmarks.stacks.networks import wide_mlp
from benchmarks.stacks.processes import slowest
from benchmarks.stacks.ratios_across_processes import take_turns, timed
from benchmarks.stacks.traffic import count_sent, reduced_by_hook
from benchmarks.step.loops import (
    TOTAL_STEPS,
    Settings,
    freezing_after,
    groups_by_layer,
    sgd,
    training_step,
)
from freezeout import Freezer, Layers, split_layers
from freezeout.wrappers import reduced_elements

__all__ = ["Rounds", "data_parallel", "mlp", "rebuild_cost", "sharded"]

Step = Callable[[], None]
SETTLING = 3
"""Steps that are not timed before anything is: buckets are made again after the first."""

FIRST_STEPS = 2
STEADY_STEPS = 5


class Rounds(NamedTuple):
    """How often to measure."""

    rounds: int
    repeats: int
    seed: int


# ---------------------------------------------------------------- DistributedDataParallel


class Subject(NamedTuple):
    """One step of a network in training, and its wrapper if it has one."""

    step: Step
    wrapper: DistributedDataParallel | None


def _followed(settings: Settings, depth: int) -> Subject:
    """Let FreezeOut freeze `depth` layers in training; the wrapper follows by itself."""
    model = settings.network()
    wrapper = DistributedDataParallel(model)
    return Subject(_frozen_step(settings, wrapper, split_layers(model), depth), wrapper)


def _frozen_step(
    settings: Settings, model: nn.Module, layers: Layers, depth: int, *, keep: bool = False
) -> Step:
    """Make a step of a network whose first layers FreezeOut has just frozen in training."""
    optimizer = sgd([list(model.parameters())])
    scheduler = freezing_after(SETTLING, depth, optimizer, model, layers)
    scheduler.freezer.follow(keep_unsharded=keep)
    step = training_step(settings, model, optimizer, scheduler)
    for _ in range(SETTLING):
        step()
    must_be(scheduler.frozen == depth, "the layers must be frozen before they are timed")
    return step


def _by_hand(settings: Settings, depth: int, how: str) -> Subject:
    """Change flags, gradients and modes of the first layers by hand in mid-training.

    Args:
        settings: The network and its data.
        depth: Number of layers.
        how: ``"find unused"`` parameters from the start, ``"wrapped again"`` after the change, or
            ``"no exchange"``, without any wrapper.
    """
    model = settings.network()
    layers = split_layers(model)
    wrapper = None
    if how != "no exchange":
        wrapper = DistributedDataParallel(model, find_unused_parameters=how == "find unused")
    optimizer = sgd(groups_by_layer(layers))
    scheduler = CosineAnnealingLR(optimizer, T_max=TOTAL_STEPS)
    step = training_step(settings, wrapper or model, optimizer, scheduler)
    for _ in range(SETTLING):
        step()
    flip(layers, depth, live=False)
    if how == "wrapped again":
        wrapper = DistributedDataParallel(model)
        step = training_step(settings, wrapper, optimizer, scheduler)
    return Subject(step, wrapper)


def flip(layers: Layers, depth: int, *, live: bool) -> None:
    """Freeze or unfreeze the first layers, as one would by hand."""
    for layer in layers[:depth]:
        for _, parameter in layer.parameters:
            parameter.requires_grad_(live)
            parameter.grad = None
        for module in layer.modules:
            module.train(live)


def data_parallel(
    device: torch.device, settings: Settings, depth: int, rounds: Rounds
) -> dict[str, Any]:
    """Measure times and exchanges with `depth` layers frozen; every process calls it alike.

    Returns:
        A row for the results: ratios to the unfrozen step, elements by hook and by operation.
    """
    settings = replace(settings, device=str(device))
    subjects = {"unfrozen": _followed(settings, 0), "followed": _followed(settings, depth)}
    for how in ("find unused", "wrapped again", "no exchange"):
        subjects[how] = _by_hand(settings, depth, how)
    steps = {name: one.step for name, one in subjects.items()}
    times = take_turns(steps, rounds.rounds, SETTLING, rounds.seed, device)
    ways = {}
    for name, one in subjects.items():
        operations = count_sent(one.step).as_dict()  # before the hook, which would change them
        ways[name] = {
            "ratio": times.ratio(name, "unfrozen"),
            "milliseconds": 1e3 * times.median(name),
            "reduced": 0 if one.wrapper is None else reduced_by_hook(one.wrapper, one.step),
            "operations": operations,
        }
    live = subjects["followed"].wrapper
    return {
        "depth": depth,
        "live_parameters": 0 if live is None else reduced_elements(live),
        "ways": ways,
    }


# ---------------------------------------------------------------- what following costs


def rebuild_cost(
    device: torch.device, settings: Settings, depth: int, rounds: Rounds
) -> dict[str, Any]:
    """Measure what a freeze of `depth` layers itself takes, and the first steps after it.

    The ways take turns: freeze, some steps, unfreeze, some steps. Steps are multiples of the median
    of later steps at the same depth.
    """
    settings = replace(settings, device=str(device))
    ways = {name: _Switch(settings, depth, name) for name in _Switch.WAYS}
    own: dict[str, list[float]] = {name: [] for name in ways}
    for repeat in range(rounds.repeats + 1):  # the first is a warm-up
        for name, switch in ways.items():
            seconds = [timed(switch.freeze, device)]
            for _ in range(FIRST_STEPS + STEADY_STEPS):
                seconds.append(timed(switch.step, device))
            switch.unfreeze()
            for _ in range(SETTLING):
                switch.step()
            if repeat:
                own[name] += seconds
    every = 1 + FIRST_STEPS + STEADY_STEPS
    rows = []
    for name, flat in own.items():
        slow = slowest(flat)
        runs = [slow[i : i + every] for i in range(0, len(slow), every)]
        steady = [statistics.median(run[1 + FIRST_STEPS :]) for run in runs]
        rows.append(
            {
                "way": name,
                "milliseconds": [1e3 * run[0] for run in runs],
                "steady_milliseconds": [1e3 * one for one in steady],
                "first_steps": [
                    [run[1 + i] / one for i in range(FIRST_STEPS)]
                    for run, one in zip(runs, steady, strict=True)
                ],
            }
        )
    return {"depth": depth, "ways": rows}


class _Switch:
    """A network in training whose first layers can be frozen and unfrozen again and again."""

    WAYS = ("followed", "wrapped again")

    def __init__(self, settings: Settings, depth: int, way: str) -> None:
        self._settings = settings
        self._depth = depth
        self._way = way
        self._model = settings.network()
        self._layers = split_layers(self._model)
        self._optimizer = sgd(groups_by_layer(self._layers))
        self._scheduler = CosineAnnealingLR(self._optimizer, T_max=TOTAL_STEPS)
        self._freezer = Freezer(self._layers, self._optimizer, strict=True)
        self._wrap()
        for _ in range(SETTLING):
            self.step()

    def _wrap(self) -> None:
        wrapper = DistributedDataParallel(self._model)
        self.step = training_step(self._settings, wrapper, self._optimizer, self._scheduler)

    def freeze(self) -> None:
        if self._way == "wrapped again":
            flip(self._layers, self._depth, live=False)
            self._wrap()
        else:
            self._freezer.set_depth(self._depth)

    def unfreeze(self) -> None:
        if self._way == "wrapped again":
            flip(self._layers, self._depth, live=True)
            self._wrap()
        else:
            self._freezer.unfreeze()


# ---------------------------------------------------------------- fully_shard


def _sharded_step(settings: Settings, size: tuple[int, int], depth: int, *, keep: bool) -> Step:
    model = mlp(settings, size)
    for layer in model:
        fully_shard(layer)
    fully_shard(model)
    return _frozen_step(settings, model, split_layers(model), depth, keep=keep)


def mlp(settings: Settings, size: tuple[int, int]) -> nn.Sequential:
    """Build the wide network of the sharded part: `size` is its width and number of layers."""
    torch.manual_seed(settings.seed)
    features = settings.channels * settings.image_size**2
    return wide_mlp(features, *size, settings.classes).to(settings.device)


def sharded(
    device: torch.device, settings: Settings, size: tuple[int, int], depth: int, rounds: Rounds
) -> dict[str, Any]:
    """Measure as `data_parallel` does, for ``fully_shard`` on every layer of a wide MLP."""
    settings = replace(settings, device=str(device))
    steps = {
        "unfrozen": _sharded_step(settings, size, 0, keep=False),
        "sharded": _sharded_step(settings, size, depth, keep=False),
        "kept": _sharded_step(settings, size, depth, keep=True),
    }
    times = take_turns(steps, rounds.rounds, SETTLING, rounds.seed, device)
    ways = {
        name: {
            "ratio": times.ratio(name, "unfrozen"),
            "milliseconds": 1e3 * times.median(name),
            "operations": count_sent(step).as_dict(),
        }
        for name, step in steps.items()
    }
    return {"depth": depth, "ways": ways}
