"""Gradients, optimizer state and buffers of frozen layers."""

from __future__ import annotations

import torch
from torch import nn

from freezeout import Freezer, split_layers
from tests.contracts import differing, make_net, snapshot
from tests.freezing.steps import backward


def test_gradients_and_state_of_frozen_layers_go_and_others_stay() -> None:
    model = make_net()
    optimizer = torch.optim.AdamW(model.parameters())
    freezer = Freezer(split_layers(model), optimizer)
    backward(model)
    optimizer.step()
    gradients = {name: p.grad for name, p in model.named_parameters()}
    states = {name: optimizer.state[p] for name, p in model.named_parameters()}
    freezer.set_depth(2)
    for name, p in model.named_parameters():
        if name.startswith(("blocks.0", "blocks.1")):
            assert p.grad is None
            assert p not in optimizer.state
        else:
            assert p.grad is gradients[name]
            assert optimizer.state[p] is states[name]
    assert len(optimizer.param_groups) == 1
    assert len(optimizer.param_groups[0]["params"]) == len(gradients)


def test_zero_grad_does_not_bring_gradients_back() -> None:
    model = make_net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=0.1)
    freezer = Freezer(split_layers(model), optimizer)
    backward(model)
    optimizer.step()
    optimizer.zero_grad(set_to_none=False)
    freezer.set_depth(1)
    before = snapshot(model)
    for n in range(3):
        optimizer.zero_grad(set_to_none=False)
        model.train()
        backward(model, n)
        optimizer.step()
    changed = differing(before, snapshot(model))
    assert changed == [name for name in before if not name.startswith("blocks.0")]


def test_power_iterations_of_a_frozen_spectral_norm_stand_still() -> None:
    norm = nn.utils.parametrizations.spectral_norm
    torch.manual_seed(0)
    model = nn.Sequential(norm(nn.Linear(4, 4)), nn.ReLU(), norm(nn.Linear(4, 2)))
    freezer = Freezer(split_layers(model, layers=["0", "2"]))
    freezer.set_depth(1)
    before = snapshot(model)
    model.train()
    model(torch.randn(3, 4)).sum().backward()
    changed = differing(before, snapshot(model))
    assert changed
    assert all(name.startswith("2.") for name in changed)
