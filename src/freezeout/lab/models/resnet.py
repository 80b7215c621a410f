"""The residual networks of He et al. for CIFAR."""

from __future__ import annotations

from collections import OrderedDict

from torch import Tensor, nn
from torch.nn import functional as F

from freezeout.errors import check_whole
from freezeout.lab.models.building_blocks import (
    check_ends,
    conv3x3,
    global_average,
    initialise_,
    layers_per_block,
)

__all__ = ["BasicBlock", "ResNet"]


class BasicBlock(nn.Module):
    """Two 3×3 convolutions with BatchNorm, added to a shortcut without parameters.

    The shortcut is option A: every ``stride``-th pixel of the input, with channels of zeros
    appended where the output has more.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output, at least ``in_channels``.
        stride: Stride of the first convolution; 2 halves the image, rounding up.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = conv3x3(in_channels, out_channels, stride)
        self.norm1 = nn.BatchNorm2d(out_channels)
        self.conv2 = conv3x3(out_channels, out_channels)
        self.norm2 = nn.BatchNorm2d(out_channels)
        self.stride = stride
        self.new_channels = out_channels - in_channels

    def forward(self, x: Tensor) -> Tensor:
        """Return the ReLU of the sum of shortcut and residual."""
        residual = F.relu(self.norm1(self.conv1(x)))
        residual = self.norm2(self.conv2(residual))
        if self.stride != 1:
            x = x[:, :, :: self.stride, :: self.stride]
        if self.new_channels:
            x = F.pad(x, (0, 0, 0, 0, 0, self.new_channels))
        return F.relu(x + residual)


class ResNet(nn.Module):
    """ResNet-``depth`` for CIFAR, the first version (activation after the sum).

    A 3×3 convolution with BatchNorm and ReLU, three blocks of (``depth`` − 2) / 6 layers each (a
    layer here is a residual unit of two convolutions) with 1, 2 and 4 times ``base_width``
    channels, the second and third at half the image size, global average pooling, linear
    classifier. Shortcuts are **option A**: identity, with zeros for the channels that are new, and
    so without parameters.

    Args:
        depth: Weighted layers: 6n + 2 with n at least 1.
        base_width: Channels of the first block, at least 1; the authors use 16.
        num_classes: Number of logits, at least 1.
        in_channels: Channels of an image, at least 1.

    Attributes:
        stem: The first convolution and its BatchNorm.
        blocks: Units ``block1_layer1``, ``block1_layer2``, … in order.
        classifier: The linear layer.

    Raises:
        ValueError: If an argument is outside its range.
        TypeError: If a number is not an integer.

    Example:
        >>> import torch
        >>> ResNet(8, num_classes=10, in_channels=1)(torch.zeros(2, 1, 28, 28)).shape
        torch.Size([2, 10])

    Reference:
        He et al., "Deep Residual Learning for Image Recognition", 2015, section 4.2
        (arXiv:1512.03385).
    """

    def __init__(
        self, depth: int, base_width: int = 16, *, num_classes: int, in_channels: int = 3
    ) -> None:
        super().__init__()
        layers = layers_per_block(depth, 2, "CIFAR ResNet")
        check_whole(
            "base_width",
            base_width,
            "It is the channels of the first block, 16 by default.",
            least=1,
        )
        check_ends(num_classes, in_channels)

        channels = base_width
        self.stem = nn.Sequential(
            OrderedDict[str, nn.Module](
                conv=conv3x3(in_channels, channels), norm=nn.BatchNorm2d(channels)
            )
        )
        blocks: OrderedDict[str, nn.Module] = OrderedDict()
        for block in (1, 2, 3):
            width = base_width * 2 ** (block - 1)
            for layer in range(1, layers + 1):
                stride = 2 if block > 1 and layer == 1 else 1
                blocks[f"block{block}_layer{layer}"] = BasicBlock(channels, width, stride)
                channels = width
        self.blocks = nn.Sequential(blocks)
        self.classifier = nn.Linear(channels, num_classes)
        initialise_(self)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits (batch, ``num_classes``) of images (batch, channels, height, width)."""
        x = self.blocks(F.relu(self.stem(x)))
        logits: Tensor = self.classifier(global_average(x))
        return logits
