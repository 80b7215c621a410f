"""A network that somebody else wrote, small enough to be tried."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

__all__ = ["Network", "generator", "images"]


@dataclass(frozen=True)
class Network:
    """A network with random weights.

    Attributes:
        name: Package and name.
        build: Makes it.
        batch: Makes an input: a tensor, a tuple of positional or a dict of keyword arguments.
    """

    name: str
    build: Callable[[], nn.Module]
    batch: Callable[[], Any]

    def model(self) -> nn.Module:
        torch.manual_seed(0)
        return self.build()


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def images(size: int) -> torch.Tensor:
    return torch.randn(2, 3, size, size, generator=generator())
