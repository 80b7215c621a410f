"""Optimizers that take no rates by layer: one rate for all, or groups of their own."""

from __future__ import annotations

from typing import Any

from torch.optim import Optimizer

__all__ = ["check_takes_rates"]

_ESTIMATE = "d"
"""What D-Adaptation and Prodigy note in every group: their estimate of the distance to go."""

_BESIDE = ("growth_rate", "d0", "d_coef", "numerator_weighted")
"""Of these they note at least one more; a ``d`` alone may be something else."""


def check_takes_rates(optimizer: Optimizer) -> None:
    """Raise `ValueError` if a rate in a parameter group would not reach the group's parameters.

    D-Adaptation and Prodigy multiply what they estimate by the rate of the first group, or refuse
    groups of different rates: once the first layer had the rate zero, nothing would learn. Others
    step through groups that they copied or sorted when they were made, and never see the groups of
    single layers.

    Args:
        optimizer: The one whose groups are to be split by layer.
    """
    kind = type(optimizer).__name__
    if optimizer.param_groups and all(_estimates(g, kind) for g in optimizer.param_groups):
        raise ValueError(
            f"{kind} finds one rate for all parameters, so layers cannot have rates of their own: "
            "once the first had the rate zero, nothing would learn. Give anneal=None: layers then "
            "freeze, and the rates stay the optimizer's."
        )
    own = [name for name, value in vars(optimizer).items() if _are_groups(name, value)]
    if own:
        raise ValueError(
            f"{kind} keeps parameter groups of its own ({', '.join(own)}), so rates that are set "
            "in param_groups may never reach its parameters. Let it step through param_groups, or "
            "give anneal=None: layers then freeze, and the rates stay the optimizer's."
        )


def _estimates(group: dict[str, Any], kind: str) -> bool:
    beside = any(key in group for key in _BESIDE) or kind.startswith("DAdapt")
    return _ESTIMATE in group and beside


def _are_groups(name: str, value: object) -> bool:
    return (
        name != "param_groups"
        and isinstance(value, (list, tuple))
        and bool(value)
        and all(isinstance(entry, dict) and "params" in entry for entry in value)
    )
