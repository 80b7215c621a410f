"""Optimizers that find one step size for all parameters, and so take no rates by layer."""

from __future__ import annotations

import torch
from torch.optim import Optimizer

__all__ = ["check_takes_rates"]

_ESTIMATE = "d"
"""What D-Adaptation and Prodigy note in every parameter group: the distance to the solution."""


def check_takes_rates(optimizer: Optimizer) -> None:
    """Raise `ValueError` if the rates of single parameter groups cannot be set.

    D-Adaptation and Prodigy multiply what they estimate by the rate of the first group, or refuse
    groups of different rates. Once the first layer had the rate zero, nothing would learn.

    Args:
        optimizer: The one whose rates are to be set by layer.
    """
    groups = optimizer.param_groups
    if groups and all(isinstance(group.get(_ESTIMATE), (float, torch.Tensor)) for group in groups):
        raise ValueError(
            f"{type(optimizer).__name__} finds one rate for all parameters, so layers cannot have "
            "rates of their own: once the first had the rate zero, nothing would learn. "
            "Give anneal=None: layers then freeze, and the rates stay the optimizer's."
        )
