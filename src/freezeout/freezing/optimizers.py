"""Which optimizers can be driven, and the state they hold for a parameter that freezes."""

from __future__ import annotations

import sys
from collections.abc import MutableMapping
from types import FrameType
from typing import Any

import torch
from torch.optim import LBFGS, Optimizer

from freezeout.errors import FreezeOutError
from freezeout.freezing.holders import has_hooks, holders_of
from freezeout.tensors import called_from

__all__ = [
    "after_split",
    "check_optimizer",
    "is_active",
    "is_inner_step",
    "keeps_parts",
    "makes_state_only",
    "release",
    "renew",
]


def is_active(optimizer: Optimizer) -> bool:
    """Return whether any parameter of an optimizer still learns.

    A gradient scaler refuses to step an optimizer without any gradient. If several optimizers share
    a model, that may happen to one of them: ask before ``scaler.step(optimizer)``.

    Args:
        optimizer: Any optimizer.

    Example:
        >>> weight = torch.nn.Parameter(torch.zeros(2))
        >>> optimizer = torch.optim.SGD([weight], lr=0.1)
        >>> is_active(optimizer)
        True
        >>> _ = weight.requires_grad_(False)
        >>> is_active(optimizer)
        False
    """
    return any(p.requires_grad for group in optimizer.param_groups for p in group["params"])


def check_optimizer(optimizer: object, hint: str) -> None:
    """Raise `TypeError` unless it is an optimizer that leaves alone what has no gradient.

    Args:
        optimizer: What was given.
        hint: A sentence that says which one to give.
    """
    if not isinstance(optimizer, Optimizer):
        kind = type(optimizer).__name__
        raise TypeError(f"optimizer must be a torch.optim.Optimizer, got {kind}. {hint}")
    if type(optimizer).__eq__ is not object.__eq__ or type(optimizer).__hash__ is None:
        kind = type(optimizer).__name__
        raise TypeError(
            f"optimizer must be equal to itself alone, but {kind} compares by value or has no "
            "hash, so what belongs to it cannot be told apart. Take __eq__ and __hash__ out of "
            f"{kind}, or pass the optimizer inside it."
        )
    if isinstance(optimizer, LBFGS):
        raise TypeError(
            "FreezeOut cannot drive LBFGS: it moves parameters that have no gradient, so frozen "
            "layers would not stay as they are. Use an optimizer that skips them, as all others do."
        )
    if not has_hooks(optimizer):
        kind = type(optimizer).__name__
        raise TypeError(
            f"optimizer must have been made by torch.optim.Optimizer.__init__, but {kind} did not "
            "call it, so its updates cannot be counted. Pass the optimizer inside it, or call "
            "super().__init__() in it."
        )


def release(optimizer: Optimizer, parameter: torch.nn.Parameter) -> None:
    """Drop what an optimizer holds for a parameter that freezes; its groups stay as they are.

    A schedule-free optimizer trains at one point and evaluates at another, an average. A frozen
    parameter can only be at one of them: it is put at the average, where training ends.

    Args:
        optimizer: Any optimizer, also one that shards its state; the wrappers known around it
            release theirs, too.
        parameter: One of its parameters; any other is ignored.
    """
    for holder in (*holders_of(optimizer), _local_part(optimizer)):
        kept = getattr(holder, "state", None)
        if not isinstance(kept, MutableMapping) or parameter not in kept:
            continue
        state = kept.pop(parameter)
        if isinstance(state, dict) and "z" in state:
            _to_average(holder, parameter, state["z"])


@torch.no_grad()
def _to_average(optimizer: Optimizer, parameter: torch.nn.Parameter, z: torch.Tensor) -> None:
    r"""Put a parameter at the average $x$ of its schedule-free optimizer.

    It trains at $y = \beta x + (1-\beta) z$, so $x = y + (1 - 1/\beta)(z - y)$.
    """
    for group in optimizer.param_groups:
        if group.get("train_mode") and any(p is parameter for p in group["params"]):
            beta = group["betas"][0] if "betas" in group else group["momentum"]
            parameter.lerp_(z.to(parameter.device), 1 - 1 / beta)


def renew(optimizer: Optimizer, parameter: torch.nn.Parameter) -> None:
    """Give an optimizer what it needs for a parameter that learns again.

    Most optimizers make their state in the first step that finds a gradient, and need nothing.
    `torch.optim.Adagrad` of older PyTorch (2.6) makes it at construction only.

    Args:
        optimizer: Any optimizer, also one that shards its state.
        parameter: One of its parameters; any other is ignored.
    """
    for holder in (optimizer, _local_part(optimizer)):
        if not isinstance(holder, torch.optim.Adagrad) or parameter in holder.state:
            continue
        for group in holder.param_groups:
            if any(p is parameter for p in group["params"]):
                settings = {name: group[name] for name in holder.defaults}
                holder.state.update(torch.optim.Adagrad([parameter], **settings).state)


def makes_state_only(optimizer: Optimizer) -> bool:
    """Return whether the step being done moves nothing and only makes an optimizer's state.

    ``torch.distributed.checkpoint`` does that before it loads into an optimizer without state: a
    step with all rates at zero and gradients of zero. It is no update.

    Args:
        optimizer: One whose ``step`` is running.
    """
    module = sys.modules.get("torch.distributed.checkpoint.state_dict")
    if module is None or not optimizer.param_groups:
        return False
    rate = optimizer.param_groups[-1].get("lr", 0.0)  # the last layer's, which is above zero
    if rate is None:  # an optimizer that chooses its rates itself
        return False
    if (isinstance(rate, torch.Tensor) and rate.device.type != "cpu") or float(rate) != 0.0:
        return False
    code = getattr(getattr(module, "_init_optim_state", None), "__code__", None)
    return called_from(code)


def is_inner_step(optimizer: Optimizer) -> bool:
    """Return whether the step being done is part of another one of the same optimizer.

    A subclass whose ``step`` calls ``super().step()`` has its hooks run for both.

    Args:
        optimizer: One whose hook is running.
    """
    steps = (vars(kind).get("step") for kind in type(optimizer).__mro__)
    if sum(hasattr(step, "hooked") for step in steps) < 2:
        return False
    frame: FrameType | None = sys._getframe(1)
    found = 0
    while frame is not None and found < 2:
        if frame.f_code.co_name == "wrapper":  # what torch puts around a step, to run its hooks
            found += frame.f_locals.get("self") is optimizer
        frame = frame.f_back
    return found == 2


def after_split(optimizer: Optimizer) -> None:
    """Let an optimizer made of others follow a change of its parameter groups.

    Args:
        optimizer: Any optimizer, just after its groups were split.

    Raises:
        FreezeOutError: If it has been used already, or its kind allows one group only.
    """
    if not _is_zero(optimizer):
        return
    zero: Any = optimizer
    if zero._overlap_with_ddp:
        raise FreezeOutError(
            "FreezeOut cannot drive ZeroRedundancyOptimizer with overlap_with_ddp=True, which "
            "takes one parameter group and no frozen parameters. Leave overlap_with_ddp out."
        )
    if zero.optim.state:
        raise FreezeOutError(
            "ZeroRedundancyOptimizer has state already, and would lose it when its parameter "
            "groups are split by layer. Make FreezeOut before the first step, then load."
        )
    zero._clear_cache()
    zero._init_local_optimizer()


def keeps_parts(optimizer: object) -> bool:
    """Return whether an optimizer is made of others that `after_split` makes again.

    Args:
        optimizer: Anything.
    """
    return _is_zero(optimizer)


def _is_zero(optimizer: object) -> bool:
    module = sys.modules.get("torch.distributed.optim")
    kind = getattr(module, "ZeroRedundancyOptimizer", None)
    return kind is not None and isinstance(optimizer, kind)


def _local_part(optimizer: Optimizer) -> Optimizer | None:
    inner = getattr(optimizer, "optim", None) if _is_zero(optimizer) else None
    return inner if isinstance(inner, Optimizer) else None
