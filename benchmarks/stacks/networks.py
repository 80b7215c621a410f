"""Networks of blocks for the benchmarks: equal ones, and ones that differ in shape."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["MixerBlock", "Stack", "wide_mlp"]


def wide_mlp(features: int, width: int, count: int, classes: int) -> nn.Sequential:
    """Build a multilayer perceptron whose parameters are many for their arithmetic.

    Args:
        features: Values of an input, of any shape.
        width: Of each hidden layer.
        count: Number of hidden layers.
        classes: Number of outputs.
    """
    first = nn.Sequential(nn.Flatten(), nn.Linear(features, width), nn.ReLU())
    hidden = [nn.Sequential(nn.Linear(width, width), nn.ReLU()) for _ in range(count - 1)]
    return nn.Sequential(first, *hidden, nn.Linear(width, classes))


class MixerBlock(nn.Module):
    """A residual block of layer norm and two linear maps.

    Args:
        width: Of its input and output.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.up = nn.Linear(width, 2 * width)
        self.down = nn.Linear(2 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        """Map shape (batch, patches, width) to the same."""
        out: Tensor = x + self.down(F.gelu(self.up(self.norm(x))))
        return out


class Stack(nn.Module):
    """Patches of an image, equal blocks, and a classifier.

    Args:
        count: Number of blocks.
        width: Of each patch's vector.
        patch: Edge of a patch in pixels.
        channels: Of the images.
        classes: Number of outputs.
    """

    def __init__(
        self, count: int, width: int, patch: int = 8, channels: int = 3, classes: int = 10
    ) -> None:
        super().__init__()
        self.embed = nn.Conv2d(channels, width, patch, patch)
        self.blocks = nn.Sequential(*(MixerBlock(width) for _ in range(count)))
        self.head = nn.Linear(width, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Map images to logits."""
        x = self.blocks(self.embed(x).flatten(2).transpose(1, 2))
        out: Tensor = self.head(torch.mean(x, 1))
        return out
