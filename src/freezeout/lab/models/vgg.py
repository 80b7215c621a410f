"""VGG with BatchNorm, with a head for small images."""

from __future__ import annotations

from collections import OrderedDict

import torch
from torch import Tensor, nn

from freezeout.errors import check_whole
from freezeout.lab.models.building_blocks import (
    check_dropout,
    check_ends,
    check_image_size,
    conv3x3,
    global_average,
    initialise_,
    pool_window,
    pooled,
)

__all__ = ["VGG", "Head"]

# Convolutions in each of the five blocks; the pools between them have no parameters.
_CONVOLUTIONS = {
    11: (1, 1, 2, 2, 2),
    13: (2, 2, 2, 2, 2),
    16: (2, 2, 3, 3, 3),
    19: (2, 2, 4, 4, 4),
}
_WIDENING = (1, 2, 4, 8, 8)


class Head(nn.Module):
    """Two hidden layers, each with BatchNorm, ReLU and dropout, and the linear classifier.

    One module, because the original FreezeOut script treats all of it as the last layer.

    Args:
        width: Features in, and values in each hidden layer.
        num_classes: Number of logits.
        dropout: Chance in [0, 1) of zeroing a hidden value.

    Attributes:
        linear1, norm1, linear2, norm2: The hidden layers.
        linear3: The classifier.
        dropout: After each hidden layer's ReLU.
    """

    def __init__(self, width: int, num_classes: int, dropout: float) -> None:
        super().__init__()
        self.linear1 = nn.Linear(width, width, bias=False)
        self.norm1 = nn.BatchNorm1d(width)
        self.linear2 = nn.Linear(width, width, bias=False)
        self.norm2 = nn.BatchNorm1d(width)
        self.linear3 = nn.Linear(width, num_classes)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits (batch, ``num_classes``) of features (batch, ``width``)."""
        x = self.dropout(torch.relu(self.norm1(self.linear1(x))))
        x = self.dropout(torch.relu(self.norm2(self.linear2(x))))
        logits: Tensor = self.linear3(x)
        return logits


class VGG(nn.Module):
    """VGG-``depth`` with BatchNorm after every convolution and a head of two hidden layers.

    Five blocks of 3×3 convolutions, each with BatchNorm and ReLU, with 1, 2, 4, 8 and 8 times
    ``base_width`` channels and a 2×2 max pool after each block; global average pooling; two hidden
    layers as wide as the last block (512-512 at the default width), each with BatchNorm, ReLU and
    dropout; linear classifier.

    The head follows the original FreezeOut script, but for a second BatchNorm it has right after
    the last hidden ReLU. What BatchNorm follows has no bias, for its mean would be taken off again.

    Args:
        depth: Weighted layers of the published network: 11, 13, 16 or 19.
        base_width: Channels of the first block, at least 1; the authors use 64.
        num_classes: Number of logits, at least 1.
        in_channels: Channels of an image, at least 1.
        image_size: (height, width) in pixels, or one number for both. A pool leaves alone a
            dimension that has come down to one pixel, and is left out if both have.
        dropout: Chance in [0, 1) of zeroing a hidden value of the head.

    Attributes:
        features: ``conv1_1``, ``norm1_1``, ``relu1_1``, …, ``pool1``, ``conv2_1``, … in order.
        classifier: The head, one module with ``linear1``, ``norm1``, ``linear2``, … inside.

    Raises:
        ValueError: If an argument is outside its range.
        TypeError: If a number is not an integer.

    Example:
        >>> import torch
        >>> model = VGG(11, 4, num_classes=10, in_channels=1, image_size=8)
        >>> model(torch.zeros(2, 1, 8, 8)).shape
        torch.Size([2, 10])

    Reference:
        Simonyan and Zisserman, "Very Deep Convolutional Networks", 2015, table 1
        (arXiv:1409.1556).
    """

    def __init__(
        self,
        depth: int,
        base_width: int = 64,
        *,
        num_classes: int,
        in_channels: int = 3,
        image_size: tuple[int, int] | int = 32,
        dropout: float = 0.5,
    ) -> None:
        super().__init__()
        convolutions = _convolutions(depth)
        check_whole(
            "base_width",
            base_width,
            "It is the channels of the first block, 64 by default.",
            least=1,
        )
        check_ends(num_classes, in_channels)
        size = check_image_size(image_size)
        check_dropout(dropout)

        channels = in_channels
        features: OrderedDict[str, nn.Module] = OrderedDict()
        for block, (count, widening) in enumerate(zip(convolutions, _WIDENING, strict=True), 1):
            width = base_width * widening
            for layer in range(1, count + 1):
                features[f"conv{block}_{layer}"] = conv3x3(channels, width)
                features[f"norm{block}_{layer}"] = nn.BatchNorm2d(width)
                features[f"relu{block}_{layer}"] = nn.ReLU()
                channels = width
            window = pool_window(size)
            if window != (1, 1):
                features[f"pool{block}"] = nn.MaxPool2d(window)
            size = pooled(size, window)
        self.features = nn.Sequential(features)

        self.classifier = Head(channels, num_classes, dropout)
        initialise_(self)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits (batch, ``num_classes``) of images (batch, channels, height, width)."""
        logits: Tensor = self.classifier(global_average(self.features(x)))
        return logits


def _convolutions(depth: int) -> tuple[int, ...]:
    """Look up the convolutions per block, or say which depths there are."""
    check_whole("depth", depth, "A VGG has 11, 13, 16 or 19 weighted layers.", least=1)
    if depth not in _CONVOLUTIONS:
        below = [known for known in _CONVOLUTIONS if known < depth][-1:]
        above = [known for known in _CONVOLUTIONS if known > depth][:1]
        nearest = " and ".join(str(known) for known in below + above)
        verb = "depths are" if below and above else "depth is"
        raise ValueError(
            f"depth must be 11, 13, 16 or 19 for a VGG, got {depth}. The nearest {verb} {nearest}."
        )
    return _CONVOLUTIONS[depth]
