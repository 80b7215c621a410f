"""Named experiments: every one of the paper, at its scale, and a set that two CPU cores can do."""

from __future__ import annotations

import copy
from typing import Any

from freezeout.errors import RunError

__all__ = ["EXPERIMENTS", "experiment_preset"]

# The paper quotes t0 before spacing; its figures go from 0.9 down to 0.1 (section 3).
_T0 = [0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1]
_ALL_STRATEGIES: dict[str, Any] = {
    "t0": _T0,
    "spacing": ["linear", "cubic"],
    "scaled": [True, False],
}
_FAIR: dict[str, bool] = {"equal_time": True, "turns": True}
_CIFAR = ["cifar10", "cifar100"]

_SMALL: dict[str, Any] = {
    "preset": "paper",
    "train_size": 5000,
    "shrink": 2,
    "padding": 0,  # with random crops such small networks learn on for a hundred epochs
    "precision": "bf16",
    "threads": 1,
    "device": "cpu",
}

EXPERIMENTS: dict[str, dict[str, Any]] = {
    "paper-densenet": {
        "preset": "paper-densenet",
        "grid": {"data": _CIFAR, **_ALL_STRATEGIES, "seed": [0, 1, 2, 3, 4]},
    },
    "paper-wrn": {
        "preset": "paper-wrn",
        "grid": {"data": _CIFAR, **_ALL_STRATEGIES, "seed": [0, 1, 2, 3, 4]},
    },
    "paper-vgg": {
        "preset": "paper-vgg",
        "grid": {"data": _CIFAR, **_ALL_STRATEGIES, "seed": [0, 1, 2, 3, 4]},
    },
    "paper-fair": {
        "preset": "paper",
        "grid": {
            "model": ["wrn-40-4", "densenet-76-12", "vgg16"],
            "data": ["cifar100", "cifar10"],
            "seed": [0, 1, 2, 3, 4],
        },
        "arms": {**_FAIR, "rates_only": True},
    },
    "paper-small": {
        **_SMALL,
        "cells": [
            {"model": "wrn-16-1", "epochs": 30, "evaluate_every": 6},
            {"model": "densenet-16-8", "epochs": 30, "evaluate_every": 6},
            {"model": "vgg11-16", "epochs": 36, "evaluate_every": 9, "lr": 0.05},
        ],
        "grid": {"data": ["cifar10", "fashion-mnist"], "seed": [0, 1, 2, 3, 4]},
        "arms": _FAIR,
    },
}
"""Each experiment's values, as a sweep file has them.

``paper-densenet``, ``paper-wrn`` and ``paper-vgg`` are all the paper's strategies on both CIFARs;
``paper-fair`` compares its recommended one, cubic 0.8 scaled, with the equal-time baseline and the
rate-only control; ``paper-small`` does so without the control on images of half the size.
"""


def experiment_preset(name: str) -> dict[str, Any]:
    """Return the values of a named experiment.

    Args:
        name: One of `EXPERIMENTS`.

    Raises:
        RunError: If there is no such experiment.
    """
    if name not in EXPERIMENTS:
        raise RunError(
            f"unknown preset {name!r}: experiments are {', '.join(EXPERIMENTS)}. Choose one."
        )
    return copy.deepcopy(EXPERIMENTS[name])
