"""Layers that take an exact time on a clock of their own, so that measurements can be checked."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn


@dataclass
class Clock:
    """A clock that moves only where work is done.

    Attributes:
        now: Seconds.
        pace: Called with seconds of work; how long they take at this moment.
    """

    now: float = 0.0
    pace: Callable[[float], float] = lambda seconds: seconds

    def work(self, seconds: float) -> None:
        self.now += self.pace(seconds)

    def perf_counter(self) -> float:
        return self.now


@dataclass(frozen=True)
class Price:
    """Seconds of a layer: forward learning and frozen, backward for its input and its weight."""

    forward: float
    frozen: float
    input: float
    weight: float


class _Work(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Any, weight: Any, clock: Clock, price: Price, training: bool) -> Any:
        ctx.clock, ctx.price = clock, price
        clock.work(price.forward if training else price.frozen)
        ctx.save_for_backward(x, weight)
        return x @ weight

    @staticmethod
    def backward(ctx: Any, gradient: Any) -> Any:
        for_input, for_weight = ctx.needs_input_grad[:2]
        ctx.clock.work(ctx.price.input * for_input + ctx.price.weight * for_weight)
        x, weight = ctx.saved_tensors
        return (
            gradient @ weight.T if for_input else None,
            x.T @ gradient if for_weight else None,
            None,
            None,
            None,
        )


class Costly(nn.Module):
    """One layer."""

    def __init__(self, clock: Clock, price: Price) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.eye(4))
        self.clock, self.price = clock, price

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return _Work.apply(x, self.weight, self.clock, self.price, self.training)


class CostlySGD(torch.optim.SGD):
    """Takes time for every parameter that has a gradient."""

    clock = Clock()
    seconds = 0.0

    def step(self, closure: Any = None) -> Any:
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self.clock.work(self.seconds)
        return super().step(closure)


def network(clock: Clock, prices: Sequence[Price]) -> nn.Sequential:
    return nn.Sequential(*(Costly(clock, price) for price in prices))


def prices(count: int, seed: int = 0) -> list[Price]:
    """Backward about twice the forward, frozen forward a little cheaper; early layers cost more."""
    generator = random.Random(seed)
    scale = [generator.uniform(0.5, 1.5) * 2.0 ** (-2 * i / count) for i in range(count)]
    return [
        Price(
            forward=0.010 * s,
            frozen=0.008 * s,
            input=0.010 * s * generator.uniform(0.8, 1.2),
            weight=0.010 * s,
        )
        for s in scale
    ]


def true_seconds(prices: Sequence[Price], depth: int, optimizer: float = 0.0) -> float:
    """What a step takes with the first `depth` layers frozen."""
    frozen = sum(price.frozen for price in prices[:depth])
    active = sum(p.forward + p.weight + optimizer for p in prices[depth:])
    return frozen + active + sum(price.input for price in prices[depth + 1 :])
