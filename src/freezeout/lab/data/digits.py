"""The handwritten digits that ship with scikit-learn."""

from __future__ import annotations

import torch

from freezeout.errors import DataError
from freezeout.lab.data.dataset import Dataset

__all__ = ["load_digits"]

_TEST_IMAGES = 360
_LARGEST = 16


def load_digits() -> Dataset:
    """Load the digits: 1,437 training and 360 test images, 8 x 8 grey, 10 classes.

    The last 360 of scikit-learn's 1,797 images are the test split, always the same. They were
    written by other people than the first, so the split is honest. Grey values 0 to 16 are scaled
    to 0 to 255 and rounded, half upwards.

    Raises:
        DataError: If scikit-learn is not installed.
    """
    try:
        from sklearn.datasets import load_digits as load
    except ImportError as error:
        raise DataError(
            "the digits data set ships with scikit-learn, which is not installed. Run: "
            "pip install 'freezeout[lab]', or choose another data set with a folder that holds it."
        ) from error
    bunch = load()
    values = torch.as_tensor(bunch.images).to(torch.int64)
    images = ((values * 255 + _LARGEST // 2) // _LARGEST).to(torch.uint8).unsqueeze(1)
    labels = torch.as_tensor(bunch.target).to(torch.int64)
    return Dataset(
        name="digits",
        train_images=images[:-_TEST_IMAGES],
        train_labels=labels[:-_TEST_IMAGES],
        test_images=images[-_TEST_IMAGES:],
        test_labels=labels[-_TEST_IMAGES:],
        classes=tuple(str(digit) for digit in bunch.target_names),
    )
