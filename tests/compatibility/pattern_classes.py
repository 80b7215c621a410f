"""Small optimizers, each with one habit that optimizers outside PyTorch have."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import nn
from torch.optim import SGD, Optimizer

Step = Callable[[], Any] | None


class Plain(Optimizer):
    """Gradient descent with momentum, to be varied."""

    def __init__(self, params: Any, lr: Any = 0.1, **more: Any) -> None:
        super().__init__(params, {"lr": lr, "weight_decay": 0.05, **more})

    def pairs(self) -> Iterator[tuple[dict[str, Any], nn.Parameter]]:
        for group in self.param_groups:
            for p in group["params"]:
                yield group, p

    def move(self, p: nn.Parameter, rate: float, decay: float) -> None:
        momentum = self.state[p].setdefault("momentum", torch.zeros_like(p))
        momentum.mul_(0.9).add_(p.grad)
        p.mul_(1 - rate * decay).add_(momentum, alpha=-rate)

    @torch.no_grad()
    def step(self, closure: Step = None) -> None:
        for group, p in self.pairs():
            if p.grad is not None:
                self.move(p, group["lr"], group["weight_decay"])


class ZeroFills(Plain):
    """Makes a gradient of zeros where there is none."""

    @torch.no_grad()
    def step(self, closure: Step = None) -> None:
        for group, p in self.pairs():
            if p.grad is None:
                p.grad = torch.zeros_like(p)
            self.move(p, group["lr"], group["weight_decay"])


class DecaysAll(Plain):
    """Weight decay for every parameter, whether it has a gradient or not."""

    @torch.no_grad()
    def step(self, closure: Step = None) -> None:
        for group, p in self.pairs():
            p.mul_(1 - group["lr"] * group["weight_decay"])
        super().step(closure)


class RollsOn(Plain):
    """Momentum that it keeps itself, and goes on with where there is no gradient."""

    def __init__(self, params: Any, **settings: Any) -> None:
        super().__init__(params, **settings)
        self.momenta = {p: torch.zeros_like(p) for _, p in self.pairs()}

    @torch.no_grad()
    def step(self, closure: Step = None) -> None:
        for group, p in self.pairs():
            momentum = self.momenta[p].mul_(0.9)
            if p.grad is not None:
                momentum.add_(p.grad)
            p.sub_(momentum, alpha=group["lr"])


class ListOfRates(Plain):
    """A list of the groups' first rates."""

    def __init__(self, params: Any, **settings: Any) -> None:
        super().__init__(params, **settings)
        self.base_lrs = [group["lr"] for group in self.param_groups]

    @torch.no_grad()
    def step(self, closure: Step = None) -> None:
        for group, base in zip(self.param_groups, self.base_lrs, strict=False):
            for p in group["params"]:
                if p.grad is not None:
                    self.move(p, (group["lr"] + 0.1 * group["lr"] / base) / 2, 0.0)


class ListOfUnknown(Plain):
    """A list with an entry for each group that nobody but itself understands."""

    def __init__(self, params: Any, **settings: Any) -> None:
        super().__init__(params, **settings)
        self.trust = [1.0 + 0.37 * n for n, _ in enumerate(self.param_groups)]

    @torch.no_grad()
    def step(self, closure: Step = None) -> None:
        for group, trust in zip(self.param_groups, self.trust, strict=False):
            for p in group["params"]:
                if p.grad is not None:
                    self.move(p, group["lr"] * trust, 0.0)


class Lookahead(Optimizer):
    """Around another: slow weights, by parameter, that pull the fast ones back."""

    def __init__(self, optimizer: Optimizer, every: int = 3) -> None:
        self.optimizer, self.every, self.count = optimizer, every, 0
        self.param_groups, self.defaults = optimizer.param_groups, optimizer.defaults
        self.state: Any = defaultdict(dict)

    def zero_grad(self, set_to_none: bool = True) -> None:
        self.optimizer.zero_grad(set_to_none)

    @torch.no_grad()
    def step(self, closure: Step = None) -> None:
        self.optimizer.step(closure)
        self.count += 1
        if self.count % self.every == 0:
            for group in self.param_groups:
                for p in group["params"]:
                    slow = self.state[p].setdefault("slow", p.detach().clone())
                    p.copy_(slow.lerp_(p, 0.5))

    def state_dict(self) -> dict[str, Any]:
        parameters = [p for group in self.param_groups for p in group["params"]]
        slow = [self.state[p].get("slow") if p in self.state else None for p in parameters]
        return {"fast": self.optimizer.state_dict(), "slow": slow, "count": self.count}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.optimizer.load_state_dict(state_dict["fast"])
        parameters = [p for group in self.param_groups for p in group["params"]]
        for p, slow in zip(parameters, state_dict["slow"], strict=True):
            if slow is not None:
                self.state[p]["slow"] = slow
        self.count = state_dict["count"]


class LookaheadByPosition(Lookahead):
    """The same, with slow weights in lists like those of the groups."""

    def __init__(self, optimizer: Optimizer, every: int = 3) -> None:
        super().__init__(optimizer, every)
        self.slow_weights = [
            [p.detach().clone() for p in group["params"]] for group in self.param_groups
        ]

    def state_dict(self) -> dict[str, Any]:
        return super().state_dict() | {"lists": self.slow_weights}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        super().load_state_dict(state_dict)
        self.slow_weights = state_dict["lists"]

    @torch.no_grad()
    def step(self, closure: Step = None) -> None:
        self.optimizer.step(closure)
        self.count += 1
        if self.count % self.every == 0:
            for group, slow_weights in zip(self.param_groups, self.slow_weights, strict=True):
                for p, slow in zip(group["params"], slow_weights, strict=True):
                    p.copy_(slow.lerp_(p, 0.5))


class Private(Optimizer):
    """Around another, without ``super().__init__``; passes everything on (as Opacus does)."""

    def __init__(self, optimizer: Optimizer) -> None:
        self.original_optimizer = optimizer

    param_groups = property(lambda self: self.original_optimizer.param_groups)
    state = property(lambda self: self.original_optimizer.state)
    defaults = property(lambda self: self.original_optimizer.defaults)

    def zero_grad(self, set_to_none: bool = True) -> None:
        self.original_optimizer.zero_grad(set_to_none)

    def step(self, closure: Step = None) -> Any:
        return self.original_optimizer.step(closure)

    def state_dict(self) -> dict[str, Any]:
        return self.original_optimizer.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.original_optimizer.load_state_dict(state_dict)


class TwoSteps(Optimizer):
    """Up and down again around each update; ``step`` itself is not to be called."""

    def __init__(self, params: Any, **settings: Any) -> None:
        super().__init__(params, settings)
        self.base_optimizer = SGD(self.param_groups, **settings)
        self.param_groups = self.base_optimizer.param_groups

    @torch.no_grad()
    def first_step(self, zero_grad: bool = False) -> None:
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is not None:
                    self.state[p]["old"] = p.detach().clone()
                    p.add_(p.grad, alpha=0.05)
        self.zero_grad()

    @torch.no_grad()
    def second_step(self, zero_grad: bool = False) -> None:
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is not None:
                    p.copy_(self.state[p].pop("old"))
        self.base_optimizer.step()
        self.zero_grad()

    def step(self, closure: Step = None) -> None:
        raise NotImplementedError("call first_step and second_step")


class ClosureOnly(Plain):
    """Computes the gradients itself."""

    @torch.no_grad()
    def step(self, closure: Step = None) -> None:
        assert closure is not None
        with torch.enable_grad():
            closure()
        super().step()


class StateById(Plain):
    """Its state is an attribute, by ``id``."""

    def __init__(self, params: Any, **settings: Any) -> None:
        super().__init__(params, **settings)
        self.momenta: dict[int, torch.Tensor] = {}

    def move(self, p: nn.Parameter, rate: float, decay: float) -> None:
        momentum = self.momenta.setdefault(id(p), torch.zeros_like(p))
        momentum.mul_(0.9).add_(p.grad)
        p.mul_(1 - rate * decay).add_(momentum, alpha=-rate)


class CopiesGroups(Plain):
    """Steps over groups that it copied when it was made."""

    def __init__(self, params: Any, **settings: Any) -> None:
        super().__init__(params, **settings)
        self.own_groups = [dict(group) for group in self.param_groups]

    def pairs(self) -> Iterator[tuple[dict[str, Any], nn.Parameter]]:
        for group in self.own_groups:
            for p in group["params"]:
                yield group, p


class InBackward(Plain):
    """Moves each parameter as its gradient comes; ``step`` has nothing left to do."""

    def __init__(self, params: Any, **settings: Any) -> None:
        super().__init__(params, **settings)
        for _, p in self.pairs():
            p.register_post_accumulate_grad_hook(self.now)

    @torch.no_grad()
    def now(self, p: torch.Tensor) -> None:
        group = next(g for g, q in self.pairs() if q is p)
        self.move(p, group["lr"], group["weight_decay"])  # type: ignore[arg-type]
        p.grad = None

    def step(self, closure: Step = None) -> None:
        """Nothing is left to do."""


class Masters(Plain):
    """Copies in float32 of parameters in half precision, written back after each step."""

    @torch.no_grad()
    def step(self, closure: Step = None) -> None:
        for group, p in self.pairs():
            if p.grad is not None:
                master = self.state[p].setdefault("master", p.detach().float())
                master.sub_(p.grad.float(), alpha=group["lr"])
                p.copy_(master)


class MastersInAList(Plain):
    """The same, in a list like that of all parameters; all are written back."""

    def __init__(self, params: Any, **settings: Any) -> None:
        super().__init__(params, **settings)
        self.masters = [p.detach().float() for _, p in self.pairs()]

    @torch.no_grad()
    def step(self, closure: Step = None) -> None:
        for (group, p), master in zip(self.pairs(), self.masters, strict=True):
            if p.grad is not None:
                master.sub_(p.grad.float(), alpha=group["lr"])
            p.copy_(master)


class DecayedMasters(MastersInAList):
    """The same, with weight decay of all copies: what is frozen moves."""

    @torch.no_grad()
    def step(self, closure: Step = None) -> None:
        for (group, _), master in zip(self.pairs(), self.masters, strict=True):
            master.mul_(1 - 0.1 * group["weight_decay"])
        super().step(closure)


class CallsItsParent(Plain):
    """Its step calls the step of its parent, whose hooks run, too."""

    def step(self, closure: Step = None) -> None:
        super().step(closure)


class OneRate(Plain):
    """One estimate for all parameters, times the rate of the first group."""

    def __init__(self, params: Any, **settings: Any) -> None:
        super().__init__(params, **settings, d=0.5, d0=1e-6)

    @torch.no_grad()
    def step(self, closure: Step = None) -> None:
        rate = self.param_groups[0]["lr"] * self.param_groups[0]["d"]
        for _, p in self.pairs():
            if p.grad is not None:
                self.move(p, rate, 0.0)
