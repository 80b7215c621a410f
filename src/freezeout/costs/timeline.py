"""Watch one training step layer by layer: a reading at every change from layer to layer."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from typing import Any, Generic, TypeVar

import torch
from torch import nn

from freezeout.layers import Layers
from freezeout.tensors import held_bytes, tensors_in

__all__ = ["SavedBytes", "Timeline", "Where"]

Where = tuple[str, int]
"""``("forward", i)`` or ``("backward", i)`` of layer i; or another phase with any number."""

Reading = TypeVar("Reading")


class Timeline(Generic[Reading]):
    """Say which layer is at work, and take a reading whenever that changes.

    The readings cut a step into pieces without gap or overlap: what lies between two readings
    belongs to what was at work then. Layers inside a compiled region do not show.

    Args:
        layers: The layers of the model.
        read: Takes a reading, such as of a clock or a counter.
    """

    def __init__(self, layers: Layers, read: Callable[[], Reading]) -> None:
        self._layers = layers
        self._read = read
        self.now: Where = ("forward", 0)
        self._readings: list[tuple[Where, Reading]] = []

    def stamp(self, where: Where) -> None:
        """Note that from now on this is at work."""
        self._readings.append((where, self._read()))
        self.now = where

    def clear(self) -> None:
        """Forget all readings."""
        self._readings.clear()

    def sums(self, difference: Callable[[Reading, Reading], float]) -> dict[Where, float]:
        """Sum up `difference(earlier, later)` over all pieces of each layer and phase."""
        total: dict[Where, float] = {}
        pairs = zip(self._readings, self._readings[1:], strict=False)
        for (where, begin), (_, end) in pairs:
            total[where] = total.get(where, 0.0) + difference(begin, end)
        return total

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Let layers stamp themselves in the forward and backward pass while it is open."""
        handles: list[Any] = []
        try:
            for module, index in _own_modules(self._layers):
                handles.append(module.register_forward_pre_hook(self._entering(index)))
                left = self._left(index)
                handles.append(module.register_forward_hook(left, with_kwargs=True))
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _entering(self, index: int) -> Callable[..., None]:
        def hook(*_: Any) -> None:
            # Activation checkpointing runs a layer again in the backward pass.
            backward = self.now[0] == "backward"
            self.stamp(("backward" if backward else "forward", index))

        return hook

    def _left(self, index: int) -> Callable[..., None]:
        def back(_: torch.Tensor) -> None:
            self.stamp(("backward", index))

        def hook(module: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
            given = {id(tensor) for tensor in tensors_in((args, kwargs))}
            for tensor in tensors_in(output):
                own = id(tensor) not in given  # one that is passed through is another layer's
                if own and tensor.requires_grad and tensor.grad_fn is not None:
                    tensor.register_hook(back)

        return hook


class SavedBytes:
    """Count what a forward pass holds for the backward pass, by the layers that need it.

    A storage counts once, for the last layer that saves it: when that is frozen, nobody holds it.
    Parameters and buffers do not count, they are there anyway; copies of them in lower precision,
    and the batch where it is saved, do.

    Args:
        layers: The layers of the model.
        at: Says which layer is at work; ``None`` in the backward pass, where what activation
            checkpointing computes again does not count.
    """

    def __init__(self, layers: Layers, at: Callable[[], int | None]) -> None:
        self._own = {_key(t) for t in (*layers.model.parameters(), *layers.model.buffers())}
        self._at = at
        self._held: dict[Hashable, tuple[int, int]] = {}
        self._count = len(layers)

    @contextmanager
    def counting(self) -> Iterator[None]:
        """Count what is saved while it is open."""
        with torch.autograd.graph.saved_tensors_hooks(self._pack, _same):
            yield

    def by_layer(self) -> list[int]:
        """Return the bytes held until each layer is frozen."""
        total = [0] * self._count
        for size, layer in self._held.values():
            total[layer] += size
        return total

    def _pack(self, tensor: torch.Tensor) -> torch.Tensor:
        key, now = _key(tensor), self._at()
        if key not in self._own and now is not None:
            size, layer = self._held.get(key, (0, 0))
            self._held[key] = (max(size, held_bytes(tensor)), max(layer, now))
        return tensor


def _own_modules(layers: Layers) -> Iterator[tuple[nn.Module, int]]:
    """Yield the outermost modules of each layer that hold nothing of another layer."""
    owner = {id(m): layer.index for layer in layers for m in layer.modules}
    inner: set[int] = set()
    for module in layers.model.modules():  # outer modules come before what they hold
        index = owner.get(id(module))
        if index is None or id(module) in inner:
            continue
        parts = list(module.modules())
        if all(owner.get(id(part), index) == index for part in parts):
            inner.update(id(part) for part in parts)
            yield module, index


def _key(tensor: torch.Tensor) -> Hashable:
    """Return a key of its storage; one that is freed and used again is the same memory."""
    try:
        return tensor.untyped_storage().data_ptr()
    except (NotImplementedError, RuntimeError):  # a subclass without a storage of its own
        return id(tensor)


def _same(tensor: torch.Tensor) -> torch.Tensor:
    return tensor
