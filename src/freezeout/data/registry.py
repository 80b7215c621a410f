"""Loading a data set by its name."""

from __future__ import annotations

import os
from pathlib import Path

from freezeout.data.cifar import load_cifar
from freezeout.data.dataset import Dataset
from freezeout.data.digits import load_digits
from freezeout.data.fashion_mnist import load_fashion_mnist
from freezeout.data.fetch import default_data_dir
from freezeout.data.names import canonical_name
from freezeout.data.official import CIFAR10, CIFAR100
from freezeout.data.own import check_own, load_own
from freezeout.errors import DataError

__all__ = ["load"]


def load(
    name: str, *, data_dir: str | os.PathLike[str] | None = None, download: bool = True
) -> Dataset:
    """Load a real data set as tensors.

    ``digits`` ships with scikit-learn and needs no file. For the others the official files are
    looked for under ``data_dir`` and, where they are missing, fetched from their official
    address. Every file is verified against its published checksum before it is parsed, and no
    code in it can run. A damaged file is an error, and so is a CIFAR folder that lacks files with
    no complete form beside it; neither is fetched over. For CIFAR a compact
    copy (:mod:`freezeout.data.compact`) does as well.

    ``"module:function"`` names a function of your own, which is called without arguments and
    returns a :class:`Dataset`, or ``(train_images, train_labels, test_images, test_labels)`` as
    tensors or NumPy arrays: images uint8 of shape (N, C, H, W), labels whole numbers from 0. It
    should return the same at every call; torch's generator on the CPU is seeded for it, and put
    back.

    Args:
        name: One of :data:`freezeout.data.NAMES`; spelling variants as ``"CIFAR-10"`` are fine. Or
            ``"module:function"``; the other arguments have no effect then.
        data_dir: Folder that holds the files, or receives them; created when something is
            fetched. ``None`` means the user's cache folder for ``freezeout``.
        download: Whether missing files may be fetched.

    Returns:
        The data set, on the CPU.

    Raises:
        DataError: If files are missing and cannot be fetched, or are damaged, or an optional
            dependency is not installed.
        RunError: If a function of your own cannot be found or called, or returns something else.
        TypeError: If an argument is of another type.
        ValueError: If there is no such data set.

    Example:
        >>> load("digits")
        Dataset('digits': 1437 training and 360 test images of 1x8x8, 10 classes)
    """
    name = canonical_name(name)
    if check_own(name):
        return load_own(name)
    if name == "digits":
        return load_digits()
    root = _root(data_dir)
    if name == "fashion-mnist":
        return load_fashion_mnist(root, download=download)
    return load_cifar(CIFAR10 if name == "cifar10" else CIFAR100, root, download=download)


def _root(data_dir: str | os.PathLike[str] | None) -> Path:
    if data_dir is None:
        return default_data_dir()
    if not isinstance(data_dir, (str, os.PathLike)):
        raise TypeError(f"data_dir must be a path or None, got {data_dir!r}. Give a folder.")
    try:
        root = Path(data_dir).expanduser()
        root.stat()
    except (FileNotFoundError, NotADirectoryError):
        return root  # its place may still be made
    # A null byte is a ValueError, an unknown user's home a RuntimeError.
    except (OSError, RuntimeError, ValueError) as error:
        raise DataError(
            f"--data-dir (data_dir=) must name a folder, got {_short(str(data_dir))}: "
            f"{getattr(error, 'strerror', None) or error}. Give a folder that can be reached."
        ) from error
    if not root.is_dir():
        raise DataError(
            f"{root} is a file, and --data-dir (data_dir=) must be a folder. Give the folder that "
            "holds the data sets."
        )
    return root


def _short(text: str) -> str:
    return repr(text if len(text) <= 200 else text[:200] + "...")
