"""Check that layers, model and optimizer belong together, and that something is left to learn."""

from __future__ import annotations

from torch import nn
from torch.optim import Optimizer

from freezeout.layers.layer import Layers, learns_at_all, unwrap

__all__ = ["check_belongs", "check_something_learns"]


def check_belongs(layers: Layers, model: nn.Module, optimizer: Optimizer | None) -> None:
    """Raise `ValueError` if layers or optimizer are those of another model."""
    if layers.model is not unwrap(model):
        raise ValueError(
            f"layers were cut from another {type(layers.model).__name__} than the model, so "
            "nothing of it would freeze. Cut this model: split_layers(model)."
        )
    layers.refresh()
    if optimizer is not None and all(
        layers.index_of(p) is None for group in optimizer.param_groups for p in group["params"]
    ):
        raise ValueError(
            f"the optimizer holds no parameter of the {type(layers.model).__name__} given as "
            "model. Make the optimizer from this model's parameters."
        )


def check_something_learns(layers: Layers, depth: int) -> None:
    """Raise `ValueError` if ``backward()`` would fail because nothing learns at this depth."""
    learning = [layer for layer in layers if learns_at_all(layers.model, layer)]
    if learning and learning[-1].index < depth:
        idle = ", ".join(repr(layer.name) for layer in layers[depth:][:3])
        raise ValueError(
            f"all layers that learn would freeze: what comes after {learning[-1].name!r} ({idle}) "
            "requires no gradient. Two layers must learn for one to freeze; cut the model after "
            "you have frozen parts of it by hand, so that they join a layer that learns."
        )
