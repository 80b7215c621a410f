"""The rates that were last set in an optimizer's groups: what others have changed since.

Groups are compared as objects: loading the optimizer's state puts other dicts in their place, and
that is no change by hand. Tensors are compared by their version, without waiting for a device.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch.optim import Optimizer

from freezeout.errors import is_number

__all__ = ["LastSet", "check_rate", "last_set_of", "remember"]


class LastSet:
    """The rates that were last set in the groups of an optimizer, to see what others change."""

    def __init__(self) -> None:
        self._groups: list[dict[str, Any]] = []
        self._rates: list[tuple[Any, int]] = []  # of a tensor: itself and its version
        self._initial: list[tuple[Any, int]] = []

    def forget(self) -> None:
        """Take the rates as they are, whoever set them."""
        self._groups = []

    def write(
        self, groups: Sequence[dict[str, Any]], rates: Sequence[float | torch.Tensor]
    ) -> None:
        """Set the rate of every group, and note it. A tensor stays the same tensor."""
        kept = self._rates if len(self._rates) == len(groups) else [(None, 0)] * len(groups)
        noted: list[tuple[Any, int]] = []
        for group, rate, (last, _) in zip(groups, rates, kept, strict=True):
            lr = group["lr"]
            if isinstance(last, torch.Tensor) and not isinstance(lr, torch.Tensor):
                lr = group["lr"] = last  # a number was put in its place
            if isinstance(lr, torch.Tensor):
                lr.fill_(float(rate))
                noted.append((lr, lr._version))
            else:
                group["lr"] = rate
                noted.append((rate, 0))
        self._rates = noted
        self._groups = list(groups)
        self._initial = [_mark(group.get("initial_lr")) for group in groups]

    def changed_rates(self, groups: Sequence[dict[str, Any]]) -> list[int]:
        """Return the groups whose rate is not the one that was set; none of those replaced."""
        return [
            i
            for i, (group, ours, mark) in enumerate(
                zip(groups, self._groups, self._rates, strict=False)
            )
            if group is ours and not _is_marked(group["lr"], mark)
        ]

    def changed_initial_rates(self, groups: Sequence[dict[str, Any]]) -> list[int]:
        """Return the groups whose ``initial_lr`` is not what it was; none of those replaced."""
        return [
            i
            for i, (group, ours, mark) in enumerate(
                zip(groups, self._groups, self._initial, strict=False)
            )
            if group is ours and not _is_marked(group.get("initial_lr"), mark)
        ]

    def note_initial(self, groups: Sequence[dict[str, Any]]) -> None:
        """Take every ``initial_lr`` as it is."""
        self._initial = [_mark(group.get("initial_lr")) for group in groups]


_LAST: WeakKeyDictionary[Optimizer, LastSet] = WeakKeyDictionary()
"""What a `RateScheduler` last set in an optimizer, for the next one that is made for it."""


def remember(optimizer: Optimizer, last: LastSet | None) -> None:
    """Keep what is set in an optimizer for the next scheduler that is made for it."""
    if last is None:
        _LAST.pop(optimizer, None)
    else:
        _LAST[optimizer] = last


def last_set_of(optimizer: Optimizer) -> LastSet | None:
    """Return what an earlier scheduler of ours last set in an optimizer; ``None`` if none did."""
    return _LAST.get(optimizer)


def check_rate(name: str, rate: object) -> None:
    """Raise unless a value is a learning rate.

    Args:
        name: Where it was found.
        rate: The value.

    Raises:
        TypeError: If it is no number.
        ValueError: If it is not finite or negative.
    """
    hint = "A learning rate is a number or a tensor of one element; give one."
    if isinstance(rate, torch.Tensor):
        if rate.numel() != 1:
            raise TypeError(f"{name} must hold one element, got {rate.numel()}. {hint}")
        rate = float(rate)
    if not is_number(rate):
        raise TypeError(f"{name} must be a number, got {rate!r}. {hint}")
    if not (math.isfinite(rate) and rate >= 0):
        raise ValueError(f"{name} must be at least 0 and finite, got {rate}. {hint}")


def _mark(value: Any) -> tuple[Any, int]:
    return value, value._version if isinstance(value, torch.Tensor) else 0


def _is_marked(value: Any, mark: tuple[Any, int]) -> bool:
    """Return whether a value is as it was; of a tensor this is known without reading it."""
    kept, version = mark
    if isinstance(value, torch.Tensor) or isinstance(kept, torch.Tensor):
        return value is kept and bool(value._version == version)
    return bool(value is kept or value == kept)
