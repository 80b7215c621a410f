"""Training steps that are taken and leave no mark."""

from __future__ import annotations

import copy
from collections import OrderedDict, defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.optim import SGD, Optimizer

from freezeout.costs.checks import check_freezable
from freezeout.costs.snapshot import preserved
from freezeout.costs.step import TrainingStep, explained
from freezeout.freezing import split_groups, unfreeze
from freezeout.layers import Layers
from freezeout.tensors import tensors_in

__all__ = ["rehearsed"]


@contextmanager
def rehearsed(
    model: nn.Module,
    layers: Layers,
    example: Any,
    loss: Callable[[Any], torch.Tensor] | None,
    optimizer: Optimizer | None,
    autocast: torch.dtype | None,
) -> Iterator[tuple[TrainingStep, Optimizer, int | None]]:
    """Yield a training step that leaves no mark once the block ends, its optimizer, its batch size.

    Raises:
        CostError: If the step cannot be run.
    """
    batch = next((t.shape[0] for t in tensors_in(example) if t.ndim), None)
    custom_loss = [loss] if isinstance(loss, nn.Module) else []
    others = list(tensors_in(example))
    if optimizer is not None:
        others += tensors_in([group["params"] for group in optimizer.param_groups])
        others += tensors_in(list(optimizer.state.values()))
    with (
        explained(model, batch),
        preserved([model, *custom_loss], others),
        torch.inference_mode(False),
        torch.enable_grad(),
    ):
        unfreeze(layers.model)  # what another freezer froze is measured as it learns
        check_freezable(layers)
        twin = _twin(optimizer, model, layers)
        yield TrainingStep(model, layers, example, loss, twin, autocast), twin, batch


def _twin(optimizer: Optimizer | None, model: nn.Module, layers: Layers) -> Optimizer:
    """Make an optimizer of the same kind that steps in place of the user's, at rate 0.

    It shares the existing tensors of state (they are put back afterwards) and nothing else:
    neither hooks nor groups nor a scheduler's counter.
    """
    if optimizer is None:
        learning = [p for p in model.parameters() if p.requires_grad]
        twin: Optimizer = SGD(learning, lr=0.0, momentum=0.9)
    else:
        twin = object.__new__(type(optimizer))  # whatever its constructor may want
        twin.__dict__.update(optimizer.__dict__)
        for name, value in optimizer.__dict__.items():
            if name == "step":  # wrapped by a scheduler that counts its calls
                del twin.__dict__[name]
            elif name.endswith("_hooks"):
                twin.__dict__[name] = OrderedDict()
            elif isinstance(value, (dict, list, set)):
                twin.__dict__[name] = copy.copy(value)
        twin.state = defaultdict(dict, {p: dict(s) for p, s in optimizer.state.items()})
        twin.param_groups = [dict(group) for group in optimizer.param_groups]
    split_groups(twin, layers)
    for group in twin.param_groups:
        lr = group["lr"]
        group["lr"] = torch.zeros_like(lr) if isinstance(lr, torch.Tensor) else 0.0
    return twin
