"""Train for less by progressively freezing layers: FreezeOut for any PyTorch model.

::

    scheduler = freezeout.FreezeOut(optimizer, model, total_steps=epochs * len(loader))

Start reading in `freezeout.schedule` (when a layer freezes, at which rate it learns until then),
then `freezeout.scheduler`; `freezeout.cost` and `freezeout.planner` say beforehand what it saves.
"""

from freezeout.cost import Costs, LayerCost, measure_costs
from freezeout.errors import (
    CheckpointError,
    CostError,
    DataError,
    DistributedError,
    DivergenceError,
    FreezeOutError,
    FrozenPrefixWarning,
    PrefixError,
    RunError,
    SplitError,
)
from freezeout.freezing import FreezeEvent, Freezer, unfreeze
from freezeout.layers import Layer, Layers, split_layers
from freezeout.optimizers import is_active
from freezeout.planner import plan
from freezeout.saving import Plan, predicted_saving
from freezeout.schedule import Schedule, freeze_times
from freezeout.scheduler import FreezeOut

__version__ = "0.1.0"

__all__ = [
    "CheckpointError",
    "CostError",
    "Costs",
    "DataError",
    "DistributedError",
    "DivergenceError",
    "FreezeEvent",
    "FreezeOut",
    "FreezeOutError",
    "Freezer",
    "FrozenPrefixWarning",
    "Layer",
    "LayerCost",
    "Layers",
    "Plan",
    "PrefixError",
    "RunError",
    "Schedule",
    "SplitError",
    "freeze_times",
    "is_active",
    "measure_costs",
    "plan",
    "predicted_saving",
    "split_layers",
    "unfreeze",
]
