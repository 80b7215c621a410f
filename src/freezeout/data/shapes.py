"""What a data set looks like, without its files."""

from __future__ import annotations

from dataclasses import dataclass

from freezeout.data.names import canonical_name
from freezeout.data.official import CIFAR10, CIFAR100, FASHION_MNIST_CLASSES
from freezeout.data.own import check_own, load_own

__all__ = ["DataShape", "data_shape"]


@dataclass(frozen=True)
class DataShape:
    """Size of a data set's images, and how many there are; no pixels.

    Attributes:
        channels: Channels of an image: 1 for grey, 3 for RGB.
        image_size: Height and width of an image, in pixels.
        num_classes: Number of classes.
        train_images: Number of training images, before any are held out.
    """

    channels: int
    image_size: tuple[int, int]
    num_classes: int
    train_images: int


_SHAPES = {
    "digits": DataShape(1, (8, 8), 10, 1_437),
    "fashion-mnist": DataShape(1, (28, 28), len(FASHION_MNIST_CLASSES), 60_000),
    "cifar10": DataShape(3, (32, 32), len(CIFAR10.classes), 50_000),
    "cifar100": DataShape(3, (32, 32), len(CIFAR100.classes), 50_000),
}


def data_shape(name: str) -> DataShape:
    """Describe the data set called ``name``; nothing is read or fetched.

    Only data of your own must be loaded for this.

    Args:
        name: One of :data:`freezeout.data.NAMES`; spelling variants as ``"CIFAR-10"`` are fine. Or
            ``"module:function"``; see :func:`freezeout.data.load`.

    Returns:
        The shape of what :func:`freezeout.data.load` gives for this name.

    Raises:
        TypeError: If ``name`` is not a string.
        ValueError: If there is no such data set.
        RunError: If data of your own cannot be loaded.

    Example:
        >>> data_shape("CIFAR-10")
        DataShape(channels=3, image_size=(32, 32), num_classes=10, train_images=50000)
    """
    name = canonical_name(name)
    if check_own(name):
        own = load_own(name)
        return DataShape(own.channels, own.image_size, own.num_classes, len(own.train_images))
    return _SHAPES[name]
