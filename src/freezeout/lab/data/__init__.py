"""Real image data: load it, and feed it to a training loop.

Start with :func:`load` and :class:`TensorLoader`. This package knows nothing of training or of
freezing, and its tensors fit any loop.
"""

from freezeout.lab.data.augmentation import Augmentation
from freezeout.lab.data.dataset import Dataset, DataShape, hold_out, shrink
from freezeout.lab.data.loader import TensorLoader
from freezeout.lab.data.registry import (
    NAMES,
    canonical_name,
    data_shape,
    default_augmentation,
    load,
)
from freezeout.lab.data.statistics import channel_statistics

__all__ = [
    "NAMES",
    "Augmentation",
    "DataShape",
    "Dataset",
    "TensorLoader",
    "canonical_name",
    "channel_statistics",
    "data_shape",
    "default_augmentation",
    "hold_out",
    "load",
    "shrink",
]
