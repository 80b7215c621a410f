"""Train for less by progressively freezing layers: FreezeOut for any PyTorch model.

::

    scheduler = freezeout.FreezeOut(optimizer, model, total_steps=epochs * len(loader))

Start reading in `freezeout.schedule` (when a layer freezes, at which rate it learns until then),
then `freezeout.scheduler`.
"""

from freezeout.errors import (
    CheckpointError,
    DataError,
    DivergenceError,
    FreezeOutError,
    FrozenPrefixWarning,
    PrefixError,
    RunError,
    SplitError,
)
from freezeout.freezing import FreezeEvent, Freezer, unfreeze
from freezeout.layers import Layer, Layers, split_layers
from freezeout.schedule import Schedule, freeze_times
from freezeout.scheduler import FreezeOut

__version__ = "0.1.0"

__all__ = [
    "CheckpointError",
    "DataError",
    "DivergenceError",
    "FreezeEvent",
    "FreezeOut",
    "FreezeOutError",
    "Freezer",
    "FrozenPrefixWarning",
    "Layer",
    "Layers",
    "PrefixError",
    "RunError",
    "Schedule",
    "SplitError",
    "freeze_times",
    "split_layers",
    "unfreeze",
]
