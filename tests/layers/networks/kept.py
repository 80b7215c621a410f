"""Networks with parts that are kept as they are, at toy size: they require no gradient."""

from __future__ import annotations

import copy

import torch
import torch.nn.functional as F
from torch import nn


def encoder() -> nn.Sequential:
    """Two blocks and a projection."""
    blocks = [nn.Sequential(nn.Linear(12, 12), nn.LayerNorm(12), nn.ReLU()) for _ in range(2)]
    return nn.Sequential(nn.Flatten(), nn.Linear(48, 12), *blocks, nn.Linear(12, 6))


class MomentumContrast(nn.Module):
    """As MoCo: a second encoder, defined last, follows the first and never learns."""

    def __init__(self) -> None:
        super().__init__()
        self.query = encoder()
        self.key = copy.deepcopy(self.query).requires_grad_(False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            keys = F.normalize(self.key(x.flip(-1)))
        return F.normalize(self.query(x)) @ keys.T


class Perceptual(nn.Module):
    """What the network makes is looked at through a fixed one, which gradients pass."""

    def __init__(self) -> None:
        super().__init__()
        self.net = encoder()
        self.features = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 3))
        self.features.requires_grad_(False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.features(self.net(x))


class FixedTower(nn.Module):
    """As in captioning and probing: a pretrained tower that is kept, then blocks that learn."""

    def __init__(self) -> None:
        super().__init__()
        self.tower = encoder().requires_grad_(False)
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.Linear(6, 6), nn.LayerNorm(6), nn.ReLU()) for _ in range(3)
        )
        self.head = nn.Linear(6, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.tower(x)
        for block in self.blocks:
            x = x + block(x)
        return self.head(x)
