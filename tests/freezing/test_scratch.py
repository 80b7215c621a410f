"""A pass on the side leaves no trace."""

from __future__ import annotations

import random

import torch
from torch import nn

from freezeout.freezing.scratch import cloned, same_bits, without_trace


class Noisy(nn.Module):
    """Changes all that a forward pass can change."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(3)
        self.register_buffer("sum", torch.zeros(3))
        self.register_buffer("last", None)
        self.passes = 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.passes += 1
        self.sum = self.sum + x.sum(0)
        self.last = x
        self.new = x
        x.mul_(random.random())
        return torch.rand_like(self.norm(x))


def test_everything_is_put_back() -> None:
    module, x = Noisy(), torch.ones(4, 3)
    state = {name: t.clone() for name, t in module.state_dict().items()}
    buffer, attributes = module.sum, set(vars(module))
    torch.manual_seed(0)
    random.seed(0)
    before = torch.get_rng_state(), random.getstate()
    given = cloned([(x,), {"k": [x]}])
    with without_trace(module, given):
        module(given[0][0])
        module.eval()
        assert module.passes == 1
    assert module.state_dict().keys() == state.keys()
    assert all(torch.equal(t, state[name]) for name, t in module.state_dict().items())
    assert module.sum is buffer
    assert module.passes == 0
    assert set(vars(module)) == attributes
    assert module.training
    assert module.norm.training
    assert torch.equal(torch.get_rng_state(), before[0])
    assert random.getstate() == before[1]
    assert torch.equal(x, torch.ones(4, 3))
    assert not torch.equal(given[0][0], x)


def test_bits_are_compared() -> None:
    nan = torch.tensor([float("nan"), 1.0])
    assert same_bits(nan, nan.clone())
    assert not same_bits(nan, nan + 1)
    assert not same_bits(torch.zeros(2), -torch.zeros(2))
    assert same_bits(torch.tensor(2), torch.tensor(2))
    assert not same_bits(torch.tensor(2), torch.tensor(3))
    assert same_bits(torch.zeros(0), torch.zeros(0))
    assert not same_bits(torch.zeros(2), torch.zeros(3))
