"""Named settings: the paper's protocol, and a run that takes about a minute."""

from __future__ import annotations

from typing import Any

from freezeout.errors import RunError

__all__ = ["PRESETS", "preset"]

# Brock et al., 2017, section 3: SGD with Nesterov momentum, batch 50, rate 0.1, 100 epochs.
_PAPER: dict[str, Any] = {
    "epochs": 100,
    "batch_size": 50,
    "optimizer": "sgd",
    "lr": 0.1,
    "momentum": 0.9,
    "nesterov": True,
    "weight_decay": 1e-4,
    "padding": 4,
    "flip": True,
    "t0": 0.8,
    "spacing": "cubic",
    "scaled": True,
    "anneal": "cosine",
}

PRESETS: dict[str, dict[str, Any]] = {
    "demo": {"model": "wrn-16-4", "data": "digits", "epochs": 18, "threads": 1},
    "paper": _PAPER,
    "paper-densenet": {**_PAPER, "model": "densenet-76-12", "data": "cifar10"},
    "paper-wrn": {**_PAPER, "model": "wrn-40-4", "data": "cifar100"},
    "paper-vgg": {**_PAPER, "model": "vgg16", "data": "cifar100"},
    "paper-fast": {**_PAPER, "t0": 0.5},
    "paper-baseline": {**_PAPER, "t0": 1.0},
}
"""Each preset's settings; what one leaves out keeps its default.

``paper`` is the protocol alone, for any network and data; ``paper-fast`` freezes from 0.5 cubed
on, for more speed at some loss; ``paper-baseline`` freezes nothing.
"""


def preset(name: str) -> dict[str, Any]:
    """Return the settings of a preset.

    Args:
        name: One of `PRESETS`.

    Raises:
        RunError: If there is no such preset.
    """
    if not isinstance(name, str) or name not in PRESETS:
        raise RunError(f"unknown preset {name!r}: presets are {', '.join(PRESETS)}. Choose one.")
    return dict(PRESETS[name])
