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
from typing_extensions import Self

from freezeout.freezing import Freezer, chooses_only
from freezeout.layers import Layers
from freezeout.schedule import Schedule
from freezeout.scheduler import RateScheduler

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
    r"""Train a model for one optimizer step per batch, at the rates of a schedule.

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
        before_step: Called between backward pass and optimizer step, for example to clip by value.

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
        done = [freeze_step is not None and n >= freeze_step for freeze_step in freeze_steps]
        _infer(layers.to_inference(layers[: sum(done)]))
        loss = loss_function(model(x), y)
        optimizer.zero_grad()
        loss.backward()
        if before_step is not None:
            before_step()
        optimizer.step()
        losses.append(loss.item())
    return losses


class RateOnly(RateScheduler):
    """The oracle as a scheduler: the control of a comparison.

    It stands where `freezeout.FreezeOut` stands in a training loop, takes the same arguments and
    sets the same rates, but nothing ever leaves the backward pass or the optimizer. A layer whose
    freeze time has come has the rate zero and its modules are in inference mode, as in `train`. So
    a run with it ends in the weights of one with `FreezeOut` and takes the time of one without.

    Parameter groups are split by layer also with ``anneal=None``, where the rates of layers that
    still learn are left alone: make the scheduler that sets them after this one.

    Args:
        optimizer: As for `FreezeOut`.
        model: As for `FreezeOut`.
        total_steps: As for `FreezeOut`.
        schedule: The settings as one object, in place of giving them one by one.
        layers: As for `FreezeOut`.
        example: As for `FreezeOut`.
        strict: Not used: nothing freezes, so there is no frozen output to check.
        witness: Not used, for the same reason.
        together_with: The `RateOnly` of another optimizer of the same model.
        **settings: The settings of a `Schedule`, one by one.

    Attributes:
        schedule: The settings.
        layers: The layers of the model in execution order.
        freezer: Freezes nothing; it is there for listeners.
        total_steps: Length of training in optimizer updates.
        freeze_times: 1 for every layer.
        freeze_steps: ``None`` for every layer.

    Raises:
        TypeError: As for `FreezeOut`.
        ValueError: As for `FreezeOut`.
        SplitError: If the model cannot be cut into layers.

    Example:
        >>> net = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
        >>> optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
        >>> scheduler = RateOnly(optimizer, net, total_steps=100, t0=0.5, spacing="linear")
        >>> scheduler.step(50)
        >>> scheduler.frozen, scheduler.get_last_lr()
        (0, [0.0, 0.05])
    """

    _freezes = False

    def _make_freezer(
        self,
        optimizer: Optimizer,
        model: nn.Module,
        together_with: Self | None,
        *,
        strict: bool,
        witness: bool,
    ) -> Freezer:
        if together_with is not None:
            return together_with.freezer
        freezer = Freezer(self.layers, optimizer, strict=strict, witness=False)
        model.register_forward_pre_hook(_Hold(self._settle))
        return freezer

    def depth_at(self, step: int) -> int:
        """Return the length of the frozen prefix after any number of updates: 0."""
        return 0

    def _rates(self) -> list[float | torch.Tensor]:
        rates = super()._rates()
        if self._sets_rates:
            return rates
        done = self._due
        return [
            0.0 if i < done else rate for i, rate in zip(self._group_layers, rates, strict=True)
        ]

    def _plain_state(self) -> dict[str, Any]:
        state = super()._plain_state()
        return {k: state[k] for k in ("last_epoch", "total_steps", "schedule")} | {"control": True}

    def _settle(self) -> None:
        """Put layers that are done into inference mode, whatever ``model.train()`` has done."""
        _infer(self.layers.to_inference(self.layers[: self._together.due]))


def _infer(modules: Iterable[nn.Module]) -> None:
    for module in modules:
        module.training = module.training and chooses_only(module)


class _Hold:
    """Hold layers that are done in inference mode; in a copy or a pickle of the model do nothing.

    Args:
        settle: What holds them; ``None`` in a copy.
    """

    def __init__(self, settle: Callable[[], None] | None) -> None:
        self._settle = settle

    def __call__(self, module: nn.Module, args: Any) -> None:
        if self._settle is not None:
            self._settle()

    def __reduce__(self) -> tuple[type[_Hold], tuple[None]]:
        return _Hold, (None,)
