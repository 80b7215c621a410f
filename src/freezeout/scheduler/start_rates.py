"""The rates that a run starts from: whether there are any, and who set them."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.optim import Optimizer

from freezeout.scheduler.last_set import check_rate, last_set_of, remember
from freezeout.scheduler.others import is_plateau, schedulers_of, setter_of

__all__ = ["check_base_rates", "rate_in_every_group", "rates_in", "take_over"]


def take_over(optimizer: Optimizer, *, sets_rates: bool) -> None:
    """Make rates that were set by hand after an earlier run the base rates of the next.

    Every scheduler starts from ``initial_lr``, which the first one leaves in the groups. A rate
    that was set since then would be ignored.

    Args:
        optimizer: Its groups may hold rates that an earlier scheduler left.
        sets_rates: Whether the next scheduler sets any. If not, another one will.

    Warns:
        UserWarning: If it cannot be known who set the rates.
    """
    if not sets_rates:
        remember(optimizer, None)
        return
    groups = optimizer.param_groups
    _tell_of_one_cycle(groups)
    left = [i for i, group in enumerate(groups) if _is_off(group)]
    if not left:
        return
    rates = [float(group["lr"]) for group in groups]
    others = schedulers_of(optimizer)
    setter = setter_of(rates, others)
    if setter is not None and not is_plateau(setter):
        return  # what a scheduler has come down to is no new base rate
    last = last_set_of(optimizer)
    if last is not None:
        left = [i for i in last.changed_rates(groups) if i in left]
    elif not others:
        _tell_of_unknown(groups[left[0]], left[0], any(rates))
        return
    for i in left:
        lr = groups[i]["lr"]
        groups[i]["initial_lr"] = lr.clone() if isinstance(lr, torch.Tensor) else lr


def check_base_rates(optimizer: Optimizer, kind: str) -> None:
    """Raise unless every group has a rate that can be multiplied.

    Args:
        optimizer: The optimizer.
        kind: Name of the scheduler, for messages.

    Raises:
        TypeError: If a group has no rate, or it is no number.
        ValueError: If it is not finite or negative.

    Warns:
        UserWarning: If all rates are 0, so that nothing would learn.
    """
    bases = []
    for i, group in enumerate(optimizer.param_groups):
        if group.get("lr") is None:
            raise TypeError(
                f"parameter group {i} of {type(optimizer).__name__} has no learning rate (lr is "
                f"None or missing), but {kind} sets the rate of every group. Give the optimizer "
                "lr=... (Adafactor: with relative_step=False), or make "
                f"{kind}(anneal=None), which only freezes."
            )
        for key in ("lr", "initial_lr"):
            if group.get(key) is not None:
                check_rate(f'param_groups[{i}]["{key}"]', group[key])
        initial = group.get("initial_lr")
        bases.append(float(group["lr"] if initial is None else initial))
    if not any(bases):
        warnings.warn(
            f"every base rate of {type(optimizer).__name__} is 0, so nothing learns. Give the "
            "optimizer lr=... above 0.",
            UserWarning,
            stacklevel=3,
        )


def _tell_of_one_cycle(groups: list[dict[str, Any]]) -> None:
    """Tell of the first rate of a ``OneCycleLR``, which it leaves as everybody's base rate."""
    for i, group in enumerate(groups):
        highest, initial = group.get("max_lr"), group.get("initial_lr")
        if highest is not None and initial is not None and float(initial) < float(highest):
            warnings.warn(
                f"parameter group {i} was given to OneCycleLR, which left initial_lr="
                f"{float(initial):g} there, {float(highest) / float(initial or 1):.3g} times below "
                "its highest rate, and rates start from that. Set initial_lr in each group to the "
                "base rate you want, or make a new optimizer.",
                UserWarning,
                stacklevel=4,
            )
            return


def rates_in(optimizer: Optimizer) -> list[Any]:
    """Return the rate of every group, ``None`` for an optimizer that chooses its rates itself."""
    return [group.get("lr") for group in optimizer.param_groups]


@contextmanager
def rate_in_every_group(optimizer: Optimizer) -> Iterator[None]:
    """Let torch note the rates of an optimizer that may have none, and leave no trace of it."""
    without = [group for group in optimizer.param_groups if "lr" not in group]
    for group in without:
        group["lr"] = None
    try:
        yield
    finally:
        for group in optimizer.param_groups:
            if group.get("initial_lr", 0) is None:
                del group["initial_lr"]
        for group in without:
            del group["lr"]


def _is_off(group: dict[str, Any]) -> bool:
    initial = group.get("initial_lr")
    if initial is None:
        return False
    return not math.isclose(float(initial), float(group["lr"]), rel_tol=1e-9)


def _tell_of_unknown(group: dict[str, Any], index: int, learns: bool) -> None:
    if learns:  # at a rate of 0 an earlier schedule has come to its end
        initial = float(group["initial_lr"])
        warnings.warn(
            f"parameter group {index} has the rate {float(group['lr']):g}, but the initial_lr "
            f"{initial:g} that an earlier scheduler left, and rates start from {initial:g}, as "
            'with every scheduler. To start from the present rates, do group.pop("initial_lr") '
            "for each group before.",
            UserWarning,
            stacklevel=4,
        )
