"""Exceptions and warnings of freezeout.

::

    FreezeOutError
    ├── SplitError         a model cannot be cut into an ordered list of layers
    ├── PrefixError        a frozen layer's output still needs a gradient (only when strict)
    ├── DistributedError   processes disagree on what freezes, or a wrapper cannot follow a freeze
    ├── CostError          a training step cannot be measured, or measured costs do not fit
    ├── CheckpointError    a checkpoint is damaged, or was made by another network or other settings
    ├── DataError          a data file is missing, damaged or not what it says it is
    ├── RunError           a training run cannot start or go on (settings, folder, disk, launcher)
    └── DivergenceError    the loss became NaN or infinite

    FrozenPrefixWarning    freezing was asked for but saves less than it could

Bad arguments raise ``ValueError`` or ``TypeError``, as everywhere in Python. Every message says
what was given, what is allowed, and what to do.
"""

from __future__ import annotations

__all__ = [
    "CheckpointError",
    "CostError",
    "DataError",
    "DistributedError",
    "DivergenceError",
    "FreezeOutError",
    "FrozenPrefixWarning",
    "PrefixError",
    "RunError",
    "SplitError",
]


class FreezeOutError(Exception):
    """Base of every exception that freezeout raises for other reasons than a bad argument."""


class SplitError(FreezeOutError):
    """A model cannot be cut into an ordered list of layers."""


class PrefixError(FreezeOutError):
    """The output of a frozen layer still needs a gradient, so the backward pass does not stop."""


class DistributedError(FreezeOutError):
    """Processes disagree on what freezes, or a wrapper around the model cannot follow a freeze."""


class CostError(FreezeOutError):
    """A training step cannot be measured, or measured costs do not belong to the model."""


class CheckpointError(FreezeOutError):
    """A checkpoint is damaged, or belongs to another network or to other settings."""


class DataError(FreezeOutError):
    """A data file is missing, damaged, or not what its name says."""


class RunError(FreezeOutError):
    """A training run cannot start or go on."""


class DivergenceError(FreezeOutError):
    """The loss became NaN or infinite.

    Args:
        step: The optimizer step (counted from 1) whose loss was the first not finite.
        message: The full sentence for the user.
    """

    def __init__(self, step: int, message: str) -> None:
        super().__init__(message)
        self.step = step


class FrozenPrefixWarning(UserWarning):
    """Freezing works, but saves less than it could; the text says what stands in the way."""
