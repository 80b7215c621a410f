"""The smallest network of each family, and what the tests count in it."""

import pytest
import torch
from torch import nn

from freezeout.lab.models import build

# The smallest network of each family that still has every kind of module.
SMALL = {
    "densenet": "densenet-16-4",
    "resnet": "resnet-14-4",
    "vgg": "vgg11-4",
    "wrn": "wrn-16-1",
}
SIZES = [(8, 8, 1), (28, 28, 1), (32, 32, 3), (17, 23, 3), (1, 1, 2), (1, 9, 1), (2, 1, 4)]

families = pytest.mark.parametrize("name", SMALL.values(), ids=SMALL.keys())


def parameters(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def on_meta(name: str, **options: int) -> nn.Module:
    """Build without memory or random numbers, for counting."""
    with torch.device("meta"):
        return build(name, **{"num_classes": 10, **options})


def settle(model: nn.Module, images: torch.Tensor) -> nn.Module:
    """Give BatchNorm running statistics that belong to ``images``, and go to inference mode.

    With fresh statistics a deep network in inference mode can shrink its signal to nothing, and
    comparisons of outputs would hold trivially.
    """
    for module in model.modules():
        if isinstance(module, (nn.BatchNorm1d, nn.BatchNorm2d)):
            module.momentum = None
    with torch.no_grad():
        model.train()(images)
    return model.eval()
