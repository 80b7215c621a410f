"""Train for less by progressively freezing layers: FreezeOut for any PyTorch model.

::

    scheduler = freezeout.FreezeOut(optimizer, model, total_steps=epochs * len(loader))

Start reading in `freezeout.schedule` (when a layer freezes, at which rate it learns until then),
then `freezeout.scheduler`; `freezeout.costs` and `freezeout.planning` say beforehand what it saves.
`freezeout.reference`, `freezeout.prefix`, `freezeout.integrations` and `freezeout.lab` are imported
once they are asked for.
"""

import importlib
import types
import typing

from freezeout.costs import Costs, LayerCost, measure_costs
from freezeout.errors import (
    CheckpointError,
    CostError,
    DataError,
    DistributedError,
    DivergenceError,
    FreezeOutError,
    FrozenPrefixWarning,
    MovementError,
    MovementWarning,
    PrefixError,
    RunError,
    SplitError,
)
from freezeout.freezing import FreezeEvent, Freezer, is_active, unfreeze
from freezeout.layers import Layer, Layers, split_layers
from freezeout.planning import Plan, plan, predicted_saving
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
    "MovementError",
    "MovementWarning",
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

if typing.TYPE_CHECKING:
    from freezeout import integrations as integrations
    from freezeout import lab as lab
    from freezeout import prefix as prefix
    from freezeout import reference as reference

_LATER = ("integrations", "lab", "prefix", "reference")


def __getattr__(name: str) -> types.ModuleType:
    if name in _LATER:
        return importlib.import_module(f"freezeout.{name}")
    raise AttributeError(f"module 'freezeout' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *_LATER})
