"""Savings of any stretch of steps."""

from __future__ import annotations

from collections.abc import Mapping
from math import fsum

from freezeout.costs import Costs

__all__ = ["predicted_saving"]


def predicted_saving(costs: Costs, steps_at_depth: Mapping[int, int]) -> float:
    """Return the saving of any stretch of training steps.

    Args:
        costs: Measured costs.
        steps_at_depth: How many steps were taken with each number of frozen layers.

    Returns:
        A fraction; 0 for no steps.
    """
    count = sum(steps_at_depth.values())
    spent = fsum(n * costs.step_seconds(depth) for depth, n in steps_at_depth.items())
    return 1.0 - spent / (count * costs.step_seconds(0)) if count else 0.0
