"""Say what has probably moved a frozen parameter, or keeps one that should learn where it is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import nn
from torch.optim import Optimizer

from freezeout.freezing.holders import holders_of, keeps_tensors
from freezeout.layers import modules_in

__all__ = ["cause_of_movement", "cause_of_standstill"]


def cause_of_movement(
    model: nn.Module,
    names: Sequence[str],
    owners: Mapping[str, nn.Module],
    optimizers: Sequence[Optimizer],
) -> str:
    """Return a sentence about what may have moved frozen tensors, and what to do.

    Args:
        model: The model.
        names: What moved.
        owners: The module that owns each.
        optimizers: Those of the freezer.
    """
    only_buffers = all(
        name.rpartition(".")[2] in owners[name]._buffers if name in owners else False
        for name in names
    )
    present = set(map(id, modules_in(model)))
    for name in names:
        owner = owners.get(name)
        if owner is None:
            continue
        kind = type(owner).__name__
        if id(owner) not in present:
            return (
                f"{kind} was replaced in the model, and what took its place went on training. "
                "Call scheduler.freezer.settle() after a change of the model."
            )
        if getattr(owner, "max_norm", None) is not None:
            return (
                f"{kind} renormalises its weights in its forward pass (max_norm). Renormalise them "
                "once and set max_norm to None while it is frozen."
            )
        if type(owner).__module__.startswith("torch.nn.modules."):
            continue  # these change nothing in evaluation mode
        if only_buffers:
            return (
                f"{kind} updates its buffers in its forward pass, in evaluation mode too "
                "(statistics, an observer). Switch that off while it is frozen, or let the module "
                "do it only where self.training is true."
            )
    for optimizer in optimizers:
        if keeps_tensors(optimizer):
            around = ", ".join(type(holder).__name__ for holder in holders_of(optimizer)[1:])
            return f"What stands around {type(optimizer).__name__} ({around}) writes to them."
    return (
        "Something outside the optimizer's step wrote to them: an average of weights that was "
        "copied back, a mask or a clamp over all parameters, p.data. Let it skip what requires no "
        "gradient."
    )


def cause_of_standstill(optimizer: Optimizer, parameters: Sequence[torch.Tensor]) -> str:
    """Return a sentence about what may keep parameters where they are, and what to do.

    Args:
        optimizer: The one that holds them.
        parameters: Those that never moved.
    """
    kind = type(optimizer).__name__
    low = {p.dtype for p in parameters} & {torch.float16, torch.bfloat16}
    if low:
        kinds = ", ".join(sorted(str(dtype).removeprefix("torch.") for dtype in low))
        return (
            f"The updates are probably too small for {kinds}: raise the rate, or keep the weights "
            "in float32 and compute under autocast."
        )
    lists = [n for n, v in vars(optimizer).items() if type(v) is list and v and n != "param_groups"]
    if lists:
        return (
            f"{kind} keeps lists beside its parameter groups ({', '.join(lists)}), which may not "
            "fit the groups any more. Pass anneal=None, which leaves the groups as they are."
        )
    return (
        f"{kind} does not step them, or the rate is too small to change them. See whether their "
        "groups reach its step, or freeze them with requires_grad_(False) if that is meant."
    )
