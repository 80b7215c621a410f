"""Exceptions and warnings of freezeout, and the checks of single arguments. No torch.

::

    FreezeOutError
    ├── SplitError         a model cannot be cut into an ordered list of layers
    ├── PrefixError        a frozen layer's output still needs a gradient (only when strict)
    ├── MovementError      what is frozen moved, or what should learn did not (only when strict)
    ├── DistributedError   processes disagree on what freezes, or a wrapper cannot follow a freeze
    ├── CostError          a training step cannot be measured, or measured costs do not fit
    ├── CheckpointError    a checkpoint is damaged, or was made by another network or other settings
    ├── DataError          a data file is missing, damaged or not what it says it is
    ├── RunError           a training run cannot start or go on (settings, folder, disk, launcher)
    └── DivergenceError    the loss became NaN or infinite

    FrozenPrefixWarning    freezing was asked for but saves less than it could
    MovementWarning        what is frozen moved, or what should learn does not

Bad arguments raise ``ValueError`` or ``TypeError``, as everywhere in Python. Every message says
what was given, what is allowed, and what to do.
"""

from __future__ import annotations

import math
import numbers
from typing import Literal, TypeGuard

__all__ = [
    "CheckpointError",
    "CostError",
    "DataError",
    "DistributedError",
    "DivergenceError",
    "FreezeOutError",
    "FrozenPrefixWarning",
    "MovementError",
    "MovementWarning",
    "PrefixError",
    "RunError",
    "SplitError",
    "check_bool",
    "check_fraction",
    "check_number",
    "check_whole",
    "is_number",
]


class FreezeOutError(Exception):
    """Base of every exception that freezeout raises for another reason than a bad argument."""


class SplitError(FreezeOutError):
    """A model cannot be cut into an ordered list of layers."""


class PrefixError(FreezeOutError):
    """The output of a frozen layer still needs a gradient, so the backward pass does not stop."""


class MovementError(FreezeOutError):
    """Something frozen moved, or something that should learn did not."""


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
        message: The whole sentence for the user.
    """

    def __init__(self, step: int, message: str) -> None:
        super().__init__(message)
        self.step = step


class FrozenPrefixWarning(UserWarning):
    """Freezing works, but saves less than it could; the text says what stands in the way."""


class MovementWarning(UserWarning):
    """Something frozen moved, or something that should learn does not; the text says what."""


def is_number(value: object) -> TypeGuard[float]:
    """Return whether a value is a real number; NumPy's are, truth values are not."""
    return isinstance(value, numbers.Real) and not isinstance(value, bool)


def check_bool(name: str, value: object, hint: str) -> None:
    """Raise `TypeError` unless a value is ``True`` or ``False``.

    Args:
        name: Name of the argument.
        value: Its value.
        hint: A sentence that says what the argument means or what to give.
    """
    if not isinstance(value, bool):
        raise TypeError(f"{name} must be True or False, got {value!r}. {hint}")


def check_whole(
    name: str, value: object, hint: str, *, least: int | None = 0, most: int | None = None
) -> None:
    """Raise unless a value is a whole number within bounds; NumPy's whole numbers are.

    Args:
        name: Name of the argument.
        value: Its value.
        hint: A sentence that says what the argument means or what to give.
        least: The smallest number allowed; ``None`` for no limits at all.
        most: The largest number allowed; ``None`` for no limit.

    Raises:
        TypeError: If it is not a whole number.
        ValueError: If it is out of bounds.
    """
    if isinstance(value, bool) or not isinstance(value, numbers.Integral):
        words = f" of at least {least}" if most is None else f" from {least} to {most}"
        words = "" if least is None else words
        raise TypeError(f"{name} must be a whole number{words}, got {value!r}. {hint}")
    largest = math.inf if most is None else most
    if least is not None and not least <= int(value) <= largest:
        words = f"be at least {least}" if most is None else f"lie in {least} to {most}"
        raise ValueError(f"{name} must {words}, got {value}. {hint}")


def check_number(
    name: str, value: object, hint: str, *, least: float = -math.inf, above: float = -math.inf
) -> None:
    """Raise unless a value is a finite real number within bounds.

    Args:
        name: Name of the argument.
        value: Its value.
        hint: A sentence that says what the argument means or what to give.
        least: The smallest number allowed.
        above: The number must be greater than this.

    Raises:
        TypeError: If it is not a number.
        ValueError: If it is not finite or out of bounds.
    """
    if not is_number(value):
        raise TypeError(f"{name} must be a number, got {value!r}. {hint}")
    if not (math.isfinite(value) and value >= least and value > above):
        words = "finite"
        if above > -math.inf:
            words = f"above {above:g} and finite"
        elif least > -math.inf:
            words = f"at least {least:g} and finite"
        raise ValueError(f"{name} must be {words}, got {value}. {hint}")


def check_fraction(
    name: str,
    value: object,
    hint: str,
    *,
    within: Literal["(0, 1]", "[0, 1)", "(0, 1)"] = "(0, 1]",
) -> None:
    """Raise unless a value is a number between 0 and 1.

    Args:
        name: Name of the argument.
        value: Its value.
        hint: A sentence that says what the argument means or what to give.
        within: The interval, which says whether 0 and 1 themselves are allowed.

    Raises:
        TypeError: If it is not a number.
        ValueError: If it is outside the interval.
    """
    if not is_number(value):
        raise TypeError(f"{name} must be a number in {within}, got {value!r}. {hint}")
    ends = ("[" in within and value == 0.0) or ("]" in within and value == 1.0)
    if not (0.0 < value < 1.0 or ends):
        raise ValueError(f"{name} must lie in {within}, got {value}. {hint}")
