"""Fashion-MNIST from its four official files."""

from __future__ import annotations

from pathlib import Path

import torch

from freezeout.lab.data.dataset import Dataset
from freezeout.lab.data.fetch import fetch
from freezeout.lab.data.files import find, read_checked
from freezeout.lab.data.idx import read_idx
from freezeout.lab.data.official import FASHION_MNIST_CLASSES, FASHION_MNIST_FILES, MD5

__all__ = ["load_fashion_mnist"]

# The last is torchvision's own layout.
_FOLDERS = ("", "fashion_mnist", "fashion-mnist", "FashionMNIST/raw")


def load_fashion_mnist(root: Path, *, download: bool) -> Dataset:
    """Load Fashion-MNIST: 60,000 training and 10,000 test images, 28 x 28 grey, 10 classes.

    The four ``.gz`` files are looked for in ``root`` itself, ``fashion_mnist``, ``fashion-mnist``
    and ``FashionMNIST/raw``. A missing one is fetched to ``root/fashion_mnist``.

    Raises:
        DataError: If a file is missing and cannot be fetched, or is damaged.
    """
    train_images, train_labels, test_images, test_labels = (
        _read(root, name, download=download) for name in FASHION_MNIST_FILES
    )
    return Dataset(
        name="fashion-mnist",
        train_images=train_images.unsqueeze(1),
        train_labels=train_labels.long(),
        test_images=test_images.unsqueeze(1),
        test_labels=test_labels.long(),
        classes=FASHION_MNIST_CLASSES,
    )


def _read(root: Path, name: str, *, download: bool) -> torch.Tensor:
    places = [f"{folder}/{name}" if folder else name for folder in _FOLDERS]
    path = find(root, places)
    if path is None:
        path = fetch(name, root, "fashion_mnist", download=download)
    return read_idx(read_checked(path, MD5[name]), str(path))
