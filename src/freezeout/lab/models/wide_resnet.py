"""Wide residual networks: shallow for their size, with many channels."""

from __future__ import annotations

from collections import OrderedDict

from torch import Tensor, nn
from torch.nn import functional as F

from freezeout.errors import check_whole
from freezeout.lab.models.building_blocks import (
    check_dropout,
    check_ends,
    conv1x1,
    conv3x3,
    global_average,
    initialise_,
    layers_per_block,
)

__all__ = ["PreActivationBlock", "WideResNet"]


class PreActivationBlock(nn.Module):
    """Two 3×3 convolutions, each after BatchNorm and ReLU, added to a shortcut.

    The shortcut is the input itself where the shape stays the same. Otherwise it is a 1×1
    convolution of the input after the first BatchNorm and ReLU.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output.
        stride: Stride of the first convolution and of the shortcut; 2 halves the image, rounding
            up.
        dropout: Chance in [0, 1) of zeroing a value between the convolutions.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int, dropout: float) -> None:
        super().__init__()
        self.norm1 = nn.BatchNorm2d(in_channels)
        self.conv1 = conv3x3(in_channels, out_channels, stride)
        self.norm2 = nn.BatchNorm2d(out_channels)
        self.dropout = nn.Dropout(dropout)
        self.conv2 = conv3x3(out_channels, out_channels)
        self.shortcut: nn.Conv2d | None = None
        if in_channels != out_channels or stride != 1:
            self.shortcut = conv1x1(in_channels, out_channels, stride)

    def forward(self, x: Tensor) -> Tensor:
        """Return the sum of shortcut and residual."""
        active = F.relu(self.norm1(x))
        hidden = F.relu(self.norm2(self.conv1(active)))
        residual: Tensor = self.conv2(self.dropout(hidden))
        shortcut: Tensor = x if self.shortcut is None else self.shortcut(active)
        return shortcut + residual


class WideResNet(nn.Module):
    """Wide residual network WRN-``depth``-``widen`` with pre-activation blocks.

    A 3×3 convolution to 16 channels, three blocks of (``depth`` − 4) / 6 layers each (a layer here
    is a residual unit of two convolutions) with 16, 32 and 64 times ``widen`` channels, the second
    and third at half the image size, BatchNorm, ReLU, global average pooling, linear classifier.

    Args:
        depth: Weighted layers as the authors count them: 6n + 4 with n at least 1.
        widen: Factor on the channels, at least 1.
        num_classes: Number of logits, at least 1.
        in_channels: Channels of an image, at least 1.
        dropout: Chance in [0, 1) of zeroing a value between a unit's convolutions; the paper
            uses 0.

    Attributes:
        stem: The first convolution.
        blocks: Units ``block1_layer1``, ``block1_layer2``, … in order.
        norm: The last BatchNorm.
        classifier: The linear layer.

    Raises:
        ValueError: If an argument is outside its range.
        TypeError: If a number is not an integer.

    Example:
        >>> import torch
        >>> WideResNet(10, 1, num_classes=10)(torch.zeros(2, 3, 17, 23)).shape
        torch.Size([2, 10])

    Reference:
        Zagoruyko and Komodakis, "Wide Residual Networks", 2016, table 1 (arXiv:1605.07146).
    """

    def __init__(
        self,
        depth: int,
        widen: int,
        *,
        num_classes: int,
        in_channels: int = 3,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        layers = layers_per_block(depth, 4, "wide ResNet")
        check_whole("widen", widen, "It multiplies the channels; 1 is a thin network.", least=1)
        check_ends(num_classes, in_channels)
        check_dropout(dropout)

        channels = 16
        self.stem = conv3x3(in_channels, channels)
        blocks: OrderedDict[str, nn.Module] = OrderedDict()
        for block in (1, 2, 3):
            width = 16 * widen * 2 ** (block - 1)
            for layer in range(1, layers + 1):
                stride = 2 if block > 1 and layer == 1 else 1
                unit = PreActivationBlock(channels, width, stride, dropout)
                blocks[f"block{block}_layer{layer}"] = unit
                channels = width
        self.blocks = nn.Sequential(blocks)
        self.norm = nn.BatchNorm2d(channels)
        self.classifier = nn.Linear(channels, num_classes)
        initialise_(self)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits (batch, ``num_classes``) of images (batch, channels, height, width)."""
        x = self.blocks(self.stem(x))
        logits: Tensor = self.classifier(global_average(F.relu(self.norm(x))))
        return logits
