"""What the families share: initialisation, argument checks and the rule for small images."""

from __future__ import annotations

import math

from torch import Tensor, nn

from freezeout.errors import check_fraction, check_whole

Size = tuple[int, int]


def initialise_(model: nn.Module) -> None:
    """Set every weight of ``model`` in place, as the package docstring says.

    The values are drawn from torch's global generator, in the order of ``model.modules()``.
    """
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        elif isinstance(module, (nn.BatchNorm1d, nn.BatchNorm2d)):
            nn.init.ones_(module.weight)
            nn.init.zeros_(module.bias)
        elif isinstance(module, nn.Linear):
            bound = 1 / math.sqrt(module.in_features)
            nn.init.uniform_(module.weight, -bound, bound)
            if module.bias is not None:
                nn.init.zeros_(module.bias)


def conv3x3(in_channels: int, out_channels: int, stride: int = 1) -> nn.Conv2d:
    """Make a 3×3 convolution that keeps the image size, or halves it rounding up (stride 2)."""
    return nn.Conv2d(in_channels, out_channels, 3, stride=stride, padding=1, bias=False)


def conv1x1(in_channels: int, out_channels: int, stride: int = 1) -> nn.Conv2d:
    """Make a 1×1 convolution, with stride 2 on every second pixel."""
    return nn.Conv2d(in_channels, out_channels, 1, stride=stride, bias=False)


def global_average(x: Tensor) -> Tensor:
    """Average over all pixels: (batch, channels, height, width) to (batch, channels)."""
    return x.mean(dim=(2, 3))


def pool_window(size: Size) -> Size:
    """Return the window of a halving pool: 2 per dimension, but 1 along a single pixel."""
    height, width = size
    return (min(height, 2), min(width, 2))


def pooled(size: Size, window: Size) -> Size:
    """Return the size of an image after a pool with ``window`` as its kernel and stride."""
    return (size[0] // window[0], size[1] // window[1])


def check_ends(num_classes: int, in_channels: int) -> None:
    """Check the two arguments that every family takes."""
    check_whole("num_classes", num_classes, "Give the number of classes in the data.", least=1)
    check_whole(
        "in_channels",
        in_channels,
        "Give the channels of one image: 1 for grey, 3 for colour.",
        least=1,
    )


def check_image_size(image_size: Size | int) -> Size:
    """Return ``image_size`` as (height, width), both at least 1."""
    advice = "Give the height and width of one image in pixels, or one number for both."
    if isinstance(image_size, (tuple, list)):
        if len(image_size) != 2:
            raise ValueError(f"image_size must be one number or two, got {image_size!r}. {advice}")
        height, width = image_size
    else:
        height = width = image_size
    check_whole("image_size", height, advice, least=1)
    check_whole("image_size", width, advice, least=1)
    return (height, width)


def check_dropout(dropout: float) -> float:
    """Return ``dropout`` if it lies in [0, 1)."""
    hint = "It is the chance that a value is set to zero in training; 0 turns it off."
    check_fraction("dropout", dropout, hint, within="[0, 1)")
    return dropout


def layers_per_block(depth: int, extra: int, network: str) -> int:
    """Solve ``depth = 6 n + extra`` for n ≥ 1, the layers in each of three blocks.

    Args:
        depth: Depth in the network's name.
        extra: Weighted layers outside the blocks.
        network: What the error calls the network.

    Raises:
        ValueError: If no n fits; the message gives the nearest depths that do.
    """
    advice = f"A {network} has three blocks of n units with two layers each."
    check_whole("depth", depth, advice, least=1)
    shallowest = 6 + extra
    below = depth - (depth - extra) % 6
    if below < shallowest:
        nearest = f"The nearest depth is {shallowest}."
    else:
        nearest = f"The nearest depths are {below} and {below + 6}."
    if depth < shallowest or depth != below:
        raise ValueError(
            f"depth must be 6n + {extra} with n at least 1 for a {network}, got {depth}. {nearest}"
        )
    return (depth - extra) // 6
