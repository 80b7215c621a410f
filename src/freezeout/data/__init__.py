"""Real image data: loading it, and feeding it to a training loop.

Start with :func:`load` and :class:`TensorLoader`. This package knows nothing of training or of
freezing, and its tensors fit any loop.
"""

from freezeout.data.augmentation import Augmentation, default_augmentation
from freezeout.data.dataset import Dataset, hold_out, shrink
from freezeout.data.loader import TensorLoader
from freezeout.data.names import NAMES, canonical_name
from freezeout.data.registry import load
from freezeout.data.shapes import DataShape, data_shape
from freezeout.data.statistics import channel_statistics

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
