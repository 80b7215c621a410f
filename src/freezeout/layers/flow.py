"""Which parameters feed which, as values flow through one forward pass."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import fields, is_dataclass
from typing import Any

import torch
from torch import nn
from torch.utils.weak import WeakTensorKeyDictionary

__all__ = ["Flow", "leaves"]

_NOTHING: frozenset[int] = frozenset()


class Flow:
    """Where values come from: the parameters that were the last to touch them.

    Attributes:
        feeds: For each parameter, by ``id``, those that took what it gave.
        output: The parameters that gave what the model returned.
    """

    def __init__(self) -> None:
        self.feeds: dict[int, set[int]] = {}
        self.output: frozenset[int] = _NOTHING
        self._sources: WeakTensorKeyDictionary = WeakTensorKeyDictionary()

    def through(
        self, given: Iterable[Any], parameters: Iterable[nn.Parameter], result: Any
    ) -> None:
        """Note that a function made a result of what was given, with these parameters."""
        given = list(given)
        sources = self.sources(given)
        taken = frozenset(map(id, parameters))
        for source in sources - taken:
            self.feeds.setdefault(source, set()).update(taken)
        if given and (result is None or result is given[0]):  # written in place
            self._mark(given[0], taken | sources)
            base = given[0]._base if isinstance(given[0], torch.Tensor) else None
            self._mark(base, self.sources([base]) | taken | sources)  # ... through a view
        else:
            self._mark(result, taken or sources)

    def past(self, given: Any, result: Any) -> None:
        """Note what a module took and gave: some functions (custom gradients) cannot be seen."""
        if not self.sources(leaves(result)):
            self._mark(result, self.sources(leaves(given)))

    def end(self, result: Any) -> None:
        """Note what the model returned, and forget the values."""
        self.output = self.sources(leaves(result))
        self._sources = WeakTensorKeyDictionary()

    def sources(self, values: Iterable[Any]) -> frozenset[int]:
        """Return the parameters that values come from, by ``id``."""
        found = [self._sources.get(v, _NOTHING) for v in values if isinstance(v, torch.Tensor)]
        return _NOTHING.union(*found)

    def _mark(self, result: Any, sources: frozenset[int]) -> None:
        if not sources:
            return
        for tensor in leaves(result):
            if isinstance(tensor, torch.Tensor) and not isinstance(tensor, nn.Parameter):
                self._sources[tensor] = sources


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
