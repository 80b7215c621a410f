"""Which parameters feed which, as values flow through one forward pass."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import fields, is_dataclass
from typing import Any

import torch
from torch import nn
from torch.utils.weak import WeakTensorKeyDictionary

__all__ = ["Flow", "leaves"]

_NOTHING: frozenset[int] = frozenset()


class Flow:
    """Where values come from: the parameters that were the last to touch them.

    Weights may be computed before they are used (normalised, masked): what is made of parameters
    and buffers alone, without a product, still counts as a parameter.

    Args:
        buffers: Tensors that are no input.

    Attributes:
        feeds: For each parameter, by ``id``, those that took what it gave.
        output: The parameters that gave what the model returned.
        multiplied: The parameters with which something was multiplied.
    """

    def __init__(self, buffers: Iterable[torch.Tensor] = ()) -> None:
        self.feeds: dict[int, set[int]] = {}
        self.output: frozenset[int] = _NOTHING
        self.multiplied: set[int] = set()
        self._buffers = frozenset(map(id, buffers))
        self._sources: WeakTensorKeyDictionary = WeakTensorKeyDictionary()
        self._weights: WeakTensorKeyDictionary = WeakTensorKeyDictionary()

    def through(
        self, given: Sequence[Any], parameters: Iterable[nn.Parameter], result: Any, product: bool
    ) -> None:
        """Note that a function made a result of what was given, with these parameters."""
        tensors = [value for value in given if isinstance(value, torch.Tensor)]
        taken = _NOTHING.union(map(id, parameters), *map(self._weight, tensors))
        constant = all(id(t) in taken or t in self._weights or self._is_fixed(t) for t in tensors)
        if taken and constant and not product and result is not None:
            self._mark(self._weights, result, taken)
            return
        if product:  # of constants alone the first is what goes in: queries, say
            self.multiplied |= taken - (self._made_of(tensors[0]) if constant else _NOTHING)
        sources = self.sources(tensors)
        self._feed(sources, taken)
        if tensors and (result is None or result is tensors[0]):  # written in place
            self._mark(self._sources, tensors[0], taken | sources)
            base = tensors[0]._base  # ... through a view
            self._mark(self._sources, base, self.sources([base]) | taken | sources)
        else:
            self._mark(self._sources, result, taken or sources)

    def past(self, given: Any, result: Any, own: frozenset[int]) -> None:
        """Note what a module took and gave, whatever functions it used (not all can be seen).

        Args:
            given: Its arguments.
            result: What it returned.
            own: Its parameters, if it has no module with parameters inside and used them.
        """
        sources = self.sources(leaves(given))
        if own:
            self._feed(sources, own)
            self._mark(self._sources, result, own)
        elif not self.sources(leaves(result)):
            self._mark(self._sources, result, sources)

    def end(self, result: Any) -> None:
        """Note what the model returned, and forget the values."""
        self.output = self.sources(leaves(result))
        self._sources, self._weights = WeakTensorKeyDictionary(), WeakTensorKeyDictionary()

    def sources(self, values: Iterable[Any]) -> frozenset[int]:
        """Return the parameters that values come from, by ``id``."""
        found = [self._sources.get(v, _NOTHING) for v in values if isinstance(v, torch.Tensor)]
        return _NOTHING.union(*found)

    def _feed(self, sources: frozenset[int], taken: frozenset[int]) -> None:
        for source in sources - taken:
            self.feeds.setdefault(source, set()).update(taken)

    def _weight(self, tensor: torch.Tensor) -> frozenset[int]:
        found: frozenset[int] = self._weights.get(tensor, _NOTHING)
        return found

    def _made_of(self, tensor: torch.Tensor) -> frozenset[int]:
        return self._weight(tensor) | {id(tensor)}

    def _is_fixed(self, tensor: torch.Tensor) -> bool:
        return id(tensor) in self._buffers and tensor not in self._sources

    def _mark(self, table: WeakTensorKeyDictionary, result: Any, sources: frozenset[int]) -> None:
        if not sources:
            return
        for tensor in leaves(result):
            if isinstance(tensor, torch.Tensor) and not isinstance(tensor, nn.Parameter):
                table[tensor] = sources


def leaves(value: Any) -> Iterator[Any]:
    """Yield what lies in nested sequences, mappings and dataclasses."""
    if isinstance(value, (tuple, list)):
        for item in value:
            yield from leaves(item)
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from leaves(item)
    elif is_dataclass(value) and not isinstance(value, type):
        for item in fields(value):
            yield from leaves(getattr(value, item.name, None))
    else:
        yield value
