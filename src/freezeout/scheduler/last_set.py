"""The rates that were last set in an optimizer's groups: what others have changed since.

Groups are compared as objects: loading the optimizer's state puts other dicts in their place, and
that is no change by hand. Tensors are compared by their version, without waiting for a device.
"""

from __future__ import annotations

import math
import operator
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
        self._rates: list[Any] = []  # the very objects that lie in the groups
        self._initial: list[Any] = []
        self._versions: dict[int, int] = {}  # of those that are tensors
        self._is_plain = False  # nothing changed since, and no tensor: known at every step

    def forget(self) -> None:
        """Take the rates as they are, whoever set them."""
        self._groups = []
        self._is_plain = False

    def write(
        self, groups: Sequence[dict[str, Any]], rates: Sequence[float | torch.Tensor]
    ) -> bool:
        """Set the rate of every group, and note it. A tensor stays the same tensor.

        Returns:
            Whether all groups are known to hold plain numbers.
        """
        if self._is_plain:
            for group, rate in zip(groups, rates, strict=True):
                group["lr"] = rate
            self._rates = list(rates)
            self._is_plain = False
            return True
        if self._versions and len(self._rates) == len(groups):
            for group, kept in zip(groups, self._rates, strict=True):
                if isinstance(kept, torch.Tensor) and not isinstance(group["lr"], torch.Tensor):
                    group["lr"] = kept  # a number was put in its place
        for group, rate in zip(groups, rates, strict=True):
            lr = group["lr"]
            if isinstance(lr, torch.Tensor):
                is_shared = group.get("initial_lr") is lr
                if is_shared:  # SequentialLR of torch 2.6 makes them one
                    lr = group["lr"] = lr.clone()
                lr.fill_(float(rate))
            else:
                group["lr"] = rate
        self._rates = [group["lr"] for group in groups]
        if any(map(operator.is_not, groups, self._groups)) or not self._groups:
            self._groups = list(groups)
            self.note_initial(groups)
        else:
            self._note_versions()
        return False

    def note_initial(self, groups: Sequence[dict[str, Any]]) -> None:
        """Take every ``initial_lr`` as it is."""
        self._initial = [group.get("initial_lr") for group in groups]
        self._note_versions()

    def is_untouched(self, groups: Sequence[dict[str, Any]]) -> bool:
        """Return whether nothing at all was changed: the question of every step."""
        self._is_plain = False
        if len(groups) != len(self._groups):
            return not self._groups
        for group, ours, rate, initial in zip(
            groups, self._groups, self._rates, self._initial, strict=True
        ):
            if (
                group["lr"] is not rate
                or group is not ours
                or group.get("initial_lr") is not initial
            ):
                return False
        if not self._versions:
            self._is_plain = True
            return True
        return all(
            tensor._version == self._versions[id(tensor)]
            for tensor in (*self._rates, *self._initial)
            if isinstance(tensor, torch.Tensor)
        )

    def changed_rates(self, groups: Sequence[dict[str, Any]]) -> list[int]:
        """Return the groups whose rate is not the one that was set; none of those replaced."""
        return self._changed(groups, "lr", self._rates)

    def changed_initial_rates(self, groups: Sequence[dict[str, Any]]) -> list[int]:
        """Return the groups whose ``initial_lr`` is not what it was; none of those replaced."""
        return self._changed(groups, "initial_lr", self._initial)

    def _changed(
        self, groups: Sequence[dict[str, Any]], key: str, noted: Sequence[Any]
    ) -> list[int]:
        return [
            i
            for i, (group, ours, value) in enumerate(zip(groups, self._groups, noted, strict=False))
            if group is ours and not self._is_noted(group.get(key), value)
        ]

    def _is_noted(self, value: Any, noted: Any) -> bool:
        """Return whether a value is as it was; of a tensor this is known without reading it."""
        if isinstance(value, torch.Tensor) or isinstance(noted, torch.Tensor):
            return value is noted and value._version == self._versions[id(noted)]
        return bool(value is noted or value == noted)

    def _note_versions(self) -> None:
        self._versions = {
            id(value): value._version
            for value in (*self._rates, *self._initial)
            if isinstance(value, torch.Tensor)
        }


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
