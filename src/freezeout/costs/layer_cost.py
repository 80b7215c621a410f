"""What one layer costs in a training step."""

from __future__ import annotations

import math
from dataclasses import dataclass

from freezeout.errors import is_number

__all__ = ["LayerCost", "is_finite"]


@dataclass(frozen=True, kw_only=True)
class LayerCost:
    """What one layer costs in one training step.

    Seconds of single layers can come out slightly below 0 where they are smaller than the noise of
    the measurement; their sums over a step are what was measured.

    Args:
        name: Name of the layer.
        forward: Seconds of its forward pass while it learns.
        frozen_forward: Seconds of its forward pass once it is frozen (nothing is saved, BatchNorm
            uses running statistics).
        backward: Seconds by which the backward pass is shorter once it is frozen, after those
            before it; for the last layer, those that stay.
        optimizer: Seconds of its part of the optimizer's step.
        forward_flops: Floating-point operations forward; one multiply-add counts 2.
        backward_flops: Those by which the backward pass shrinks once it is frozen; below 0 where
            another kernel then does more (attention without dropout).
        saved_bytes: Held for the backward pass until this layer is frozen.
        parameter_bytes: Of its parameters.
        gradient_bytes: Of their gradients: what data-parallel training exchanges.
        state_bytes: Of optimizer state.
    """

    name: str
    forward: float
    frozen_forward: float
    backward: float
    optimizer: float
    forward_flops: int
    backward_flops: int
    saved_bytes: int
    parameter_bytes: int
    gradient_bytes: int
    state_bytes: int

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            whole = name.endswith(("flops", "bytes"))
            if name == "name":
                continue
            least = -math.inf if name == "backward_flops" else 0  # frozen layers may do more
            right = isinstance(value, int) and value >= least if whole else True
            if not (is_finite(value) and right):
                kind = "a whole number of at least 0" if whole else "a finite number"
                raise ValueError(f"{name} of layer {self.name!r} must be {kind}, got {value!r}.")

    @property
    def seconds(self) -> float:
        """Seconds of a step spent on it while it learns."""
        return self.forward + self.backward + self.optimizer

    @property
    def saving(self) -> float:
        """Seconds by which a step gets shorter once it is frozen, after those before it."""
        return self.seconds - self.frozen_forward


def is_finite(value: object) -> bool:
    """Return whether a value is a finite number that JSON has."""
    # JSON takes Python's own numbers only.
    return isinstance(value, (int, float)) and is_number(value) and math.isfinite(value)
