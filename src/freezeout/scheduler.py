"""`FreezeOut`: a learning-rate scheduler that freezes layers. A `Schedule` drives a `Freezer`."""

from __future__ import annotations

import warnings
import weakref
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, NoReturn

import torch
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from freezeout._scheduler_checks import (
    check_alone,
    check_belongs,
    check_optimizer,
    check_partner,
    check_same_steps,
    check_something_learns,
    check_updates,
    difference,
)
from freezeout.compiled import Graphs, recompile_trouble
from freezeout.distributed import reshard
from freezeout.errors import CheckpointError, FreezeOutError, FrozenPrefixWarning
from freezeout.freezing import Freezer
from freezeout.groups import split_groups
from freezeout.layers import Layers, LayerSpec, split_layers, unwrap
from freezeout.optimizers import is_active, makes_state_only, unwrap_optimizer
from freezeout.schedule import (
    Anneal,
    Schedule,
    Spacing,
    annealing,
    one_schedule,
    rate_factors,
    warmup_factor,
)

__all__ = ["FreezeOut"]

_CALLS_BEFORE_WARNING = 100
"""So many calls of ``step()`` without any update are more than a gradient scaler would skip."""

_DRIVERS: weakref.WeakKeyDictionary[nn.Module, weakref.ref[FreezeOut]] = weakref.WeakKeyDictionary()
"""Which `FreezeOut` drives a model, so that a second one does not freeze it apart."""


class FreezeOut(LRScheduler):
    r"""Anneals every layer's learning rate to zero on its own schedule, then freezes the layer.

    Use it as any other scheduler, and call ``step()`` after each optimizer step. Progress counts
    the optimizer updates that really happened: steps that a gradient scaler skipped, micro-batches
    of gradient accumulation and repeated calls do not advance it. Rates and frozen layers are a
    function of that count alone.

    At construction every parameter group is split by layer, once, so that each part can have its
    own rate; a group's other settings stay as they are. Groups are never added, removed or
    reordered afterwards. With ``anneal=None`` nothing is split and no rate is touched.

    Args:
        optimizer: Any ``torch.optim`` optimizer except ``LBFGS``. Load its state after this.
        model: The model that is trained.
        total_steps: Length of training in optimizer updates, at least 1: epochs times batches
            per epoch (divided by the accumulation steps).
        t0: Freeze time of the first layer before spacing, in (0, 1]; 1 freezes nothing.
        spacing: ``"linear"``, ``"squared"`` or ``"cubic"``.
        scaled: Whether a layer's initial rate is scaled by $1/t_i$.
        anneal: ``"cosine"``, ``"linear"``, a callable of $t/t_i$, or ``None``: only freeze, while
            another scheduler sets the rates.
        warmup_steps: Linear warm-up in optimizer steps, at least 0.
        scale_cap: Largest factor that scaling may put on a rate, at least 1, or ``None``.
        times: Explicit freeze times, one per layer, in place of `t0` and `spacing`.
        max_freezes: Most moments at which layers freeze, at least 1; neighbours freeze together.
        schedule: All of these settings as one object, in place of giving them one by one.
        layers: How to cut the model (see `split_layers`), or its result.
        example: An example input, to find the true order of execution (see `split_layers`).
        strict: Raise, rather than warn, if a frozen layer's output still needs a gradient.
        together_with: The `FreezeOut` of another optimizer of the same model (Muon for matrices,
            AdamW for the rest). Both freeze as one, a layer once both are done with it. Settings
            that are left out, and the layers, are those of the other.

    Attributes:
        schedule: The settings.
        layers: The layers of the model in execution order.
        freezer: Freezes them; it takes listeners.
        total_steps: Length of training in optimizer updates.
        freeze_times: When each layer freezes, as a fraction of training.
        freeze_steps: The same in steps; ``None`` for layers that learn to the end.

    Raises:
        TypeError: If an argument has the wrong type, or the optimizer moves parameters that have
            no gradient.
        ValueError: If a setting is out of range, `layers` or `optimizer` are of another model, or
            another `FreezeOut` drives this one and is not given as `together_with`.
        SplitError: If the model cannot be cut into layers.

    Warns:
        FrozenPrefixWarning: If a tied weight keeps the backward pass alive through frozen layers,
            or ``torch.compile`` would give up on the model after some freezes.

    Example:
        >>> net = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
        >>> optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
        >>> scheduler = FreezeOut(optimizer, net, total_steps=100, t0=0.5, spacing="linear")
        >>> for _ in range(50):
        ...     net(torch.randn(2, 4)).sum().backward()
        ...     optimizer.step()
        ...     optimizer.zero_grad()
        ...     scheduler.step()
        >>> scheduler.frozen, scheduler.get_last_lr()
        (1, [0.0, 0.05])

    Reference:
        Brock et al., "FreezeOut", 2017 (arXiv:1706.04983).
    """

    def __init__(
        self,
        optimizer: Optimizer,
        model: nn.Module,
        total_steps: int,
        *,
        t0: float = 0.8,
        spacing: Spacing = "cubic",
        scaled: bool = True,
        anneal: Anneal = "cosine",
        warmup_steps: int = 0,
        scale_cap: float | None = None,
        times: Sequence[float] | None = None,
        max_freezes: int | None = None,
        schedule: Schedule | None = None,
        layers: Layers | Sequence[LayerSpec] | None = None,
        example: Any = None,
        strict: bool = False,
        together_with: FreezeOut | None = None,
    ) -> None:
        optimizer = unwrap_optimizer(optimizer)
        check_optimizer(optimizer)
        given = Schedule(
            t0=t0,
            spacing=spacing,
            scaled=scaled,
            anneal=anneal,
            warmup_steps=warmup_steps,
            scale_cap=scale_cap,
            times=times,
            max_freezes=max_freezes,
        )
        self.schedule = one_schedule(schedule, given)
        if together_with is not None:
            check_partner(together_with, FreezeOut, optimizer, layers, example)
            layers = together_with.layers
            if schedule is None:  # what is left out is as it is there
                self.schedule = replace(together_with.schedule, **given.settings())
        if isinstance(model, nn.Module):
            reshard(unwrap(model))  # a layer holds the parameters that the optimizer knows
        self.layers: Layers = (
            layers
            if isinstance(layers, Layers)
            else split_layers(model, layers=layers, example=example)
        )
        check_belongs(self.layers, model, optimizer)
        check_alone(_driver_of(self.layers.model), optimizer, together_with)
        self.freeze_times = self.schedule.freeze_times(len(self.layers))
        self.freeze_steps = self.schedule.freeze_steps(len(self.layers), total_steps)
        self.total_steps = int(total_steps)
        self._scales = self.schedule.scales(len(self.layers))
        self._curve = annealing(self.schedule.anneal)
        self._thresholds = [n for n in self.freeze_steps[:-1] if n is not None]
        check_something_learns(self.layers, len(self._thresholds))
        self._warn_of_ties()

        if together_with is None:
            self.freezer = Freezer(self.layers, optimizer, strict=strict)
            self._together: list[weakref.ref[FreezeOut]] = []
            if self._thresholds:
                self.freezer.look_ahead()
        else:
            check_same_steps(self.freeze_steps, together_with.freeze_steps)
            self.freezer = together_with.freezer
            self.freezer.optimizers.append(optimizer)
            self._together = together_with._together
        self._together.append(weakref.ref(self))
        self._outermost = weakref.ref(model)
        self._sets_rates = self.schedule.anneal is not None
        self._group_layers = split_groups(optimizer, self.layers) if self._sets_rates else []
        self._updates = 0
        self._idle_calls = 0
        self._warned_overrun = False
        self._loaded = False
        self._told: set[str] = set()
        self._graphs = Graphs(self.layers)
        self._warn_of_compiling(recompile_trouble(self.layers, self.freeze_steps, model))
        _DRIVERS[self.layers.model] = weakref.ref(self)
        _count_updates(optimizer, self)
        super().__init__(optimizer)

    @property
    def _step_count(self) -> int:
        """For wrappers that look at it: Accelerate's stops stepping once it exceeds total_steps."""
        return min(self._updates, self.total_steps)

    @_step_count.setter
    def _step_count(self, count: int) -> None:
        """Updates are counted, not calls."""

    @property
    def frozen(self) -> int:
        """Length of the frozen prefix."""
        return self.freezer.depth

    @property
    def progress(self) -> float:
        """Optimizer updates done / `total_steps`."""
        return self._updates / self.total_steps

    def depth_at(self, step: int) -> int:
        """Length of the frozen prefix after `step` optimizer updates.

        Args:
            step: Optimizer updates done, at least 0.
        """
        return bisect_right(self._thresholds, step)

    def factors_at(self, step: int) -> tuple[float, ...]:
        """Each layer's rate relative to its base rate after `step` optimizer updates.

        Args:
            step: Optimizer updates done, at least 0.
        """
        return rate_factors(
            step / self.total_steps,
            self.freeze_times,
            self._scales,
            self._curve,
            warmup_factor(step, self.schedule.warmup_steps),
        )

    def step(self, epoch: int | None = None) -> None:
        """Brings rates and frozen layers up to date. Call it after ``optimizer.step()``.

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
            check_updates(epoch)
            self._updates = epoch
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
        """The rate of every parameter group at the current step."""
        if not self._sets_rates:
            return [group["lr"] for group in self.optimizer.param_groups]
        factors = self.factors_at(self._updates)
        return [
            base * factors[i] for base, i in zip(self.base_lrs, self._group_layers, strict=True)
        ]

    def state_dict(self) -> dict[str, Any]:
        """The step and the settings, in plain values (loads with ``weights_only=True``).

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
        """Goes to the saved step: sets the rates and freezes what was frozen then.

        Args:
            state_dict: What `state_dict` returned, from a scheduler of the same settings. It is
                not changed.

        Raises:
            CheckpointError: If it was saved with other settings, another length of training or
                another cut of the model; nothing is changed then.
        """
        own = self.state_dict()
        if not isinstance(state_dict, Mapping):
            raise CheckpointError(
                f"the state must be a dict, got {type(state_dict).__name__}. "
                "Load what state_dict() of a FreezeOut scheduler returned."
            )
        missing = sorted(own.keys() - state_dict.keys())
        if missing:
            raise CheckpointError(
                f"the state has no {', '.join(missing)}: it is not that of a FreezeOut scheduler. "
                "Load what its state_dict() returned."
            )
        done = state_dict["last_epoch"]
        if not isinstance(state_dict["schedule"], Mapping) or type(done) is not int or done < 0:
            raise CheckpointError(
                f"the state is damaged: last_epoch={done!r}. It must be a whole number of at "
                "least 0; load what state_dict() returned."
            )
        differences = self.schedule.differences(state_dict["schedule"])
        for key in ("total_steps", "layers", "base_lrs"):
            if state_dict[key] != own[key]:
                differences.append(difference(key, state_dict[key], own[key]))
        if differences:
            raise CheckpointError(
                f"the checkpoint was made with other settings: {'; '.join(differences)}. "
                "Construct FreezeOut as for the run that saved it."
            )
        self._updates = self.last_epoch = done
        self._loaded = True
        self._apply(self._updates)

    def __reduce__(self) -> NoReturn:
        raise TypeError(
            "a FreezeOut scheduler cannot be copied or pickled, because it counts the updates of "
            "its own optimizer. Save state_dict(), and load it into one made for the copy."
        )

    def table(self) -> str:
        """The layers with their sizes and freeze times, as plain text."""
        return self.layers.table(self.freeze_times)

    def __str__(self) -> str:
        return self.table()

    def _apply(self, n: int) -> None:
        for _ in self._together:  # with a freeze one of the optimizers may have run out
            depth = self._agreed_depth()
            if depth == self.freezer.depth:
                break
            self.freezer.set_depth(depth, step=n)
            model = self._outermost()  # None where it is gone
            trouble = self._graphs.make_room(self.layers.model if model is None else model, depth)
            self._warn_of_compiling(trouble, stacklevel=4)
        groups = self.optimizer.param_groups
        if self._sets_rates:
            if len(groups) != len(self._group_layers):
                raise FreezeOutError(
                    f"the optimizer has {len(groups)} parameter groups, but FreezeOut split it "
                    f"into {len(self._group_layers)}. Add all groups before you make FreezeOut."
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

    def _agreed_depth(self) -> int:
        """What all optimizers of the model are done with; one that is frozen whole has no say."""
        partners = [partner for ref in self._together if (partner := ref()) is not None]
        depths = {partner.depth_at(partner._updates) for partner in partners}
        if len(depths) > 1:
            active = [partner for partner in partners if is_active(partner.optimizer)]
            depths = {partner.depth_at(partner._updates) for partner in active} or depths
        return min(depths)

    def _warn_of_compiling(self, trouble: str | None, stacklevel: int = 3) -> None:
        if trouble is not None and trouble not in self._told:
            self._told.add(trouble)
            warnings.warn(trouble, FrozenPrefixWarning, stacklevel=stacklevel)

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

    def _warn_of_ties(self) -> None:
        for names, first, owner in self.layers.early_ties():
            until = self.freeze_steps[owner]
            if self._thresholds and (until is None or until > self._thresholds[0]):
                warnings.warn(
                    f"the tied weight {' = '.join(map(repr, names))} is used by layer {first} but "
                    f"learns with layer {owner}, its last user. Until that freezes, the backward "
                    f"pass runs through every layer from {first} on and less is saved. Untie it to "
                    "save more.",
                    FrozenPrefixWarning,
                    stacklevel=3,
                )


def _driver_of(model: nn.Module) -> FreezeOut | None:
    alive = _DRIVERS.get(model)
    return None if alive is None else alive()


def _count_updates(optimizer: Optimizer, scheduler: FreezeOut) -> None:
    """Counts the updates that really happen, for as long as the scheduler lives."""
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
