"""The rate of every layer by a schedule: what `FreezeOut` and its control have in common."""

from __future__ import annotations

import warnings
import weakref
from abc import abstractmethod
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, NoReturn

import torch
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler
from typing_extensions import Self, Unpack

from freezeout.errors import CheckpointError, FreezeOutError, check_whole
from freezeout.freezing import (
    Freezer,
    check_optimizer,
    check_takes_rates,
    makes_state_only,
    split_groups,
    unwrap_optimizer,
)
from freezeout.layers import Layers, LayerSpec, check_belongs, split_layers, unwrap
from freezeout.schedule import (
    Schedule,
    ScheduleSettings,
    annealing,
    make_schedule,
    rate_factors,
    warmup_factor,
)
from freezeout.scheduler.together import Together, check_partner, check_same_steps
from freezeout.wrappers import reshard

__all__ = ["RateScheduler"]

_CALLS_BEFORE_WARNING = 100
"""So many calls of ``step()`` without any update are more than a gradient scaler would skip."""


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
        together_with: A scheduler of the same class, of another optimizer of the same model.
        **settings: See `FreezeOut`.

    Attributes:
        schedule: The settings.
        layers: The layers of the model in execution order.
        freezer: Freezes them; it takes listeners.
        total_steps: Length of training in optimizer updates.
        freeze_times: When each layer freezes, as a fraction of training; 1 where it does not.
        freeze_steps: The same in steps; ``None`` where it does not.
    """

    schedule: Schedule
    layers: Layers
    freezer: Freezer
    freeze_times: tuple[float, ...]
    freeze_steps: tuple[int | None, ...]

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
        together_with: Self | None = None,
        **settings: Unpack[ScheduleSettings],
    ) -> None:
        optimizer = unwrap_optimizer(optimizer)
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
        count = len(self.layers)
        self._times = self.schedule.freeze_times(count)
        self._freeze_steps = self.schedule.freeze_steps(count, total_steps)
        self._thresholds = [n for n in self._freeze_steps[:-1] if n is not None]
        self.freeze_times = self._times if self._freezes else (1.0,) * count
        self.freeze_steps = self._freeze_steps if self._freezes else (None,) * count
        self.total_steps = int(total_steps)
        self._scales = self.schedule.scales(count)
        self._curve = annealing(self.schedule.anneal)
        self._sets_rates = self.schedule.anneal is not None
        self._together = Together()
        if together_with is not None:
            check_same_steps(self._freeze_steps, together_with._freeze_steps)
            self._together = together_with._together
        # A refusal up to here leaves the model and the optimizer as they were.
        self.freezer = self._make_freezer(optimizer, model, together_with, strict=strict)
        split = self._sets_rates or not self._freezes
        self._group_layers = split_groups(optimizer, self.layers) if split else []
        self._updates = 0
        self._idle_calls = 0
        self._warned_overrun = False
        self._loaded = False
        self._together.join(self)
        _count_updates(optimizer, self)
        super().__init__(optimizer)

    @abstractmethod
    def _make_freezer(
        self, optimizer: Optimizer, model: nn.Module, together_with: Self | None, *, strict: bool
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
        return rate_factors(
            step / self.total_steps,
            self._times,
            self._scales,
            self._curve,
            warmup_factor(step, self.schedule.warmup_steps),
        )

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
            UserWarning: If training goes on after `total_steps`, or never seems to begin.
        """
        if epoch is not None:
            hint = "It is the number of optimizer updates done; leave it out to have them counted."
            check_whole("epoch", epoch, hint)
            self._updates = int(epoch)
        n = self._updates
        self._idle_calls = self._idle_calls + 1 if n == self.last_epoch else 0
        self.last_epoch = n
        if n > self.total_steps or self._idle_calls >= _CALLS_BEFORE_WARNING:
            self._warn_of_misuse(n)
        self._apply(n)
        if self._loaded:  # a wrapper may have been made since
            self._loaded = False
            self.freezer.settle()

    def get_lr(self) -> list[float | torch.Tensor]:
        """Return the rate of every parameter group at the current step."""
        if not self._sets_rates:
            return [group["lr"] for group in self.optimizer.param_groups]
        factors = self.factors_at(self._updates)
        return [
            base * factors[i] for base, i in zip(self.base_lrs, self._group_layers, strict=True)
        ]

    def state_dict(self) -> dict[str, Any]:
        """Return the step and the settings in plain values, for ``weights_only=True``.

        A callable curve is noted by its name only.
        """
        return {
            "last_epoch": self._updates,
            "total_steps": self.total_steps,
            "schedule": self.schedule.to_dict(),
            "layers": list(self.layers.names),
            "base_lrs": [float(lr) for lr in self.base_lrs] if self._sets_rates else None,
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
        kind = type(self).__name__
        here = self.state_dict()
        if not isinstance(state_dict, Mapping):
            raise CheckpointError(
                f"the state must be a dict, got {type(state_dict).__name__}. "
                f"Load what state_dict() of a {kind} scheduler returned."
            )
        missing = sorted(here.keys() - state_dict.keys())
        if missing:
            raise CheckpointError(
                f"the state has no {', '.join(missing)}: it is not that of a {kind} scheduler. "
                "Load what its state_dict() returned."
            )
        done = state_dict["last_epoch"]
        if not isinstance(state_dict["schedule"], Mapping) or type(done) is not int or done < 0:
            raise CheckpointError(
                f"the state is damaged: last_epoch={done!r}. It must be a whole number of at "
                "least 0; load what state_dict() returned."
            )
        differences = self.schedule.differences(state_dict["schedule"])
        for key in here:
            if key not in ("last_epoch", "schedule") and state_dict[key] != here[key]:
                differences.append(_difference(key, state_dict[key], here[key]))
        if differences:
            raise CheckpointError(
                f"the checkpoint was made with other settings: {'; '.join(differences)}. "
                f"Construct {kind} as for the run that saved it."
            )
        self._updates = self.last_epoch = done
        self._loaded = True
        self._apply(self._updates)

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
        return bisect_right(self._thresholds, step)

    def _freeze(self, n: int) -> None:
        """Bring the frozen prefix up to date after `n` updates; a control freezes nothing."""

    def _apply(self, n: int) -> None:
        self._freeze(n)
        groups = self.optimizer.param_groups
        if self._group_layers:
            if len(groups) != len(self._group_layers):
                kind = type(self).__name__
                raise FreezeOutError(
                    f"the optimizer has {len(groups)} parameter groups, but {kind} split it into "
                    f"{len(self._group_layers)}. Add all groups before you make {kind}."
                )
            for group, rate in zip(groups, self.get_lr(), strict=True):
                lr = group["lr"]
                if isinstance(lr, torch.Tensor):
                    lr.fill_(float(rate))
                else:
                    group["lr"] = rate
        self._last_lr = [
            lr.clone() if isinstance(lr, torch.Tensor) else lr
            for lr in (group["lr"] for group in groups)
        ]

    def _warn_of_misuse(self, n: int) -> None:
        if n > self.total_steps and not self._warned_overrun:
            self._warned_overrun = True
            effect = (
                "every rate is zero and training has no effect"
                if self._sets_rates
                else "no further layer will freeze"
            )
            warnings.warn(
                f"optimizer update {n} is beyond total_steps={self.total_steps}: {effect}. "
                "total_steps counts optimizer updates, not epochs; raise it.",
                UserWarning,
                stacklevel=3,
            )
        elif self._idle_calls == _CALLS_BEFORE_WARNING:
            warnings.warn(
                f"{_CALLS_BEFORE_WARNING} calls of scheduler.step() saw no update of the "
                "optimizer, so nothing advances. Call optimizer.step() before scheduler.step(); "
                "where it runs out of sight (a captured graph), give the number of updates: "
                "scheduler.step(n).",
                UserWarning,
                stacklevel=3,
            )


def _count_updates(optimizer: Optimizer, scheduler: RateScheduler) -> None:
    """Count the updates that really happen, for as long as the scheduler lives."""
    alive = weakref.ref(scheduler)

    def count(optimizer: Optimizer, args: Any, kwargs: Any) -> None:
        scheduler = alive()
        # Fused optimizers are stepped by a gradient scaler even where it wants the step skipped.
        skipped = getattr(optimizer, "found_inf", None)
        if scheduler is None or (skipped is not None and bool(skipped)):
            return
        if not makes_state_only(optimizer):
            scheduler._updates += 1

    optimizer.register_step_post_hook(count)


def _difference(key: str, there: Any, here: Any) -> str:
    """Write down how two values differ; of two lists, their lengths or the first pair."""
    if isinstance(there, list) or isinstance(here, list):  # real networks have hundreds of layers
        counts = [len(side) if isinstance(side, list) else "no" for side in (there, here)]
        if counts[0] != counts[1]:
            return f"{counts[0]} {key} there but {counts[1]} here"
        index = next(i for i, (a, b) in enumerate(zip(there, here, strict=True)) if a != b)
        key, there, here = f"{key}[{index}]", there[index], here[index]
    return f"{key}={there!r} there but {key}={here!r} here"
