"""A model to freeze, a backward pass, and what flags and modes should be."""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F
from torch import nn

from freezeout import Freezer, split_layers
from tests.contracts import make_batch, make_net, modes


def make(depth: int = 0, **options: Any) -> tuple[Any, Freezer]:
    model = make_net()
    freezer = Freezer(split_layers(model), **options)
    freezer.set_depth(depth)
    return model, freezer


def backward(model: nn.Module, n: int = 0) -> None:
    x, y = make_batch("conv", n)
    F.cross_entropy(model(x), y).backward()


def expected_flags(model: nn.Module, depth: int) -> dict[str, bool]:
    layers = split_layers(model)
    return {name: layers.index_of(p) >= depth for name, p in model.named_parameters()}


def expected_modes(model: nn.Module, depth: int, mode: bool = True) -> dict[str, bool]:
    frozen = tuple(f"blocks.{i}" for i in range(depth))
    if depth == len(model.blocks):
        frozen += ("blocks",)  # the container goes with the last block in it
    return {name: mode and not name.startswith(frozen or ("-",)) for name in modes(model)}
