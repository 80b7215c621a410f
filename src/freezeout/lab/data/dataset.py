"""What a data set is: two splits of images and labels, and the names of the classes."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F

from freezeout.errors import check_whole

__all__ = ["DataShape", "Dataset", "check_images", "hold_out", "shrink"]


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


@dataclass(frozen=True, eq=False, repr=False)
class Dataset:
    """A whole data set in memory, checked when made.

    Attributes:
        name: Name of the data set.
        train_images: uint8 tensor of shape (N, C, H, W).
        train_labels: int64 tensor of shape (N,), values 0 to ``num_classes - 1``.
        test_images: As ``train_images``, of the same C, H and W.
        test_labels: As ``train_labels``.
        classes: Class names, by label.

    Raises:
        TypeError: If an attribute is of another type.
        ValueError: If shapes do not agree, a split is empty, or a label has no class.

    Example:
        >>> images, labels = torch.zeros(4, 1, 8, 8, dtype=torch.uint8), torch.tensor([0, 1, 0, 1])
        >>> Dataset("tiny", images, labels, images[:2], labels[:2], ("off", "on"))
        Dataset('tiny': 4 training and 2 test images of 1x8x8, 2 classes)
    """

    name: str
    train_images: torch.Tensor
    train_labels: torch.Tensor
    test_images: torch.Tensor
    test_labels: torch.Tensor
    classes: tuple[str, ...]

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not self.name:
            raise TypeError(f"name must be a non-empty string, got {self.name!r}. Name the data.")
        named = isinstance(self.classes, tuple) and all(isinstance(c, str) for c in self.classes)
        if not named or not self.classes:
            raise TypeError(
                f"classes must be a non-empty tuple of names, got {self.classes!r}. Name every "
                "class, in the order of the labels."
            )
        for split in ("train", "test"):
            _check_split(
                split,
                getattr(self, f"{split}_images"),
                getattr(self, f"{split}_labels"),
                self.num_classes,
            )
        if self.train_images.shape[1:] != self.test_images.shape[1:]:
            raise ValueError(
                "training and test images must have one shape (C, H, W), got "
                f"{tuple(self.train_images.shape[1:])} and {tuple(self.test_images.shape[1:])}. "
                "Bring both to one size."
            )

    @property
    def num_classes(self) -> int:
        """Number of classes."""
        return len(self.classes)

    @property
    def channels(self) -> int:
        """Channels of an image: 1 for grey, 3 for RGB."""
        return self.train_images.shape[1]

    @property
    def image_size(self) -> tuple[int, int]:
        """Height and width of an image, in pixels."""
        return self.train_images.shape[2], self.train_images.shape[3]

    @property
    def shape(self) -> DataShape:
        """Size of the images, and how many there are."""
        return DataShape(self.channels, self.image_size, self.num_classes, len(self.train_images))

    def __repr__(self) -> str:
        height, width = self.image_size
        return (
            f"Dataset({self.name!r}: {len(self.train_images)} training and "
            f"{len(self.test_images)} test images of {self.channels}x{height}x{width}, "
            f"{self.num_classes} classes)"
        )


def hold_out(dataset: Dataset, count: int) -> Dataset:
    """Hold out the last training images for validation; the test split is put aside.

    Args:
        dataset: The data set. It is not changed.
        count: How many of the last training images become the test split of the result, at least
            1 and fewer than there are. The paper holds out 5,000 of CIFAR's 50,000.

    Returns:
        A data set that shares the memory of ``dataset``. Nothing of its test split is in it.

    Raises:
        TypeError: If ``count`` is not an integer.
        ValueError: If ``count`` is outside its range.

    Example:
        >>> images, labels = torch.zeros(4, 1, 8, 8, dtype=torch.uint8), torch.tensor([0, 1, 0, 1])
        >>> tiny = Dataset("tiny", images, labels, images[:2], labels[:2], ("off", "on"))
        >>> hold_out(tiny, 1)
        Dataset('tiny': 3 training and 1 test images of 1x8x8, 2 classes)

    Reference:
        Brock et al., "FreezeOut", 2017, section 3 (arXiv:1706.04983).
    """
    total = len(dataset.train_images)
    hint = f"Of the {total} training images of {dataset.name} at least one must stay for training."
    check_whole("holdout", count, hint, least=1, most=total - 1)
    return replace(
        dataset,
        train_images=dataset.train_images[:-count],
        train_labels=dataset.train_labels[:-count],
        test_images=dataset.train_images[-count:],
        test_labels=dataset.train_labels[-count:],
    )


def shrink(dataset: Dataset, factor: int) -> Dataset:
    """Make every image smaller by averaging squares of pixels.

    Args:
        dataset: The data set. It is not changed.
        factor: Side of the squares in pixels, at least 1; what is left over at the right and the
            bottom is cut off.

    Returns:
        A data set with images of (H // factor, W // factor).

    Raises:
        TypeError: If ``factor`` is not an integer.
        ValueError: If ``factor`` is outside its range.

    Example:
        >>> images, labels = torch.zeros(4, 1, 8, 8, dtype=torch.uint8), torch.tensor([0, 1, 0, 1])
        >>> shrink(Dataset("tiny", images, labels, images[:2], labels[:2], ("off", "on")), 2)
        Dataset('tiny': 4 training and 2 test images of 1x4x4, 2 classes)
    """
    height, width = dataset.image_size
    hint = f"It is the side of the squares in pixels; images have {height}x{width}."
    check_whole("shrink", factor, hint, least=1, most=min(height, width))
    if factor == 1:
        return dataset
    return replace(
        dataset,
        train_images=_averaged(dataset.train_images, factor),
        test_images=_averaged(dataset.test_images, factor),
    )


def _averaged(images: torch.Tensor, factor: int) -> torch.Tensor:
    parts = [
        F.avg_pool2d(part.to(torch.float32), factor).round().to(torch.uint8)
        for part in images.split(4096)  # as floats, all at once would be large
    ]
    return torch.cat(parts)


def _check_split(split: str, images: torch.Tensor, labels: torch.Tensor, classes: int) -> None:
    check_images(images, f"{split}_images")
    check_labels(labels, len(images), f"{split}_labels")
    low, high = int(labels.min()), int(labels.max())
    if low < 0 or high >= classes:
        raise ValueError(
            f"{split}_labels must lie in [0, {classes - 1}], got values from {low} to {high}. "
            "Number the classes from 0, and name all of them in classes."
        )


def check_images(images: torch.Tensor, name: str) -> None:
    """Raise unless ``images`` is a uint8 tensor of shape (N, C, H, W), none of them 0."""
    _check_stored(images, name)
    if not isinstance(images, torch.Tensor) or images.dtype != torch.uint8:
        raise TypeError(
            f"{name} must be a uint8 tensor, got {_kind(images)}. Give pixels as 0 to 255."
        )
    if images.ndim != 4 or 0 in images.shape:
        raise ValueError(
            f"{name} must have a shape (N, C, H, W) without zeros, got {tuple(images.shape)}. "
            "Give at least one image, with its channels as second dimension."
        )


def check_labels(labels: torch.Tensor, count: int, name: str) -> None:
    """Raise unless ``labels`` is an int64 tensor of shape (count,)."""
    _check_stored(labels, name)
    if not isinstance(labels, torch.Tensor) or labels.dtype != torch.int64:
        raise TypeError(
            f"{name} must be an int64 tensor, got {_kind(labels)}. Convert it with .long()."
        )
    if labels.shape != (count,):
        raise ValueError(
            f"{name} must have the shape ({count},), got {tuple(labels.shape)}. Give one label for "
            "every image."
        )


def _check_stored(value: object, name: str) -> None:
    """Raise if a tensor has no values, or keeps some of them only."""
    if isinstance(value, torch.Tensor) and (value.is_meta or value.layout != torch.strided):
        kind = "a tensor without values" if value.is_meta else f"one of layout {value.layout}"
        raise TypeError(f"{name} must be an ordinary tensor, got {kind}. Give all values.")


def _kind(value: object) -> str:
    return str(value.dtype) if isinstance(value, torch.Tensor) else type(value).__name__
