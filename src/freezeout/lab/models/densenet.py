"""DenseNet-BC: every layer of a block sees the outputs of all layers before it."""

from __future__ import annotations

from collections import OrderedDict

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from freezeout.errors import check_whole
from freezeout.lab.models.building_blocks import (
    check_ends,
    check_image_size,
    conv1x1,
    conv3x3,
    global_average,
    initialise_,
    layers_per_block,
    pool_window,
    pooled,
)

__all__ = ["DenseLayer", "DenseNet", "Transition"]


class DenseLayer(nn.Module):
    """Bottleneck layer that appends ``growth`` channels to its input.

    BatchNorm, ReLU, 1×1 convolution to 4 × ``growth`` channels, BatchNorm, ReLU, 3×3 convolution to
    ``growth`` channels. In: (batch, ``in_channels``, height, width); out: the same with
    ``in_channels + growth`` channels, the input's own first.

    Args:
        in_channels: Channels of the input.
        growth: Channels added.
    """

    def __init__(self, in_channels: int, growth: int) -> None:
        super().__init__()
        self.norm1 = nn.BatchNorm2d(in_channels)
        self.conv1 = conv1x1(in_channels, 4 * growth)
        self.norm2 = nn.BatchNorm2d(4 * growth)
        self.conv2 = conv3x3(4 * growth, growth)

    def forward(self, x: Tensor) -> Tensor:
        """Return the input followed by the new channels."""
        new = self.conv1(F.relu(self.norm1(x)))
        new = self.conv2(F.relu(self.norm2(new)))
        return torch.cat((x, new), dim=1)


class Transition(nn.Module):
    """BatchNorm, ReLU, 1×1 convolution and average pooling between two dense blocks.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output.
        window: Height and width of the pooling window; (1, 1) does not pool.
    """

    def __init__(self, in_channels: int, out_channels: int, window: tuple[int, int]) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(in_channels)
        self.conv = conv1x1(in_channels, out_channels)
        self.pool = nn.Identity() if window == (1, 1) else nn.AvgPool2d(window)

    def forward(self, x: Tensor) -> Tensor:
        """Return the image with fewer channels and, if it pools, fewer pixels."""
        out: Tensor = self.pool(self.conv(F.relu(self.norm(x))))
        return out


class DenseNet(nn.Module):
    """DenseNet-BC for small images: three dense blocks, bottlenecks, half the channels between.

    A 3×3 convolution to 2 × ``growth`` channels, three blocks of (``depth`` − 4) / 6 layers each,
    two transitions that halve the channels (rounding down) and the image, BatchNorm, ReLU, global
    average pooling, linear classifier. There is no dropout.

    Where sources differ this is the network of Huang et al.: a transition normalises before its
    ReLU, while the original FreezeOut script has the two the other way round.

    Args:
        depth: Weighted layers: 6n + 4 with n at least 1.
        growth: Channels that each layer adds, the paper's k; at least 1.
        num_classes: Number of logits, at least 1.
        in_channels: Channels of an image, at least 1.
        image_size: (height, width) in pixels, or one number for both. A transition does not pool
            along a dimension that has come down to one pixel.

    Attributes:
        stem: The first convolution.
        blocks: Layers ``block1_layer1``, …, ``transition1``, ``block2_layer1``, … in order.
        norm: The last BatchNorm.
        classifier: The linear layer.

    Raises:
        ValueError: If an argument is outside its range.
        TypeError: If a number is not an integer.

    Example:
        >>> import torch
        >>> model = DenseNet(10, 4, num_classes=10, in_channels=1, image_size=8)
        >>> model(torch.zeros(2, 1, 8, 8)).shape
        torch.Size([2, 10])

    Reference:
        Huang et al., "Densely Connected Convolutional Networks", 2017, section 3
        (arXiv:1608.06993).
    """

    def __init__(
        self,
        depth: int,
        growth: int,
        *,
        num_classes: int,
        in_channels: int = 3,
        image_size: tuple[int, int] | int = 32,
    ) -> None:
        super().__init__()
        layers = layers_per_block(depth, 4, "DenseNet-BC")
        check_whole("growth", growth, "It is the channels each layer adds, such as 12.", least=1)
        check_ends(num_classes, in_channels)
        size = check_image_size(image_size)

        channels = 2 * growth
        self.stem = conv3x3(in_channels, channels)
        blocks: OrderedDict[str, nn.Module] = OrderedDict()
        for block in (1, 2, 3):
            for layer in range(1, layers + 1):
                blocks[f"block{block}_layer{layer}"] = DenseLayer(channels, growth)
                channels += growth
            if block < 3:
                window = pool_window(size)
                blocks[f"transition{block}"] = Transition(channels, channels // 2, window)
                size = pooled(size, window)
                channels //= 2
        self.blocks = nn.Sequential(blocks)
        self.norm = nn.BatchNorm2d(channels)
        self.classifier = nn.Linear(channels, num_classes)
        initialise_(self)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits (batch, ``num_classes``) of images (batch, channels, height, width)."""
        x = self.blocks(self.stem(x))
        logits: Tensor = self.classifier(global_average(F.relu(self.norm(x))))
        return logits
