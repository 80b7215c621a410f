"""What must hold for a network that is cut with an example."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import nn

from freezeout import Freezer, FrozenPrefixWarning, Layers, split_layers
from tests.layers.real.network import Network

__all__ = ["cut", "freezes_right"]


def cut(network: Network) -> tuple[nn.Module, Layers]:
    model = network.model()
    return model, split_layers(model, example=network.batch())


def freezes_right(network: Network, model: nn.Module, layers: Layers) -> bool:
    """Checks gradients at three depths; returns whether the backward pass stopped at each."""
    model.train()
    optimizer = torch.optim.SGD((p for p in model.parameters() if p.requires_grad), lr=0.1)
    freezer = Freezer(layers, optimizer)
    stopped = True
    last = len(layers) - 1
    for depth in sorted({1, (last + 1) // 2, last}):
        freezer.set_depth(depth)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("ignore")
            warnings.simplefilter("always", FrozenPrefixWarning)
            ours = gradients(network, model)
        stopped &= freezer.verified and not caught
        frozen = [p for layer in layers[:depth] for _, p in layer.parameters]
        assert all(p.grad is None for p in frozen)
        for p in frozen:
            p.requires_grad_(True)
        whole = gradients(network, model)
        for p in frozen:
            p.requires_grad_(False)
            p.grad = None
        active = [name for layer in layers[depth:] for name, _ in layer.parameters]
        same(ours, whole, active)
    return stopped


def same(ours: Mapping[str, Any], whole: Mapping[str, Any], active: Iterable[str]) -> None:
    learning = 0
    for name in active:
        one, other = ours.get(name), whole.get(name)
        assert (one is None) == (other is None), f"{name}: {one is None} {other is None}"
        if one is not None:
            learning += 1
            torch.testing.assert_close(
                one, other, rtol=1e-4, atol=1e-5, msg=lambda m, n=name: n + m
            )
    assert learning > 0


def gradients(network: Network, model: nn.Module) -> dict[str, torch.Tensor]:
    model.zero_grad()
    torch.manual_seed(1)
    batch = network.batch()
    if isinstance(batch, dict):
        given = model(**batch)
    else:
        given = model(*batch) if isinstance(batch, tuple) else model(batch)
    loss(given).backward()
    return {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}


def loss(given: Any) -> torch.Tensor:
    terms = [
        (tensor.float() * torch.linspace(-1, 1, tensor.numel()).view(tensor.shape)).mean()
        for tensor in floats(given)
    ]
    return torch.stack(terms).sum()


def floats(given: Any) -> Iterator[torch.Tensor]:
    if isinstance(given, torch.Tensor):
        if given.requires_grad:
            yield given
    elif isinstance(given, Mapping):
        for item in given.values():
            yield from floats(item)
    elif isinstance(given, (tuple, list)):
        for item in given:
            yield from floats(item)
