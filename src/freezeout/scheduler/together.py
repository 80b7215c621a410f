"""Several optimizers of one model, whose schedulers freeze it as one."""

from __future__ import annotations

import gc
from typing import Protocol
from weakref import WeakKeyDictionary, ref

from torch import nn
from torch.optim import Optimizer

from freezeout.freezing import Freezer, is_active
from freezeout.layers import Layers

__all__ = [
    "Together",
    "check_alone",
    "check_one_model",
    "check_partner",
    "check_same_steps",
    "is_latest",
    "note_driver",
    "note_model",
]


class _Scheduler(Protocol):
    """What is asked of a `RateScheduler` here."""

    optimizer: Optimizer
    layers: Layers
    freezer: Freezer
    _sets_rates: bool

    @property
    def _due(self) -> int: ...
    @property
    def progress(self) -> float: ...


_DRIVERS: WeakKeyDictionary[nn.Module, ref[_Scheduler]] = WeakKeyDictionary()
"""Which `FreezeOut` drives a model, so that a second one does not freeze it separately."""

_OF_OPTIMIZER: WeakKeyDictionary[Optimizer, ref[_Scheduler]] = WeakKeyDictionary()
"""Which scheduler was made last for an optimizer."""


class Together:
    """The schedulers of all optimizers of one model, for as long as each lives."""

    def __init__(self) -> None:
        self._members: list[ref[_Scheduler]] = []

    def join(self, scheduler: _Scheduler) -> None:
        """Add a scheduler."""
        self._members.append(ref(scheduler))

    def __len__(self) -> int:
        return len(self._members)

    @property
    def due(self) -> int:
        """How many layers all of them are done with; one that is frozen whole has no say."""
        if len(self._members) == 1 and (only := self._members[0]()) is not None:
            return only._due
        members = [member for seen in self._members if (member := seen()) is not None]
        depths = {member._due for member in members}
        if len(depths) > 1:
            active = [member for member in members if is_active(member.optimizer)]
            depths = {member._due for member in active} or depths
        return min(depths)


def check_partner(
    partner: object, kind: type[_Scheduler], optimizer: Optimizer, layers: object, example: object
) -> None:
    """Raise unless `partner` is the scheduler of another optimizer, and knows the layers."""
    if not isinstance(partner, kind):
        raise TypeError(
            f"together_with must be the {kind.__name__} of the other optimizer, got {partner!r}. "
            "Make that one first."
        )
    if partner.optimizer is optimizer:
        raise ValueError(
            "together_with drives the same optimizer, whose updates would count twice. It is for "
            "another optimizer of the same model; leave it out."
        )
    if layers is not None or example is not None:
        raise TypeError(
            "layers and example are those of together_with, so that both freeze the same layers. "
            "Leave them out here."
        )


def check_same_steps(here: tuple[int | None, ...], there: tuple[int | None, ...]) -> None:
    """Raise where two optimizers of one model would freeze a layer at different steps."""
    if here != there:
        index = next(i for i, pair in enumerate(zip(here, there, strict=True)) if len({*pair}) > 1)
        raise ValueError(
            f"two optimizers of one model must freeze alike, but layer {index} is to freeze after "
            f"{here[index]} updates here and after {there[index]} in together_with. Give the same "
            "total_steps, and leave t0, spacing and the like out here."
        )


def note_driver(model: nn.Module, scheduler: _Scheduler) -> None:
    """Remember which `FreezeOut` drives a model."""
    _DRIVERS[model] = ref(scheduler)


def check_alone(model: nn.Module, optimizer: Optimizer) -> None:
    """Raise where another `FreezeOut` drives the model: they would undo each other's freezes."""
    alive = _DRIVERS.get(model)
    other = None if alive is None else alive()
    if other is None or optimizer in other.freezer.optimizers:
        return
    mine = {id(p) for group in optimizer.param_groups for p in group["params"]}
    theirs = {
        id(p) for o in other.freezer.optimizers for group in o.param_groups for p in group["params"]
    }
    if not mine & theirs:  # else a new run with a new optimizer
        raise ValueError(
            f"another FreezeOut drives this {type(other.layers.model).__name__} with an optimizer "
            "of other parameters. Both must agree on what is frozen: pass together_with=, the "
            "first one, when you make the second, or delete the first if it has done its work."
        )


def note_model(optimizer: Optimizer, scheduler: _Scheduler) -> None:
    """Remember which scheduler was made last for an optimizer."""
    _OF_OPTIMIZER[optimizer] = ref(scheduler)


def is_latest(scheduler: _Scheduler) -> bool:
    """Return whether no other scheduler was made for the same optimizer since."""
    return _OF_OPTIMIZER[scheduler.optimizer]() is scheduler


def check_one_model(optimizer: Optimizer, model: nn.Module, kind: str) -> None:
    """Raise where another scheduler sets the rates of an optimizer by the layers of another model.

    Each would split the groups by its own layers, and the other could go on no more. One that has
    come to its end does not matter.

    Args:
        optimizer: The optimizer.
        model: The model, without wrappers.
        kind: Name of the scheduler that is being made.
    """

    def is_in_the_way() -> bool:
        alive = _OF_OPTIMIZER.get(optimizer)
        other = None if alive is None else alive()
        if other is None or not other._sets_rates or other.progress >= 1.0:
            return False
        return other.layers.model is not model

    if not is_in_the_way():
        return
    gc.collect()  # it may be one that nobody holds any more
    if is_in_the_way():
        raise ValueError(
            f"another {kind} sets the rates of this optimizer by the layers of another model than "
            f"this {type(model).__name__}. Put both models into one module (an nn.ModuleList) and "
            f"give that, give each an optimizer of its own, or delete the first {kind} if it has "
            "done its work."
        )
