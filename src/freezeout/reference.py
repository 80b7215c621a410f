"""The oracle: FreezeOut's rates with nothing ever frozen, slow and obvious.

Every gradient is computed to the end of training; a layer whose freeze time has come merely has
the rate zero, and its modules are in inference mode, as the paper has it. Whatever `FreezeOut`
does by leaving layers out must end in the same weights, bit for bit where the same kernels run.

It cannot be the same where an optimizer step looks at all gradients at once: clipping by the global
norm counts the gradients of frozen layers here, and does not there. Nor can it where the rate zero
does not stop an optimizer: ASGD moves once more at the rate of the step before, and Rprop takes
only the size of its first step from the rate.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from freezeout.errors import CheckpointError
from freezeout.freezing import Freezer
from freezeout.groups import split_groups
from freezeout.layers import Layers, split_layers
from freezeout.schedule import Schedule

__all__ = ["RateOnly", "train"]


def train(
    model: nn.Module,
    optimizer: Optimizer,
    batches: Iterable[tuple[Any, Any]],
    loss_function: Callable[[Any, Any], torch.Tensor],
    *,
    layers: Layers,
    schedule: Schedule,
    total_steps: int,
    before_step: Callable[[], None] | None = None,
) -> list[float]:
    r"""Trains a model for one optimizer step per batch, at the rates of a schedule.

    At step $n$ layer $i$ has the rate $\alpha\,s_i\,c(t/t_i)$ with $t = n/N$, and 0 from $t_i$ on.

    Args:
        model: The model; trained in place.
        optimizer: A fresh optimizer over its parameters, with base rates in its groups. Its groups
            are replaced by one per parameter.
        batches: Pairs of input and target, one per step.
        loss_function: From output and target to a scalar.
        layers: The layers of the model.
        schedule: The settings; ``anneal=None`` keeps base rates, and 0 for frozen layers.
        total_steps: Length $N$ of training in optimizer steps, at least 1.
        before_step: Called between backward and optimizer step, for example to clip by value.

    Returns:
        The loss of each step.

    Reference:
        Brock et al., "FreezeOut", 2017, section 2 (arXiv:1706.04983).
    """
    optimizer.param_groups[:] = [
        {**group, "params": [parameter]}
        for group in optimizer.param_groups
        for parameter in group["params"]
    ]
    base_rates = [group["lr"] for group in optimizer.param_groups]
    freeze_steps = schedule.freeze_steps(len(layers), total_steps)
    losses = []
    for n, (x, y) in enumerate(batches):
        factors = schedule.factors(n, total_steps, len(layers))
        for group, base in zip(optimizer.param_groups, base_rates, strict=True):
            index = layers.index_of(group["params"][0])
            group["lr"] = base * factors[-1 if index is None else index]
        model.train()
        for layer, freeze_step in zip(layers, freeze_steps, strict=True):
            if freeze_step is not None and n >= freeze_step:
                for module in layer.modules:
                    module.training = False
        loss = loss_function(model(x), y)
        optimizer.zero_grad()
        loss.backward()
        if before_step is not None:
            before_step()
        optimizer.step()
        losses.append(loss.item())
    return losses


class RateOnly:
    """The oracle as a scheduler: the control of a comparison.

    It stands where `FreezeOut` stands in a training loop and sets the same rates, but nothing ever
    leaves the backward pass or the optimizer. A layer whose freeze time has come has the rate zero
    and its modules are in inference mode, as in `train`. So a run with it ends in the weights of
    one with `FreezeOut` and takes the time of one without.

    Args:
        optimizer: A fresh optimizer; its parameter groups are split by layer.
        model: The model.
        total_steps: Length of training in optimizer steps, at least 1.
        schedule: The settings.
        layers: The layers of the model; ``None`` finds them in the order of definition.

    Attributes:
        schedule: The settings.
        layers: The layers of the model in execution order.
        freezer: Freezes nothing; it is there for listeners.
        total_steps: Length of training in optimizer steps.
        freeze_steps: None for every layer.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        model: nn.Module,
        total_steps: int,
        *,
        schedule: Schedule,
        layers: Layers | None = None,
    ) -> None:
        self.schedule = schedule
        self.layers = split_layers(model) if layers is None else layers
        self.freezer = Freezer(self.layers, optimizer)
        self.total_steps = total_steps
        self.freeze_steps: tuple[int | None, ...] = (None,) * len(self.layers)
        self._ends = schedule.freeze_steps(len(self.layers), total_steps)
        self._optimizer = optimizer
        self._owners = split_groups(optimizer, self.layers)
        self._base_rates = [float(group["lr"]) for group in optimizer.param_groups]
        self._step = 0
        model.register_forward_pre_hook(lambda module, args: self._settle())
        self._set_rates()

    @property
    def frozen(self) -> int:
        """Length of the frozen prefix: always 0."""
        return 0

    def factors_at(self, step: int) -> tuple[float, ...]:
        """Each layer's rate relative to its base rate after `step` optimizer updates."""
        return self.schedule.factors(step, self.total_steps, len(self.layers))

    def step(self) -> None:
        """One optimizer step is done."""
        self._step += 1
        self._set_rates()

    def state_dict(self) -> dict[str, Any]:
        """The step, and the settings it belongs to."""
        return {
            "last_epoch": self._step,
            "total_steps": self.total_steps,
            "schedule": self.schedule.to_dict(),
            "control": True,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Goes to the saved step.

        Raises:
            CheckpointError: If it was saved with other settings.
        """
        own = self.state_dict()
        if {**state, "last_epoch": None} != {**own, "last_epoch": None}:
            raise CheckpointError(
                "the checkpoint was made with another schedule or length, or not as a control. "
                "Resume it with the settings it was saved with."
            )
        self._step = state["last_epoch"]
        self._set_rates()

    def _set_rates(self) -> None:
        factors = self.factors_at(self._step)
        for group, base, owner in zip(
            self._optimizer.param_groups, self._base_rates, self._owners, strict=True
        ):
            group["lr"] = base * factors[owner]

    def _settle(self) -> None:
        """Puts what would be frozen into inference mode, whatever ``model.train()`` has done."""
        for layer, end in zip(self.layers, self._ends, strict=True):
            if end is not None and self._step >= end:
                for module in layer.modules:
                    module.training = False
