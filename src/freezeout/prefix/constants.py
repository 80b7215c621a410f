"""Which tensors are the same in every pass: what frozen layers hold, and buffers that nobody moves.

They are found in the live model. Before each pass all of them are looked at: one that was written
into, replaced or converted has another name in expressions from then on, so nothing that was
computed from the old one is taken for the new. One that moves again and again counts as active.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _NormBase

from freezeout.layers import Layers, named_modules

__all__ = ["Constant", "Constants", "Generations"]

_REST = 4
_MOST_MOVES = 3
"""A constant that moves this often, each time within so many passes of the last, is active."""


class Generations:
    """How often each constant has moved, by its name; kept while boundaries come and go.

    Attributes:
        restless: Names of those that moved again and again.
    """

    def __init__(self) -> None:
        self._seen: dict[str, tuple[Any, ...]] = {}
        self._count: dict[str, int] = {}
        self._last: dict[str, tuple[int, int]] = {}
        self.restless: set[str] = set()

    def see(self, name: str, tensor: torch.Tensor) -> None:
        """Look at a constant when it becomes one: has it moved since it was one before?

        Args:
            name: Its qualified name.
            tensor: The tensor.
        """
        now = (id(tensor), tensor._version, tensor.data_ptr(), tensor.dtype)
        if self._seen.setdefault(name, now) != now:
            self._count[name] = self._count.get(name, 0) + 1
            self._seen[name] = now

    def note(self, name: str, at: int) -> None:
        """Note that a constant has moved while it was one.

        Args:
            name: Its qualified name.
            at: The number of the pass before which that was seen.
        """
        last, moves = self._last.get(name, (at, 0))
        moves = moves + 1 if at - last <= _REST else 1
        self._last[name] = at, moves
        if moves >= _MOST_MOVES:
            self.restless.add(name)

    def name(self, name: str) -> str:
        """Return the name for expressions: another one after each move."""
        count = self._count.get(name, 0)
        return f"{name}, moved {count} times" if count else name


@dataclass(frozen=True, slots=True)
class Constant:
    """A tensor that counts as the same in every pass.

    Attributes:
        name: Its qualified name.
        place: The register of the module that holds it.
        key: Its name there.
        tensor: The tensor.
        version: Its version when it was taken for a constant.
        pointer: Where its values were then.
        storage: The memory there, held so that nothing else can come to lie in it.
        of_layer: Whether a frozen layer holds it.
    """

    name: str
    place: dict[str, Any]
    key: str
    tensor: torch.Tensor
    version: int
    pointer: int
    storage: torch.UntypedStorage
    of_layer: bool


class Constants:
    """The constants of a model whose first layers are frozen.

    Args:
        layers: Its layers, as they are now.
        depth: Length of the frozen prefix.
        generations: What is known of moves so far.
        forms: The sharded parameter of each gathered one, by the gathered one's ``id``.

    Attributes:
        by_id: Each constant by the ``id`` of its tensor.
        devices: Types of the devices on which they are.
        scattered: Names of frozen parameters of which this process holds only a part, or of
            another kind than PyTorch's own.
    """

    def __init__(
        self,
        layers: Layers,
        depth: int,
        generations: Generations,
        forms: Mapping[int, nn.Parameter],
    ) -> None:
        self.generations = generations
        self.by_id: dict[int, Constant] = {}
        self.devices: set[str] = set()
        self.scattered: list[str] = []
        self._all: list[Constant] = []
        frozen = {id(m) for layer in layers[:depth] for m in layer.modules}
        owned = {id(p) for layer in layers[:depth] for _, p in layer.parameters}
        owned |= {gathered for gathered, share in forms.items() if id(share) in owned}
        for path, module in named_modules(layers.model, remove_duplicate=False):
            if isinstance(module, torch.jit.ScriptModule):
                continue  # it makes new tensors at every look
            prefix = f"{path}." if path else ""
            for key, parameter in module._parameters.items():
                if parameter is not None and id(parameter) in owned and _rests(parameter):
                    self._add(f"{prefix}{key}", module._parameters, key, parameter, True)
            of_layer = id(module) in frozen
            if of_layer or not (_has_parameters(module) or isinstance(module, _NormBase)):
                for key, buffer in module._buffers.items():
                    if buffer is not None:
                        self._add(f"{prefix}{key}", module._buffers, key, buffer, of_layer)

    def _add(
        self, name: str, place: dict[str, Any], key: str, tensor: torch.Tensor, of_layer: bool
    ) -> None:
        if type(tensor) not in (torch.Tensor, nn.Parameter, nn.Buffer):
            if of_layer:
                self.scattered.append(name)
            return
        if name in self.generations.restless or tensor.requires_grad or tensor.is_inference():
            return
        if tensor.layout is not torch.strided or tensor.is_quantized or tensor.is_meta:
            return
        self.generations.see(name, tensor)
        found = Constant(
            *(name, place, key, tensor, tensor._version, tensor.data_ptr()),
            *(tensor.untyped_storage(), of_layer),
        )
        self._all.append(found)
        self.by_id.setdefault(id(tensor), found)
        self.devices.add(tensor.device.type)

    def moved(self) -> list[str]:
        """Return the names of those that were written into, replaced or converted."""
        return [
            c.name
            for c in self._all
            if c.place.get(c.key) is not c.tensor
            or c.tensor._version != c.version
            or c.tensor.data_ptr() != c.pointer
        ]

    def moved_in(self, module: nn.Module) -> str:
        """Return the names for expressions of those constants in a module that ever moved."""
        held = (self.by_id.get(id(t)) for t in (*module.parameters(), *module.buffers()))
        names = [(c.name, self.generations.name(c.name)) for c in held if c is not None]
        return "; ".join(now for name, now in names if now != name)

    def holds_all_of(self, module: nn.Module) -> bool:
        """Return whether every parameter and buffer in a module is a constant."""
        return all(id(tensor) in self.by_id for tensor in (*module.parameters(), *module.buffers()))


def _rests(parameter: nn.Parameter) -> bool:
    return not parameter.requires_grad


def _has_parameters(module: nn.Module) -> bool:
    return next(module.parameters(), None) is not None
