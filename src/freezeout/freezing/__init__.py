"""Freeze and unfreeze a prefix of layers, and check that the backward pass stops there."""

from freezeout.freezing.eval_mode import (
    StayInEval as _StayInEval,  # noqa: F401  (its former name, in frozen models saved whole)
)
from freezeout.freezing.freezer import FreezeEvent, Freezer, Listener, unfreeze
from freezeout.freezing.groups import split_groups
from freezeout.freezing.optimizers import (
    check_optimizer,
    is_active,
    makes_state_only,
    unwrap_optimizer,
)
from freezeout.freezing.takes_rates import check_takes_rates

__all__ = [
    "FreezeEvent",
    "Freezer",
    "Listener",
    "check_optimizer",
    "check_takes_rates",
    "is_active",
    "makes_state_only",
    "split_groups",
    "unfreeze",
    "unwrap_optimizer",
]
