"""A small network and its loss, for training loops written by hand."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from freezeout import Schedule
from tests.contracts import make_batch

STEPS = 12
LINEAR = Schedule(t0=0.3, spacing="linear", scale_cap=2.0)


def make_net(width: int = 8) -> nn.Sequential:
    torch.manual_seed(0)

    def block(n_in: int) -> nn.Module:
        return nn.Sequential(nn.Linear(n_in, width), nn.LayerNorm(width), nn.Tanh())

    return nn.Sequential(block(6), block(width), block(width), nn.Linear(width, 3))


def loss_of(model: nn.Module, step: int) -> torch.Tensor:
    x, y = make_batch("matrix", step)
    return F.cross_entropy(model(x).float(), y)
