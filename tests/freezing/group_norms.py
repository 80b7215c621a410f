"""Channels-last networks with GroupNorm of several makes, and what is done with them.

Each case ends its process where the guard is missing: ``python -m tests.freezing.group_norms CASE``
runs one and says at the end what it saw.
"""

from __future__ import annotations

import copy
import io
import sys
from collections.abc import Callable, Iterator
from itertools import product

import torch
import torch.nn.functional as F
from torch import nn

from freezeout import FreezeOut, Freezer, Schedule, reference, split_layers, unfreeze
from freezeout.freezing.group_norm import guard_group_norm

STEPS = 10
SCHEDULE = Schedule(t0=0.3, spacing="linear", scaled=False)


class Block(nn.Module):
    """A block that starts with its norm, so that the norm is the first to learn."""

    def __init__(self, norm: nn.Module) -> None:
        super().__init__()
        self.norm, self.conv = norm, nn.Conv2d(8, 8, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.conv(F.relu(self.norm(x)))


class Block3d(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm, self.conv = nn.GroupNorm(2, 8), nn.Conv3d(8, 8, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.conv(F.relu(self.norm(x)))


class Written(nn.Module):
    """A norm that calls the function and adds an activation, as custom ones do."""

    def __init__(self) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.rand(8)), nn.Parameter(torch.rand(8))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.silu(F.group_norm(x, 4, self.weight, self.bias, 1e-6))


class Derived(nn.GroupNorm):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x.float()).clamp(max=3.0)


def without_bias() -> nn.Module:
    norm = nn.GroupNorm(4, 8)
    norm.register_parameter("bias", None)
    return norm


NORMS: dict[str, Callable[[], nn.Module]] = {
    "module": lambda: nn.GroupNorm(4, 8),
    "no bias": without_bias,
    "derived": lambda: Derived(8, 8),
    "function": Written,
}


def net(make: Callable[[], nn.Module]) -> nn.Sequential:
    torch.manual_seed(0)
    head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4))
    made = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), Block(make()), Block(make()), head)
    return made.to(memory_format=torch.channels_last)


def batches(count: int = STEPS) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    generator = torch.Generator().manual_seed(1)
    for _ in range(count):
        x = torch.randn(2, 3, 6, 7, generator=generator)
        yield x.to(memory_format=torch.channels_last), torch.randint(4, (2,), generator=generator)


def learn(model: nn.Module, optimizer: torch.optim.Optimizer, scheduler: FreezeOut | None) -> None:
    for x, y in batches():
        F.cross_entropy(model(x), y).backward()
        optimizer.step()
        optimizer.zero_grad()
        if scheduler is not None:
            scheduler.step()


def run(model: nn.Module) -> FreezeOut:
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    scheduler = FreezeOut(optimizer, model, STEPS, schedule=SCHEDULE)
    learn(model, optimizer, scheduler)
    return scheduler


def run_to_the_weights_of_the_reference() -> None:
    for name, make in NORMS.items():
        model, twin, start = net(make), net(make), net(make)
        assert run(model).frozen == 3, name
        reference.train(
            twin,
            torch.optim.SGD(twin.parameters(), lr=0.05),
            batches(),
            F.cross_entropy,
            layers=split_layers(twin),
            schedule=SCHEDULE,
            total_steps=STEPS,
        )
        for p, q, before in zip(*(m.parameters() for m in (model, twin, start)), strict=True):
            assert torch.equal(p, q), name  # where every norm's input needs a gradient
            assert not torch.equal(p, before), name


def run_behind_what_the_user_froze() -> None:
    for make in NORMS.values():
        model, start = net(make), net(make)
        model[0].requires_grad_(False)  # needed before anything freezes
        run(model)
        assert torch.equal(model[0].weight, start[0].weight)
        assert not torch.equal(model[1].conv.weight, start[1].conv.weight)


def run_with_norms_put_in_after_the_freeze() -> None:
    model = net(NORMS["module"])
    Freezer(split_layers(model)).set_depth(1)
    for make in NORMS.values():
        model[1].norm = make()
        learn(model, torch.optim.SGD(model[1:].parameters(), lr=0.05), None)


def run_what_was_copied_loaded_or_thawed() -> None:
    model = net(NORMS["module"])
    Freezer(split_layers(model)).set_depth(1)
    kept = io.BytesIO()
    torch.save(model, kept)
    kept.seek(0)
    for other in (copy.deepcopy(model), torch.load(kept, weights_only=False)):
        learn(other, torch.optim.SGD(other[1:].parameters(), lr=0.05), None)
    unfreeze(model)
    model[0].requires_grad_(False)
    learn(model, torch.optim.SGD(model[1:].parameters(), lr=0.05), None)


def run_three_dimensions_and_compiled() -> None:
    made = nn.Sequential(
        nn.Conv3d(3, 8, 3), Block3d(), Block3d(), nn.Flatten(), nn.Linear(8 * 8, 2)
    )
    made = made.to(memory_format=torch.channels_last_3d)
    Freezer(split_layers(made)).set_depth(1)
    x = torch.randn(2, 3, 4, 4, 4).to(memory_format=torch.channels_last_3d)
    made(x).sum().backward()
    model = net(NORMS["function"])
    Freezer(split_layers(model)).set_depth(1)
    for backend in ("eager", "aot_eager"):
        torch.compile(model, backend=backend)(next(batches())[0]).sum().backward()
    assert model[0].weight.grad is None
    assert model[1].norm.weight.grad is not None


SHAPES = [(2, 8, 3, 4), (2, 8, 1, 5), (1, 8, 5, 1), (3, 1, 4, 4), (2, 8, 64, 64), (2, 8, 1, 1)]
FORMATS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "contiguous": lambda x: x.contiguous(),
    "channels-last": lambda x: x.permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2),
    "transposed": lambda x: x.mT.contiguous().mT,
    "expanded": lambda x: x[:1].expand(x.shape),
    "every second": lambda x: torch.stack([x, x], -1)[..., 0],
}


def give_the_gradients_of_a_norm_whose_input_needs_one() -> None:
    guard_group_norm()
    cases = product(SHAPES, FORMATS.items(), (("weight", "bias"), ("weight",), ("bias",)))
    for shape, (layout, arrange), learning in cases:
        x = arrange(torch.randn(shape, generator=torch.Generator().manual_seed(0)))
        found = []
        for needed in (False, True):
            norm = nn.GroupNorm(min(2, shape[1]), shape[1])
            for name, parameter in norm.named_parameters():
                parameter.requires_grad_(name in learning)
            given = x.detach().requires_grad_(needed)
            norm(given).square().mul(torch.arange(float(shape[-1]))).sum().backward()
            assert (given.grad is not None) is needed
            found.append([p.grad for p in norm.parameters()])
        for name, alone, both in zip(("weight", "bias"), *found, strict=True):
            assert (alone is not None) is (name in learning), (shape, layout, name)
            assert alone is None or torch.equal(alone, both), (shape, layout, name)


def leave_second_derivatives_alone() -> None:
    guard_group_norm()
    x = torch.randn(2, 8, 3, 3, dtype=torch.float64).to(memory_format=torch.channels_last)
    weight = torch.rand(8, dtype=torch.float64, requires_grad=True)

    def norm(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        return F.group_norm(x, 2, weight).pow(3)

    assert torch.autograd.gradgradcheck(norm, (x, weight))
    assert torch.autograd.gradgradcheck(norm, (x.requires_grad_(), weight))


def load_a_frozen_model(path: str) -> None:
    """Learn on with a model that another process froze and saved; nothing here froze anything."""
    model = torch.load(path, weights_only=False)
    learn(model, torch.optim.SGD(model[1:].parameters(), lr=0.05), None)


def plain_torch() -> None:
    """Do what freezing does without freezeout; it ends the process where PyTorch has the fault."""
    model = net(NORMS["module"])
    model[0].requires_grad_(False)
    learn(model, torch.optim.SGD(model[1:].parameters(), lr=0.05), None)


if __name__ == "__main__":
    torch.set_num_threads(1)
    globals()[sys.argv[1]](*sys.argv[2:])
    print("lived")
