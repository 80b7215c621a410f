"""Optimizers that wrap others, fill in gradients or keep lists, each in short, and a loop."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from torch.optim import SGD, Optimizer

from freezeout import FreezeOut

STEPS = 40
SETTINGS: dict[str, Any] = {"t0": 0.5, "spacing": "linear"}


def make_net(width: int = 16) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Linear(8, width),
        nn.ReLU(),
        nn.Linear(width, width),
        nn.ReLU(),
        nn.Linear(width, 2),
    )


def loss_of(model: nn.Module, n: int) -> torch.Tensor:
    x = torch.randn(32, 8, generator=torch.Generator().manual_seed(n))
    return F.cross_entropy(model(x), (x.sum(1) > 0).long())


def train(
    model: nn.Module,
    optimizer: Any,
    scheduler: FreezeOut | None = None,
    *,
    start: int = 0,
    stop: int = STEPS - 2,
    after: Callable[[int], None] | None = None,
) -> None:
    for n in range(start, stop):
        loss_of(model, n).backward()
        optimizer.step()
        optimizer.zero_grad()
        if scheduler is not None:
            scheduler.step()
        if after is not None:
            after(n + 1)


def copies(parameters: Iterable[torch.Tensor]) -> list[torch.Tensor]:
    return [p.detach().clone() for p in parameters]


def bits_at_the_freeze(scheduler: FreezeOut) -> dict[str, torch.Tensor]:
    """The parameters as they were when they froze, filled while training goes on."""
    at: dict[str, torch.Tensor] = {}

    def note(event: Any) -> None:
        for name, p in scheduler.layers[event.index].parameters:
            at[name] = p.detach().clone()

    scheduler.freezer.add_listener(note)
    return at


def moved(model: nn.Module, before: dict[str, torch.Tensor]) -> list[str]:
    now = dict(model.named_parameters())
    return [name for name, old in before.items() if not torch.equal(now[name], old)]


class Lists(SGD):
    """Keep a list beside the groups from its construction, as AdaBound does."""

    def __init__(self, params: Any, lr: float = 0.1) -> None:
        super().__init__(params, lr=lr)
        self.base_lrs = [group["lr"] for group in self.param_groups]

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        for group, base in zip(self.param_groups, self.base_lrs, strict=False):
            assert base > 0
            for p in group["params"]:
                if p.grad is not None:
                    p.add_(p.grad, alpha=-group["lr"])


class ZeroFilling(Optimizer):
    """Make zeros of missing gradients, then decay and step, as some Muons do."""

    def __init__(self, params: Any, lr: float = 0.02, weight_decay: float = 0.01) -> None:
        super().__init__(params, {"lr": lr, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is None:
                    p.grad = torch.zeros_like(p)
                state = self.state[p].setdefault("momentum_buffer", torch.zeros_like(p))
                state.lerp_(p.grad, 0.05)
                p.mul_(1 - group["lr"] * group["weight_decay"])
                p.add_(state / (state.norm() + 1e-7), alpha=-group["lr"])


class DecayAll(SGD):
    """Decay every parameter, also those without a gradient."""

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        super().step(closure)
        for group in self.param_groups:
            for p in group["params"]:
                p.mul_(0.999)


class DecayRemembered(SGD):
    """Decay every parameter that it was made with, whatever its groups say."""

    def __init__(self, params: Any, **settings: Any) -> None:
        super().__init__(params, **settings)
        self.everything = tuple(p for group in self.param_groups for p in group["params"])

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        super().step(closure)
        for p in self.everything:
            p.mul_(0.999)


class Stateful(SGD):
    """Make state for every parameter, also for those without a gradient."""

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        super().step(closure)
        for group in self.param_groups:
            for p in group["params"]:
                self.state[p].setdefault("average", torch.zeros_like(p))


class Lookahead(Optimizer):
    """Pull every parameter towards a slow copy in its state, every few updates."""

    def __init__(self, optimizer: Optimizer, every: int = 6, alpha: float = 0.5) -> None:
        self.optimizer, self.every, self.alpha, self.count = optimizer, every, alpha, 0
        self.param_groups = optimizer.param_groups
        self.defaults, self.state = optimizer.defaults, defaultdict(dict)

    def zero_grad(self, set_to_none: bool = True) -> None:
        self.optimizer.zero_grad(set_to_none)

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        self.optimizer.step(closure)
        self.count += 1
        if self.count % self.every == 0:
            for group in self.param_groups:
                for p in group["params"]:
                    self.pull(p, self.state[p].setdefault("slow", p.detach().clone()))

    def pull(self, p: torch.Tensor, slow: torch.Tensor) -> None:
        slow += (p - slow) * self.alpha
        p.copy_(slow)


class LookaheadInLists(Lookahead):
    """Keep the slow copies in a list for each group, and walk through both side by side."""

    def __init__(self, optimizer: Optimizer, every: int = 6, alpha: float = 0.5) -> None:
        super().__init__(optimizer, every, alpha)
        self.slow_weights = [copies(group["params"]) for group in self.param_groups]

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        self.optimizer.step(closure)
        self.count += 1
        if self.count % self.every == 0:
            for group, kept in zip(self.param_groups, self.slow_weights, strict=True):
                for p, slow in zip(group["params"], kept, strict=True):
                    self.pull(p, slow)


class Private(Optimizer):
    """Wrap an optimizer as differential privacy does: nothing is called to make it one."""

    def __init__(self, inner: Optimizer) -> None:
        self.original_optimizer = inner
        self.param_groups, self.state = inner.param_groups, inner.state
        self.defaults = inner.defaults

    def zero_grad(self, set_to_none: bool = True) -> None:
        self.original_optimizer.zero_grad(set_to_none)

    def step(self, closure: Any = None) -> Any:  # type: ignore[override]
        return self.original_optimizer.step()


class TwoSteps(Optimizer):
    """Climb first, then step at the place climbed to, as SAM does; ``step`` is never called."""

    def __init__(self, params: Any, **settings: Any) -> None:
        super().__init__(params, settings)
        self.base_optimizer = SGD(self.param_groups, **settings)
        self.param_groups = self.base_optimizer.param_groups

    @torch.no_grad()
    def first_step(self) -> None:
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is not None:
                    self.state[p]["old"] = p.detach().clone()
                    p.add_(p.grad, alpha=0.01)

    @torch.no_grad()
    def second_step(self) -> None:
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is not None:
                    p.copy_(self.state[p]["old"])
        self.base_optimizer.step()

    def step(self, closure: Any = None) -> Any:  # type: ignore[override]
        raise NotImplementedError
