"""Find parameters that should learn and never move."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from freezeout.freezing.bits import digests, has_bits, local_part

__all__ = ["Learners"]

_UPDATES = 10
"""In so many updates a parameter must have had a gradient and a rate, and not have moved."""

_PATIENCE = 50
"""After so many updates that were looked at, stop looking."""

_NOISE = 1e-4
"""A gradient below this part of the largest is rounding: that of a bias before a norm, say."""


class Learners:
    """Compare what an optimizer moves after its first updates with what it was before.

    Nearly always everything has moved after ten updates, and that is all. What has not is watched
    on: if it has a real gradient and a rate in ten more updates, and keeps its bits, it never
    learns.

    Args:
        names: The name of each parameter of the model, by its ``id``.
    """

    def __init__(self, names: dict[int, str]) -> None:
        self._names = names
        self._before: dict[int, tuple[nn.Parameter, int]] = {}
        self._updates = 0
        self._looked = 0
        self._signs: dict[int, int] = {}  # updates with a real gradient, by parameter
        self._now: list[int] = []
        self.done = False

    def before(self, optimizer: Optimizer) -> None:
        """Look at the parameters, or at gradients of those that have not moved, before a step."""
        if self.done:
            return
        if self._updates == 0 and not self._before:
            found = [p for _, p in _learning(optimizer) if id(p) in self._names and has_bits(p)]
            sums = digests(found)
            self._before = {id(p): (p, s) for p, s in zip(found, sums, strict=True) if p.numel()}
        elif self._updates >= _UPDATES:
            self._now = self._with_gradient(optimizer)

    def after(self) -> list[str]:
        """Count an update; return the names of parameters that are known now never to move."""
        if self.done:
            return []
        self._updates += 1
        if self._updates < _UPDATES:
            return []
        if self._updates == _UPDATES:
            self._drop_moved()
            return []
        if not self._now:
            return []
        self._looked += 1
        for key in self._now:
            self._signs[key] = self._signs.get(key, 0) + 1
        enough = [key for key, count in self._signs.items() if count >= _UPDATES]
        self._now = []
        if not enough and self._looked < _PATIENCE:
            return []
        self._drop_moved()
        self.done = True
        found = [self._names[key] for key in enough if key in self._before]
        self._before.clear()
        return found

    def _drop_moved(self) -> None:
        """Forget what has moved, or has frozen."""
        left = [(key, p, s) for key, (p, s) in self._before.items() if p.requires_grad]
        sums = digests([p for _, p, _ in left])
        self._before = {
            key: (p, then) for (key, p, then), now in zip(left, sums, strict=True) if now == then
        }
        self.done = self.done or not self._before

    def _with_gradient(self, optimizer: Optimizer) -> list[int]:
        """Return which of the unmoved have a real gradient and a real rate."""
        if not any(
            id(p) in self._before and p.grad is not None and _has_rate(group)
            for group, p in _learning(optimizer)
        ):
            return []
        keys, sizes = [], []
        for group, p in _learning(optimizer):
            if p.grad is not None and p.grad.numel() and _has_rate(group):
                keys.append(id(p))
                sizes.append(_largest(p.grad))
        values = torch.stack([size.to(sizes[0].device) for size in sizes]).tolist()
        least = _NOISE * max(values, default=0.0)
        return [
            key
            for key, value in zip(keys, values, strict=True)
            if key in self._before and value > 0 and value >= least
        ]


def _learning(optimizer: Optimizer) -> Iterator[tuple[dict[str, Any], nn.Parameter]]:
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            if parameter.requires_grad:
                yield group, parameter


def _has_rate(group: dict[str, Any]) -> bool:
    """Return whether a group's rate is no longer that of a warm-up."""
    rate, base = group.get("lr", 1.0), group.get("initial_lr", 0.0)
    if rate is None:
        return True  # the optimizer finds it by itself
    return float(rate) > 0 and float(rate) >= 0.5 * float(base or 0.0)


def _largest(gradient: torch.Tensor) -> torch.Tensor:
    part = local_part(gradient)
    values = part._values() if part.layout is not torch.strided else part
    return values.abs().max().float() if values.numel() else torch.zeros((), device=part.device)
