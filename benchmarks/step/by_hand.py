"""The floor: the first layers run by hand as pure inference, and only the rest is trained.

This is what a careful person would write for a prefix that never changes again, with nothing of
`Freezer` or `FreezeOut` in it. Freezing cannot be cheaper without caching.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from freezeout import Layers
from freezeout.lab.models import VGG, DenseNet, ResNet, WideResNet

__all__ = ["Floor", "Stage", "stages"]


@dataclass(frozen=True)
class Stage:
    """A piece of a network's forward pass.

    Attributes:
        run: From its input to its output.
        modules: Those that hold its parameters, if it has any.
    """

    run: Callable[[Tensor], Tensor]
    modules: tuple[nn.Module, ...] = ()


def stages(model: nn.Module) -> list[Stage]:
    """Cut the forward pass of one of the library's networks into pieces that run in sequence.

    Raises:
        TypeError: If it is another network.
    """
    if isinstance(model, VGG):
        head = model.classifier
        return [
            *map(_module, model.features),
            Stage(lambda x: _tensor(head(_average(x))), (head,)),
        ]
    if isinstance(model, ResNet):
        stem, classifier = model.stem, model.classifier
        return [
            Stage(lambda x: F.relu(stem(x)), (stem,)),
            *map(_module, model.blocks),
            Stage(lambda x: _tensor(classifier(_average(x))), (classifier,)),
        ]
    if isinstance(model, (WideResNet, DenseNet)):
        norm, linear = model.norm, model.classifier
        return [
            _module(model.stem),
            *map(_module, model.blocks),
            Stage(lambda x: _tensor(linear(_average(F.relu(norm(x))))), (norm, linear)),
        ]
    raise TypeError(
        f"no forward pass by hand is written for {type(model).__name__}. "
        "Take a network of freezeout.lab.models, or add its stages here."
    )


class Floor:
    """A network with its first `depth` layers run under ``no_grad`` in inference mode.

    Args:
        model: One of the library's networks; its modes and flags are changed.
        layers: Its layers. They say which modules and parameters are meant, nothing else.
        depth: Number of layers that are not trained.

    Attributes:
        groups: The parameters that are trained, one list per layer.
        prefix: Pieces without a gradient.
        suffix: Pieces that are trained.

    Raises:
        ValueError: If the layers do not end where a piece of the network ends.
    """

    def __init__(self, model: nn.Module, layers: Layers, depth: int) -> None:
        frozen = {id(p) for layer in layers[:depth] for _, p in layer.parameters}
        pieces = stages(model)
        trained = [
            any(id(p) not in frozen for module in piece.modules for p in module.parameters())
            for piece in pieces
        ]
        first = trained.index(True)
        self.prefix, self.suffix = pieces[:first], pieces[first:]
        kept = {id(p) for s in self.prefix for module in s.modules for p in module.parameters()}
        if kept != frozen:
            raise ValueError(
                f"the first {depth} layers of {type(model).__name__} do not end where a piece of "
                "its forward pass ends. Cut them there, or write smaller pieces."
            )
        for layer in layers[:depth]:
            for module in layer.modules:
                module.eval()
            for _, parameter in layer.parameters:
                parameter.requires_grad_(False)
        self.groups = [[p for _, p in layer.parameters] for layer in layers[depth:]]

    def __call__(self, x: Tensor) -> Tensor:
        """Map images to logits."""
        with torch.no_grad():
            for piece in self.prefix:
                x = piece.run(x)
        for piece in self.suffix:
            x = piece.run(x)
        return x


def _module(module: nn.Module) -> Stage:
    return Stage(module, (module,))


def _average(x: Tensor) -> Tensor:
    return x.mean(dim=(2, 3))


def _tensor(value: Tensor) -> Tensor:
    return value
