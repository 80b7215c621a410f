"""Exact counts of what a step keeps in memory: saved for backward, gradients, optimizer state."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from freezeout import Layers

__all__ = ["Saved", "gradient_bytes", "saved_for_backward", "state_bytes"]


@dataclass(frozen=True)
class Saved:
    """Bytes that a forward pass saved for the backward pass.

    Attributes:
        prefix: Saved before the first active layer began, or within a frozen layer later on.
        total: Saved in all, loss included.
        by_layer: By the layer that ran, or had run last; the loss counts with the last.
    """

    prefix: int
    total: int
    by_layer: tuple[int, ...]


def saved_for_backward(layers: Layers, depth: int, forward: Callable[[], Tensor]) -> Saved:
    """Count what one forward pass saves, while the first `depth` layers are said to be frozen.

    A storage counts once, in full, for the first operation that saves it. Parameters and buffers of
    the model do not count: they are there anyway. The batch does, where it is saved, and so do
    copies of weights in lower precision.

    Args:
        layers: The layers of the model.
        depth: Number of layers said to be frozen; the model itself decides what is saved.
        forward: Runs the model on a batch and returns the loss.
    """
    own = {_key(t) for t in (*layers.model.parameters(), *layers.model.buffers())}
    kept: dict[int, torch.UntypedStorage] = {}  # alive until the end, so that no key comes twice
    by_layer = [0] * len(layers)
    prefix = 0
    running: list[int] = []
    last = 0
    reached_active = False

    def pack(tensor: Tensor) -> Tensor:
        nonlocal prefix
        key = _key(tensor)
        if key not in own and key not in kept:
            kept[key] = tensor.untyped_storage()
            size = kept[key].nbytes()
            layer = running[-1] if running else last
            by_layer[layer] += size
            if not reached_active or (running and layer < depth):
                prefix += size
        return tensor

    def enter(index: int) -> Callable[..., None]:
        def hook(*_: Any) -> None:
            nonlocal last, reached_active
            running.append(index)
            last = index
            reached_active = reached_active or index >= depth

        return hook

    def leave(*_: Any) -> None:
        running.pop()

    handles = []
    for layer in layers:
        for module in layer.modules:
            handles.append(module.register_forward_pre_hook(enter(layer.index)))
            handles.append(module.register_forward_hook(leave))
    try:
        with torch.autograd.graph.saved_tensors_hooks(pack, _same):
            forward()
    finally:
        for handle in handles:
            handle.remove()
    return Saved(prefix, sum(by_layer), tuple(by_layer))


def state_bytes(optimizer: Optimizer, parameters: Iterable[nn.Parameter]) -> int:
    """Return the bytes of optimizer state held for some parameters."""
    return sum(
        value.untyped_storage().nbytes()
        for parameter in parameters
        for value in optimizer.state.get(parameter, {}).values()
        if isinstance(value, Tensor)
    )


def gradient_bytes(parameters: Iterable[nn.Parameter]) -> int:
    """Return the bytes of gradients held for some parameters."""
    return sum(p.grad.untyped_storage().nbytes() for p in parameters if p.grad is not None)


def _key(tensor: Tensor) -> int:
    return int(tensor.untyped_storage()._cdata)


def _same(tensor: Tensor) -> Tensor:
    return tensor
