"""What `scheduler` demands of its arguments, and how it says so."""

from __future__ import annotations

from typing import Any

from torch import nn
from torch.optim import LBFGS, Optimizer

from freezeout.layers import Layers, learns_at_all, unwrap

__all__ = [
    "check_alone",
    "check_belongs",
    "check_optimizer",
    "check_partner",
    "check_same_steps",
    "check_something_learns",
    "check_updates",
    "difference",
]


def check_updates(updates: object) -> None:
    hint = "It is the number of optimizer updates done; leave it out to have them counted."
    if not isinstance(updates, int) or isinstance(updates, bool):
        raise TypeError(f"step takes a whole number of at least 0, got {updates!r}. {hint}")
    if updates < 0:
        raise ValueError(f"step takes a whole number of at least 0, got {updates}. {hint}")


def check_optimizer(optimizer: object) -> None:
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


def check_belongs(layers: Layers, model: nn.Module, optimizer: Optimizer) -> None:
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


def check_something_learns(layers: Layers, depth: int) -> None:
    """Once all is frozen that will be, something must still learn, or ``backward()`` fails."""
    learning = [layer for layer in layers if learns_at_all(layers.model, layer)]
    if learning and learning[-1].index < depth:
        idle = ", ".join(repr(layer.name) for layer in layers[depth:][:3])
        raise ValueError(
            f"all layers that learn would freeze: what comes after {learning[-1].name!r} ({idle}) "
            "requires no gradient. Two layers must learn for one to freeze; cut the model after "
            "you have frozen parts of it by hand, so that they join a layer that learns."
        )


def difference(key: str, there: Any, here: Any) -> str:
    """One value, or of two lists the lengths or the first pair that differs, as text."""
    if isinstance(there, list) or isinstance(here, list):  # of hundreds, in real networks
        counts = [len(side) if isinstance(side, list) else "no" for side in (there, here)]
        if counts[0] != counts[1]:
            return f"{counts[0]} {key} there but {counts[1]} here"
        index = next(i for i, (a, b) in enumerate(zip(there, here, strict=True)) if a != b)
        key, there, here = f"{key}[{index}]", there[index], here[index]
    return f"{key}={there!r} there but {key}={here!r} here"


def check_partner(
    partner: Any, kind: type[Any], optimizer: Optimizer, layers: object, example: object
) -> None:
    if not isinstance(partner, kind):
        raise TypeError(
            f"together_with must be the FreezeOut of the other optimizer, got {partner!r}. "
            "Make that one first."
        )
    if partner.optimizer is optimizer:
        raise ValueError(
            "together_with drives the same optimizer, whose updates would count twice. It is for "
            "another optimizer of the same model; leave it out."
        )
    if layers is not None or example is not None:
        raise TypeError(
            "layers and example are those of together_with, so that both freeze the same layers. "
            "Leave them out here."
        )


def check_same_steps(own: tuple[int | None, ...], other: tuple[int | None, ...]) -> None:
    if own != other:
        index = next(i for i, pair in enumerate(zip(own, other, strict=True)) if len({*pair}) > 1)
        raise ValueError(
            f"two optimizers of one model must freeze alike, but layer {index} is to freeze after "
            f"{own[index]} updates here and after {other[index]} in together_with. Give the same "
            "total_steps, and leave t0, spacing and the like out here."
        )


def check_alone(other: Any, optimizer: Optimizer, partner: object) -> None:
    """Two schedulers that know nothing of each other would undo each other's freezes."""
    if other is None or partner is not None or optimizer in other.freezer.optimizers:
        return
    mine = {id(p) for group in optimizer.param_groups for p in group["params"]}
    theirs = {
        id(p) for o in other.freezer.optimizers for group in o.param_groups for p in group["params"]
    }
    if not mine & theirs:  # else a new run with a new optimizer
        raise ValueError(
            f"another FreezeOut drives this {type(other.layers.model).__name__} with an optimizer "
            "of other parameters. Both must agree on what is frozen: pass together_with=, the "
            "first one, when you make the second, or delete the first if it has done its work."
        )
