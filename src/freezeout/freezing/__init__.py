"""Freeze and unfreeze a prefix of layers, and check that the backward pass stops there."""

from freezeout.freezing.account import Account, Entry
from freezeout.freezing.eval_mode import (
    StayInEval as _StayInEval,  # noqa: F401  (its former name, in frozen models saved whole)
)
from freezeout.freezing.eval_mode import chooses_only
from freezeout.freezing.freezer import FreezeEvent, Freezer, Listener
from freezeout.freezing.groups import check_groups, split_groups
from freezeout.freezing.holders import held_by, note_wrappers, unwrap_optimizer
from freezeout.freezing.hooks import Hook
from freezeout.freezing.optimizers import (
    check_optimizer,
    is_active,
    is_inner_step,
    makes_state_only,
)
from freezeout.freezing.takes_rates import check_takes_rates
from freezeout.freezing.undo import unfreeze

__all__ = [
    "Account",
    "Entry",
    "FreezeEvent",
    "Freezer",
    "Hook",
    "Listener",
    "check_groups",
    "check_optimizer",
    "check_takes_rates",
    "chooses_only",
    "held_by",
    "is_active",
    "is_inner_step",
    "makes_state_only",
    "note_wrappers",
    "split_groups",
    "unfreeze",
    "unwrap_optimizer",
]
