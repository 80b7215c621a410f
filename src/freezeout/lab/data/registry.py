"""The data sets by name: what each looks like, how it is varied, and how it is loaded.

A new data set is one file and one line in `_DATA_SETS`.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from freezeout.errors import DataError
from freezeout.lab.data.augmentation import Augmentation
from freezeout.lab.data.cifar import load_cifar
from freezeout.lab.data.custom import DATA, load_custom
from freezeout.lab.data.dataset import Dataset, DataShape
from freezeout.lab.data.digits import load_digits
from freezeout.lab.data.fashion_mnist import load_fashion_mnist
from freezeout.lab.data.fetch import default_data_dir
from freezeout.lab.data.official import CIFAR10, CIFAR100

__all__ = ["NAMES", "canonical_name", "data_shape", "default_augmentation", "load"]


@dataclass(frozen=True)
class _DataSet:
    """A data set that has a name.

    Attributes:
        shape: What `load` gives, before it is loaded.
        augmentation: The customary one; for CIFAR it is the paper's.
        load: Loads it, given the folder of its official files and whether they may be fetched.
    """

    shape: DataShape
    augmentation: Augmentation
    load: Callable[[str | os.PathLike[str] | None, bool], Dataset]


_DATA_SETS = {
    "digits": _DataSet(
        DataShape(1, (8, 8), 10, 1_437),
        Augmentation(padding=1),  # a mirrored digit is another sign
        lambda folder, download: load_digits(),
    ),
    "fashion-mnist": _DataSet(
        DataShape(1, (28, 28), 10, 60_000),
        Augmentation(padding=2, flip=True),
        lambda folder, download: load_fashion_mnist(_root(folder), download=download),
    ),
    "cifar10": _DataSet(
        DataShape(3, (32, 32), 10, 50_000),
        Augmentation(padding=4, flip=True),
        lambda folder, download: load_cifar(CIFAR10, _root(folder), download=download),
    ),
    "cifar100": _DataSet(
        DataShape(3, (32, 32), 100, 50_000),
        Augmentation(padding=4, flip=True),
        lambda folder, download: load_cifar(CIFAR100, _root(folder), download=download),
    ),
}

NAMES: tuple[str, ...] = tuple(_DATA_SETS)


def canonical_name(name: str) -> str:
    """Return the name in :data:`NAMES` that ``name`` spells.

    Case, hyphens, underscores and spaces do not matter. ``"module:function"``, which names custom
    data, stays as it is; nothing is imported.

    Raises:
        TypeError: If ``name`` is not a string.
        ValueError: If there is no such data set, or it has a colon and another form.

    Example:
        >>> canonical_name("CIFAR-10"), canonical_name("fashion_mnist")
        ('cifar10', 'fashion-mnist')
    """
    if not isinstance(name, str):
        raise TypeError(
            f"the data set must be a string, got {name!r}. Choose one of {', '.join(NAMES)}."
        )
    if DATA.check(name):
        return name
    known = {_bare(each): each for each in NAMES}
    if _bare(name) not in known:
        raise ValueError(
            f"the data set must be one of {', '.join(NAMES)}, got {name!r}. Case, hyphens and "
            "underscores do not matter; custom data are named as in mypackage.data:load."
        )
    return known[_bare(name)]


def data_shape(name: str) -> DataShape:
    """Describe the data set called ``name``; only custom data are read for this.

    Args:
        name: A name that :func:`load` knows.

    Returns:
        The shape of what :func:`load` gives for this name.

    Raises:
        TypeError: If ``name`` is not a string.
        ValueError: If there is no such data set.
        RunError: If custom data cannot be loaded.

    Example:
        >>> data_shape("CIFAR-10")
        DataShape(channels=3, image_size=(32, 32), num_classes=10, train_images=50000)
    """
    name = canonical_name(name)
    return _DATA_SETS[name].shape if name in _DATA_SETS else load_custom(name).shape


def default_augmentation(name: str) -> Augmentation:
    """Return the customary augmentation of a data set; custom data have none.

    Args:
        name: A name that :func:`load` knows.

    Raises:
        TypeError: If ``name`` is not a string.
        ValueError: If there is no such data set.

    Example:
        >>> default_augmentation("cifar10")
        Augmentation(padding=4, flip=True)

    Reference:
        Brock et al., "FreezeOut", 2017, section 3 (arXiv:1706.04983).
    """
    name = canonical_name(name)
    return _DATA_SETS[name].augmentation if name in _DATA_SETS else Augmentation()


def load(
    name: str, *, data_dir: str | os.PathLike[str] | None = None, download: bool = True
) -> Dataset:
    """Load a real data set as tensors.

    ``digits`` ships with scikit-learn and needs no file. For the others the official files are
    looked for under ``data_dir`` and, where they are missing, fetched from their official
    address. Every file is verified against its published checksum before it is parsed, and no
    code in it can run. A damaged file is an error, and so is a CIFAR folder that lacks files with
    no complete form beside it; neither is fetched over. For CIFAR a compact
    copy (:mod:`freezeout.lab.data.compact`) does as well.

    ``"module:function"`` names a custom function, which is called without arguments and
    returns a :class:`Dataset`, or ``(train_images, train_labels, test_images, test_labels)`` as
    tensors or NumPy arrays: images uint8 of shape (N, C, H, W), labels whole numbers from 0. It
    should return the same at every call; torch's generator on the CPU is seeded for it, and put
    back.

    Args:
        name: One of :data:`freezeout.lab.data.NAMES`; spelling variants as ``"CIFAR-10"`` are
            fine. Or ``"module:function"``; the other arguments have no effect then.
        data_dir: Folder that holds the files, or receives them; created when something is
            fetched. ``None`` means the user's cache folder for ``freezeout``.
        download: Whether missing files may be fetched.

    Returns:
        The data set, on the CPU.

    Raises:
        DataError: If files are missing and cannot be fetched, or are damaged, or an optional
            dependency is not installed.
        RunError: If a custom function cannot be found or called, or returns something else.
        TypeError: If an argument is of another type.
        ValueError: If there is no such data set.

    Example:
        >>> load("digits")
        Dataset('digits': 1437 training and 360 test images of 1x8x8, 10 classes)
    """
    name = canonical_name(name)
    if name not in _DATA_SETS:
        return load_custom(name)
    return _DATA_SETS[name].load(data_dir, download)


def _bare(name: str) -> str:
    return name.lower().replace("-", "").replace("_", "").replace(" ", "")


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
