"""The rate of every layer by a schedule: what `FreezeOut` and its control have in common."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, NoReturn

import torch
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler
from typing_extensions import Self, Unpack

from freezeout.errors import FreezeOutError, check_whole
from freezeout.freezing import (
    Freezer,
    check_groups,
    check_optimizer,
    check_takes_rates,
    note_wrappers,
    unwrap_optimizer,
)
from freezeout.layers import Layers, LayerSpec, check_belongs, split_layers, unwrap
from freezeout.schedule import (
    Schedule,
    ScheduleSettings,
    make_schedule,
)
from freezeout.scheduler.base_rates import BaseRates
from freezeout.scheduler.counting import count_updates
from freezeout.scheduler.last_set import LastSet
from freezeout.scheduler.misuse import Misuse
from freezeout.scheduler.split import split_by_layer
from freezeout.scheduler.start_rates import (
    check_base_rates,
    rate_in_every_group,
    rates_in,
    take_over,
)
from freezeout.scheduler.state import check_state
from freezeout.scheduler.timetable import Timetable
from freezeout.scheduler.together import (
    Together,
    check_one_model,
    check_partner,
    check_same_steps,
    is_latest,
    note_model,
)
from freezeout.scheduler.turns import Turns
from freezeout.wrappers import reshard

__all__ = ["RateScheduler"]


class RateScheduler(LRScheduler):
    """Set every layer's learning rate as a schedule says; the base of `FreezeOut` and `RateOnly`.

    Progress is the count of optimizer updates that really happened. A subclass makes the freezer
    (`_make_freezer`) and says what to do with it (`_freeze`).

    Args:
        optimizer: See `FreezeOut`.
        model: See `FreezeOut`.
        total_steps: See `FreezeOut`.
        schedule: See `FreezeOut`.
        layers: See `FreezeOut`.
        example: See `FreezeOut`.
        strict: See `FreezeOut`.
        witness: See `FreezeOut`.
        together_with: A scheduler of the same class, of another optimizer of the same model.
        **settings: See `FreezeOut`.

    Attributes:
        schedule: The settings.
        layers: The layers of the model in execution order.
        freezer: Freezes them; it takes listeners.
        total_steps: Length of training in optimizer updates.
    """

    schedule: Schedule
    layers: Layers
    freezer: Freezer
    _turns: Turns | None

    _freezes: ClassVar[bool] = True
    """Whether layers freeze at their freeze times, or only have the rate zero from then on."""

    def __init__(
        self,
        optimizer: Optimizer,
        model: nn.Module,
        total_steps: int,
        *,
        schedule: Schedule | None = None,
        layers: Layers | Sequence[LayerSpec] | None = None,
        example: Any = None,
        strict: bool = False,
        witness: bool = True,
        together_with: Self | None = None,
        **settings: Unpack[ScheduleSettings],
    ) -> None:
        given, optimizer = optimizer, unwrap_optimizer(optimizer)
        hint = "Pass the one that steps; unwrap it if a framework has wrapped it."
        check_optimizer(optimizer, hint)
        if together_with is not None:
            check_partner(together_with, type(self), optimizer, layers, example)
            layers = together_with.layers
        default = None if together_with is None else together_with.schedule
        self.schedule = make_schedule(schedule, settings, type(self), default=default)
        if self.schedule.anneal is not None or not self._freezes:
            check_takes_rates(optimizer)  # its groups are split
        if isinstance(model, nn.Module):
            reshard(unwrap(model))  # a layer holds the parameters that the optimizer knows
        self.layers = (
            layers
            if isinstance(layers, Layers)
            else split_layers(model, layers=layers, example=example)
        )
        check_belongs(self.layers, model, optimizer)
        self._sets_rates = self.schedule.anneal is not None
        if self._sets_rates:
            check_one_model(optimizer, self.layers.model, type(self).__name__)
            check_base_rates(optimizer, type(self).__name__)
        self._timetable = Timetable(self.schedule, len(self.layers), total_steps)
        self.total_steps = int(total_steps)
        self._together = Together()
        if together_with is not None:
            check_same_steps(self._timetable.planned, together_with._timetable.planned)
            self._together = together_with._together
        note_wrappers(given)
        split = self._sets_rates or not self._freezes
        if split:
            check_groups(optimizer, self.layers)
        # A refusal up to here leaves the model and the optimizer as they were.
        self.freezer = self._make_freezer(
            optimizer, model, together_with, strict=strict, witness=witness
        )
        if together_with is not None:
            self._turns = together_with._turns
        else:
            freezes = bool(self._timetable.thresholds)
            self._turns = Turns(self.layers, self.freezer.optimizers) if freezes else None
        take_over(optimizer, sets_rates=self._sets_rates)
        self._group_layers = split_by_layer(optimizer, self.layers) if split else []
        self._base = BaseRates(optimizer, self) if self._sets_rates else None
        note_model(optimizer, self)
        self._misuse = Misuse(
            self.total_steps, self._timetable.thresholds, sets_rates=self._sets_rates
        )
        self._updates = 0
        self._stepped = False
        self._taken: list[float | torch.Tensor] | None = None
        self._loaded = False
        self._together.join(self)
        count_updates(optimizer, self)
        with rate_in_every_group(optimizer):
            super().__init__(optimizer)
        self._given = [float(lr) for lr in self.base_lrs] if self._sets_rates else []
        self._stepped = False

    @abstractmethod
    def _make_freezer(
        self,
        optimizer: Optimizer,
        model: nn.Module,
        together_with: Self | None,
        *,
        strict: bool,
        witness: bool,
    ) -> Freezer:
        """Check what this class alone needs, then return the freezer: new, or `together_with`'s."""

    @property
    def _step_count(self) -> int:
        """For wrappers that look at it: Accelerate's stops stepping once it exceeds total_steps."""
        return min(self._updates, self.total_steps)

    @_step_count.setter
    def _step_count(self, count: int) -> None:
        """Ignore what torch counts: updates count here, not calls."""

    @property
    def freeze_times(self) -> tuple[float, ...]:
        """When each layer freezes, as a fraction of training; 1 where it does not."""
        return self._timetable.times if self._freezes else (1.0,) * len(self.layers)

    @property
    def freeze_steps(self) -> tuple[int | None, ...]:
        """The same in steps; ``None`` where it does not."""
        return self._timetable.steps if self._freezes else (None,) * len(self.layers)

    @property
    def frozen(self) -> int:
        """Length of the frozen prefix."""
        return self.freezer.depth

    @property
    def progress(self) -> float:
        """Optimizer updates done / `total_steps`."""
        return self._updates / self.total_steps

    def factors_at(self, step: int) -> tuple[float, ...]:
        """Return each layer's rate over its base rate after `step` optimizer updates.

        Args:
            step: Optimizer updates done, at least 0.
        """
        return self._timetable.factors_at(step)

    def step(self, epoch: int | None = None) -> None:
        """Bring rates and layers up to date. Call it after ``optimizer.step()``.

        Args:
            epoch: Optimizer updates done, at least 0, to jump there; by default those that have
                been counted.

        Raises:
            TypeError: If `epoch` is not a whole number.
            ValueError: If `epoch` is negative.
            FreezeOutError: If a parameter group was added to the optimizer or taken from it.

        Warns:
            UserWarning: If training goes on after `total_steps`, or never seems to begin; if
                another scheduler has set the rates.
        """
        if epoch is not None:
            hint = "It is the number of optimizer updates done; leave it out to have them counted."
            check_whole("epoch", epoch, hint)
        starts = epoch == 0 or self._waits  # at the base rates, whatever rates there are
        if self._base is not None and not starts:
            self._base.follow(self._rates, self._updates)
        if epoch is not None:
            self._updates = int(epoch)
        n = self._updates
        self._misuse.called(n, idle=n == self.last_epoch)
        self._stepped, self._taken = True, None
        self.last_epoch = n
        self._apply(n)
        if self._loaded:  # a wrapper may have been made since
            self._loaded = False
            self.freezer.settle()

    def _initial_step(self) -> None:
        """Start, from whatever rates there are: at construction and in a ``SequentialLR``."""
        self._start(None)

    def _update_lr(self, epoch: int | None = None) -> None:
        """Start at a step: a ``SequentialLR`` has come to its milestone."""
        self._start(epoch)

    def _start(self, epoch: int | None) -> None:
        if self._base is not None:
            self._base.last.forget()  # the rates are those of another scheduler
        self.step(epoch)

    @property
    def _waits(self) -> bool:
        """Whether it has not started: a ``SequentialLR`` has another scheduler before it."""
        return self.last_epoch < 0

    def get_lr(self) -> list[float | torch.Tensor]:
        """Return the rate of every parameter group at the current step."""
        rates = self._rates()
        self._taken = rates if self._updates != self.last_epoch else None
        return rates

    def _rates(self) -> list[float | torch.Tensor]:
        if not self._sets_rates:
            return rates_in(self.optimizer)
        factors = self._group_factors()
        return [base * factor for base, factor in zip(self.base_lrs, factors, strict=True)]

    def _group_factors(self) -> list[float]:
        factors = self.factors_at(self._updates)
        return [factors[i] for i in self._group_layers]

    def state_dict(self) -> dict[str, Any]:
        """Return the step and the settings in plain values, for ``weights_only=True``.

        A callable curve is noted by its name only.
        """
        state = self._plain_state()
        if self._waits or (self._base is not None and self._base.is_others_turn()):
            turn = "before" if self._waits else "after"
            state |= {"last_epoch": max(self.last_epoch, 0), "turn": turn}
        elif self._base is not None:
            self._base.follow(self._rates, self._updates)
        now = [float(lr) for lr in self.base_lrs] if self._sets_rates else []
        if now != self._given:
            state["base_lrs_now"] = now
        if self._timetable.deepest < len(self.layers) - 1:
            state["deepest"] = self._timetable.deepest
        return state

    def _plain_state(self) -> dict[str, Any]:
        """Return what every state holds."""
        return {
            "last_epoch": self._updates,
            "total_steps": self.total_steps,
            "schedule": self.schedule.to_dict(),
            "layers": list(self.layers.names),
            "base_lrs": self._given if self._sets_rates else None,
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go to the saved step: set its rates, and freeze what was frozen then.

        Args:
            state_dict: What `state_dict` returned, from a scheduler of the same settings. It is
                not changed.

        Raises:
            CheckpointError: If it was saved with other settings, another length of training or
                another cut of the model; nothing is changed then.
        """
        check_state(
            state_dict, self._plain_state(), self.schedule, type(self).__name__, len(self.layers)
        )
        turn = state_dict.get("turn")  # there only if a SequentialLR has another one at work
        self._updates = state_dict["last_epoch"]
        self.last_epoch = -1 if turn == "before" else self._updates
        self._loaded = self._stepped = True
        self._taken = None
        self._load(state_dict)
        self._apply(self._updates, set_rates=turn is None)

    def _load(self, state: Mapping[str, Any]) -> None:
        """Take what is in a state, which has been checked, beside the step."""
        deepest = state.get("deepest", len(self.layers) - 1)
        if self._turns is not None:
            self._turns.deepest = deepest
        self._timetable.limit(deepest)
        if self._base is not None:
            self._base.last.forget()
            self._base.restore(state.get("base_lrs_now", self._given))

    def __reduce__(self) -> NoReturn:
        raise TypeError(
            f"a {type(self).__name__} scheduler cannot be copied or pickled, because it counts the "
            "updates of its own optimizer. Save state_dict(), and load it into one made for the "
            "copy."
        )

    def table(self) -> str:
        """Return the layers with their sizes and freeze times, as plain text."""
        return self.layers.table(self.freeze_times)

    def __str__(self) -> str:
        return self.table()

    @property
    def _due(self) -> int:
        """How many layers are past their freeze times now."""
        return self._due_at(self._updates)

    def _due_at(self, step: int) -> int:
        """Return how many layers are past their freeze times after `step` updates."""
        return self._timetable.due_at(step)

    def _freeze(self, n: int) -> None:
        """Bring the frozen prefix up to date after `n` updates; a control freezes nothing."""

    def _apply(self, n: int, *, set_rates: bool = True) -> None:
        self._freeze(n)
        groups = self.optimizer.param_groups
        if self._group_layers:
            if len(groups) != len(self._group_layers):
                kind = type(self).__name__
                raise FreezeOutError(
                    f"the optimizer has {len(groups)} parameter groups, but {kind} split it into "
                    f"{len(self._group_layers)}. Add all groups before you make {kind}; later, "
                    f"call freezeout.unfreeze(model), then make a new optimizer and a new {kind}."
                )
            if set_rates and self._base is not None:
                plain = self._base.write(self._group_factors())
                if plain is not None:
                    self._last_lr = [*plain]
                    return
            elif set_rates:
                LastSet().write(groups, self._rates())
        self._last_lr = [
            lr.clone() if isinstance(lr, torch.Tensor) else lr for lr in rates_in(self.optimizer)
        ]

    def _updated(self) -> None:
        """Count an update of the optimizer, and look what learns in it."""
        if self._turns is not None:
            self._turns.look()
            if self._turns.deepest != self._timetable.deepest:
                self._timetable.limit(self._turns.deepest)
        if self._waits:
            return
        self._updates += 1
        if not self._stepped and is_latest(self):
            self._misuse.updated_without_step(self._updates)
        if self._taken is not None and self._base is not None and not self._base.are_ours():
            self._misuse.updated_at(rates_in(self.optimizer), self._taken)
        self._taken = None
