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

from freezeout.layers import Layers
from freezeout.schedule import Schedule

__all__ = ["train"]


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
