"""Which layer each part of a model belongs to, as the model is now.

Models change while they are trained: norms are replaced, weights pruned or parametrized, adapters
put around a linear map, whole states assigned. Whatever is known keeps its layer by identity; what
is new gets one from its parameters, its place, or the part that it was put into.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TypeAlias

from torch import nn

from freezeout.layers.members import named_modules, named_parameters

__all__ = ["Live"]

_Parts: TypeAlias = dict[str, nn.Module | nn.Parameter]


class Live:
    """The modules and parameters of each layer, followed through changes of the model.

    A module or parameter that is new belongs, in this order, to the layer of

    - the parameters that it holds itself (a replaced norm keeps them),
    - what had its qualified name before (assigned states, replaced blocks), or the last layer of
      what it holds,
    - the nearest part around it (adapters, parametrizations, observers),
    - the last layer, which never freezes.

    Args:
        model: The model, without wrappers.
        modules: The modules of each layer.
        parameters: The parameters of each layer.
    """

    def __init__(
        self,
        model: nn.Module,
        modules: Sequence[Sequence[nn.Module]],
        parameters: Sequence[Sequence[nn.Parameter]],
    ) -> None:
        self._model = model
        self._last = len(modules) - 1
        self._index: dict[int, int | None] = {}  # of every part, by its id
        self._index.update({id(m): i for i, own in enumerate(modules) for m in own})
        self._index.update({id(p): i for i, own in enumerate(parameters) for p in own})
        self._places: dict[str, int | None] = {}  # of every qualified name so far
        self._parts: _Parts = {}
        self._uses: Counter[int] = Counter()
        self._remember(_parts(model, {}))

    def look(self, stand_ins: Mapping[int, nn.Parameter]) -> bool:
        """Look at the model as it is now; return whether any part of it is another than before.

        Args:
            stand_ins: The parameter for which another one stands in at present, by the ``id`` of
                that other one.
        """
        parts = _parts(self._model, stand_ins)
        before = self._parts
        if len(parts) == len(before) and all(before.get(name) is p for name, p in parts.items()):
            return False
        known = {id(part): self._index.get(id(part)) for part in before.values()}
        found = {id(p): known[id(p)] for p in parts.values() if id(p) in known}
        for name, part in reversed(parts.items()):  # what is inside comes before what is around
            if id(part) not in known and isinstance(part, nn.Module):
                index = self._from_inside(name, part, parts, found)
                if index is not None:
                    found[id(part)] = max(index, found.get(id(part)) or 0)
        for name, part in parts.items():  # and now what is around comes first
            if id(part) not in found:
                found[id(part)] = self._from_around(name, parts, found)
        self._follow_new_ties(parts, found)
        self._index = found
        self._remember(parts)
        return True

    def modules_of(self, index: int) -> tuple[nn.Module, ...]:
        """Return the modules of a layer, submodules included, each once."""
        own = (p for p in self._parts.values() if self._index.get(id(p)) == index)
        return tuple({id(m): m for m in own if isinstance(m, nn.Module)}.values())

    def parameters_of(self, index: int) -> tuple[tuple[str, nn.Parameter], ...]:
        """Return the qualified names and parameters of a layer, each once."""
        first: dict[int, tuple[str, nn.Parameter]] = {}
        for name, part in self._parts.items():
            if isinstance(part, nn.Parameter) and self._index.get(id(part)) == index:
                first.setdefault(id(part), (name, part))
        return tuple(first.values())

    def _remember(self, parts: _Parts) -> None:
        self._parts = parts
        self._uses = _uses(parts)
        self._places.update({name: self._index.get(id(part)) for name, part in parts.items()})

    def _from_inside(
        self, name: str, module: nn.Module, parts: _Parts, found: dict[int, int | None]
    ) -> int | None:
        """Return the layer of a new module by what it holds and what was in its place."""
        inner = f"{name}." if name else ""
        own = [
            found.get(id(parts[inner + key])) for key in module._parameters if inner + key in parts
        ]
        children = [found.get(id(child)) for child in module.children()]
        known = [index for index in (*own, *children) if index is not None]
        place = self._places.get(name)
        if place is not None and not any(index is not None for index in own):
            known.append(place)
        return max(known, default=None)

    def _from_around(self, name: str, parts: _Parts, found: dict[int, int | None]) -> int:
        """Return the layer of a new part by its name, or by the nearest part around it."""
        place = self._places.get(name)
        while place is None and name:
            name = name.rpartition(".")[0]
            place = found.get(id(parts[name]))
        return self._last if place is None else place

    def _follow_new_ties(self, parts: _Parts, found: dict[int, int | None]) -> None:
        """Give a parameter that has got more users to the last of them."""
        uses = _uses(parts)
        for name, part in parts.items():
            more = uses[id(part)] > max(1, self._uses.get(id(part), 0))
            is_new = self._parts.get(name) is not part
            if isinstance(part, nn.Parameter) and is_new and more:
                place = self._places.get(name)
                owner = found.get(id(parts[name.rpartition(".")[0]])) if place is None else place
                found[id(part)] = max(owner or 0, found.get(id(part)) or 0)


def _parts(model: nn.Module, stand_ins: Mapping[int, nn.Parameter]) -> _Parts:
    """Return every module, then every parameter of a model, under all of its names."""
    parts: _Parts = dict(named_modules(model, remove_duplicate=False))
    for name, parameter in named_parameters(model, remove_duplicate=False):
        parts[name] = stand_ins.get(id(parameter), parameter)
    return parts


def _uses(parts: _Parts) -> Counter[int]:
    return Counter(id(part) for part in parts.values())
