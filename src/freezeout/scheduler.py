"""`FreezeOut`: a learning-rate scheduler that freezes layers. A `Schedule` drives a `Freezer`."""

from __future__ import annotations

import warnings
import weakref
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any, NoReturn

import torch
from torch import nn
from torch.optim import LBFGS, Optimizer
from torch.optim.lr_scheduler import LRScheduler

from freezeout.errors import CheckpointError, FreezeOutError, FrozenPrefixWarning
from freezeout.freezing import Freezer
from freezeout.groups import split_groups
from freezeout.layers import Layers, LayerSpec, split_layers, unwrap
from freezeout.schedule import Anneal, Schedule, Spacing, annealing, rate_factors, warmup_factor

__all__ = ["FreezeOut"]

_CALLS_BEFORE_WARNING = 100
"""So many calls of ``step()`` without any update are more than a gradient scaler would skip."""


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
        schedule: All of these settings as one object, in place of giving them one by one.
        layers: How to cut the model (see `split_layers`), or its result.
        example: An example input, to find the true order of execution (see `split_layers`).
        strict: Raise, rather than warn, if a frozen layer's output still needs a gradient.

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
        ValueError: If a setting is out of range, or `layers` or `optimizer` are of another model.
        SplitError: If the model cannot be cut into layers.
        FreezeOutError: If the model is wrapped in ``DistributedDataParallel``.

    Warns:
        FrozenPrefixWarning: If a tied weight keeps the backward pass alive through frozen layers.

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
        schedule: Schedule | None = None,
        layers: Layers | Sequence[LayerSpec] | None = None,
        example: Any = None,
        strict: bool = False,
    ) -> None:
        _check_optimizer(optimizer)
        if _is_distributed(model):
            raise FreezeOutError(
                "FreezeOut cannot drive a model in DistributedDataParallel yet, because the step "
                "after a freeze would use gradients that were not averaged. Train in one process."
            )
        given = Schedule(
            t0=t0,
            spacing=spacing,
            scaled=scaled,
            anneal=anneal,
            warmup_steps=warmup_steps,
            scale_cap=scale_cap,
            times=times,
        )
        self.schedule = _one_of(schedule, given)
        self.layers = (
            layers
            if isinstance(layers, Layers)
            else split_layers(model, layers=layers, example=example)
        )
        _check_belongs(self.layers, model, optimizer)
        self.freeze_times = self.schedule.freeze_times(len(self.layers))
        self.freeze_steps = self.schedule.freeze_steps(len(self.layers), total_steps)
        self.total_steps = int(total_steps)
        self._scales = self.schedule.scales(len(self.layers))
        self._curve = annealing(self.schedule.anneal)
        self._thresholds = [n for n in self.freeze_steps[:-1] if n is not None]
        self._warn_of_ties()

        self.freezer = Freezer(self.layers, optimizer, strict=strict)
        self._sets_rates = self.schedule.anneal is not None
        self._group_layers = split_groups(optimizer, self.layers) if self._sets_rates else []
        self._updates = 0
        self._idle_calls = 0
        self._warned_overrun = False
        _count_updates(optimizer, self)
        super().__init__(optimizer)

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
            _check_updates(epoch)
            self._updates = epoch
        n = self._updates
        self._idle_calls = self._idle_calls + 1 if n == self.last_epoch else 0
        self._step_count += 1
        self.last_epoch = n
        if n > self.total_steps or self._idle_calls >= _CALLS_BEFORE_WARNING:
            self._warn_of_misuse(n)
        self._apply(n)

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
                differences.append(_difference(key, state_dict[key], own[key]))
        if differences:
            raise CheckpointError(
                f"the checkpoint was made with other settings: {'; '.join(differences)}. "
                "Construct FreezeOut as for the run that saved it."
            )
        self._updates = self.last_epoch = done
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
        depth = self.depth_at(n)
        if depth != self.freezer.depth:
            self.freezer.set_depth(depth, step=n)
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
                    "pass runs through all layers and less is saved. Untie it to save more.",
                    FrozenPrefixWarning,
                    stacklevel=3,
                )


def _check_updates(updates: object) -> None:
    hint = "It is the number of optimizer updates done; leave it out to have them counted."
    if not isinstance(updates, int) or isinstance(updates, bool):
        raise TypeError(f"step takes a whole number of at least 0, got {updates!r}. {hint}")
    if updates < 0:
        raise ValueError(f"step takes a whole number of at least 0, got {updates}. {hint}")


def _check_optimizer(optimizer: object) -> None:
    if not isinstance(optimizer, Optimizer):
        raise TypeError(
            f"optimizer must be a torch.optim.Optimizer, got {type(optimizer).__name__}. "
            "Pass the one that steps; unwrap it if a framework has wrapped it."
        )
    if isinstance(optimizer, LBFGS):
        raise TypeError(
            "FreezeOut cannot drive LBFGS: it moves parameters that have no gradient, so frozen "
            "layers would not stay as they are. Use an optimizer that skips them, as all others do."
        )


def _is_distributed(model: object) -> bool:
    """Also inside another wrapper, such as that of ``torch.compile``."""
    return isinstance(model, nn.Module) and any(
        isinstance(module, nn.parallel.DistributedDataParallel) for module in model.modules()
    )


def _check_belongs(layers: Layers, model: nn.Module, optimizer: Optimizer) -> None:
    if layers.model is not unwrap(model):
        raise ValueError(
            f"layers were cut from another {type(layers.model).__name__} than the model, so "
            "nothing of it would freeze. Cut the model that is trained: split_layers(model)."
        )
    if all(layers.index_of(p) is None for group in optimizer.param_groups for p in group["params"]):
        raise ValueError(
            f"the optimizer holds no parameter of the {type(layers.model).__name__} given as "
            "model, so no rate would be set. Make the optimizer from this model's parameters."
        )


def _one_of(schedule: Schedule | None, given: Schedule) -> Schedule:
    if schedule is None:
        return given
    if not isinstance(schedule, Schedule):
        raise TypeError(f"schedule must be a freezeout.Schedule, got {schedule!r}. Make one.")
    default = Schedule()
    both = [f.name for f in fields(given) if getattr(given, f.name) != getattr(default, f.name)]
    if both:
        raise TypeError(
            f"schedule already holds all settings, got {', '.join(both)} beside it. "
            "Give either the schedule or the settings one by one."
        )
    return schedule


def _count_updates(optimizer: Optimizer, scheduler: FreezeOut) -> None:
    """Counts the updates that really happen, for as long as the scheduler lives."""
    alive = weakref.ref(scheduler)

    def count(optimizer: Optimizer, args: Any, kwargs: Any) -> None:
        scheduler = alive()
        # Fused optimizers are stepped by a gradient scaler even where it wants the step skipped.
        skipped = getattr(optimizer, "found_inf", None)
        if scheduler is not None and not (skipped is not None and bool(skipped)):
            scheduler._updates += 1

    optimizer.register_step_post_hook(count)


def _difference(key: str, there: Any, here: Any) -> str:
    if key == "layers":
        return f"{len(there)} layers there but {len(here)} here, or other names"
    return f"{key}={there!r} there but {key}={here!r} here"
