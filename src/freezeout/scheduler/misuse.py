"""Ways of calling a scheduler that cannot be meant, each told once."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

__all__ = ["Misuse"]

_CALLS_BEFORE_WARNING = 100
"""So many calls of ``step()`` without any update are more than a gradient scaler would skip."""


class Misuse:
    """Watch how a scheduler is called, and tell once of each thing that cannot be meant.

    Args:
        total_steps: Length of training in optimizer updates.
        freeze_steps: Updates after which layers freeze, in order.
        sets_rates: Whether the scheduler sets rates, or only freezes.
    """

    def __init__(self, total_steps: int, freeze_steps: Sequence[int], *, sets_rates: bool) -> None:
        self._total_steps = total_steps
        # Who steps once an epoch, and trains for two or more, has stepped by half of the training.
        self._overdue = max(freeze_steps[0], total_steps // 2) if freeze_steps else None
        self._sets_rates = sets_rates
        self._idle_calls = 0
        self._told: set[str] = set()

    def called(self, updates: int, *, idle: bool) -> None:
        """Note a call of ``step()``.

        Args:
            updates: Optimizer updates done.
            idle: Whether there was none since the last call.
        """
        self._idle_calls = self._idle_calls + 1 if idle else 0
        if updates > self._total_steps:
            effect = (
                "every rate is zero and training has no effect"
                if self._sets_rates
                else "no further layer will freeze"
            )
            self._tell(
                "overrun",
                f"optimizer update {updates} is beyond total_steps={self._total_steps}: {effect}. "
                "total_steps counts optimizer updates, not epochs; raise it.",
            )
        elif self._idle_calls == _CALLS_BEFORE_WARNING:
            self._tell(
                "idle",
                f"{_CALLS_BEFORE_WARNING} calls of scheduler.step() saw no update of the "
                "optimizer, so nothing advances. Call optimizer.step() before scheduler.step(); "
                "where it runs out of sight (a captured graph), give the number of updates: "
                "scheduler.step(n).",
            )

    def updated_without_step(self, updates: int) -> None:
        """Note an update of a run in which ``step()`` has never been called."""
        if self._overdue is not None and updates > self._overdue:
            self._tell(
                "never stepped",
                f"{updates} of {self._total_steps} optimizer updates are done and the first layer "
                "should be frozen by now, but scheduler.step() was never called, so rates stay "
                "as they were and no layer freezes. Call it after each optimizer.step().",
            )

    def updated_at(self, rates: Sequence[Any], taken: Sequence[Any]) -> None:
        """Note an update at rates that `step` did not set.

        Args:
            rates: The rates.
            taken: What ``get_lr()`` returned last, since the last call of ``step()``.
        """
        if [float(rate) for rate in rates] == [float(rate) for rate in taken]:
            self._tell(
                "get_lr",
                "the rates of an optimizer update were taken from get_lr(), and step() was not "
                "called. They are right, but no layer freezes: call scheduler.step() after each "
                "optimizer.step().",
            )

    def _tell(self, key: str, message: str) -> None:
        if key not in self._told:
            self._told.add(key)
            warnings.warn(message, UserWarning, stacklevel=4)
