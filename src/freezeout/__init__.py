"""Train for less by progressively freezing layers: FreezeOut for any PyTorch model.

::

    scheduler = freezeout.FreezeOut(optimizer, model, total_steps=epochs * len(loader))

Start reading in `freezeout.schedule` (when a layer freezes, at which rate it learns until then),
then `freezeout.scheduler`; `freezeout.costs` and `freezeout.planning` say beforehand what it saves.
Every room and every name is imported once it is asked for, so `import freezeout` is light.
"""

import typing

from freezeout import lazy

if typing.TYPE_CHECKING:
    from freezeout import costs as costs
    from freezeout import errors as errors
    from freezeout import freezing as freezing
    from freezeout import integrations as integrations
    from freezeout import lab as lab
    from freezeout import layers as layers
    from freezeout import planning as planning
    from freezeout import prefix as prefix
    from freezeout import reference as reference
    from freezeout import schedule as schedule
    from freezeout import scheduler as scheduler
    from freezeout import storage as storage
    from freezeout import tensors as tensors
    from freezeout import text as text
    from freezeout import wrappers as wrappers
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

if not typing.TYPE_CHECKING:
    __getattr__, __dir__ = lazy.lazy_names(
        __name__,
        {
            "freezeout.costs": (
                "Costs",
                "LayerCost",
                "measure_costs",
            ),
            "freezeout.errors": (
                "CheckpointError",
                "CostError",
                "DataError",
                "DistributedError",
                "DivergenceError",
                "FreezeOutError",
                "FrozenPrefixWarning",
                "MovementError",
                "MovementWarning",
                "PrefixError",
                "RunError",
                "SplitError",
            ),
            "freezeout.freezing": (
                "FreezeEvent",
                "Freezer",
                "is_active",
                "unfreeze",
            ),
            "freezeout.layers": (
                "Layer",
                "Layers",
                "split_layers",
            ),
            "freezeout.planning": (
                "Plan",
                "plan",
                "predicted_saving",
            ),
            "freezeout.schedule": (
                "Schedule",
                "freeze_times",
            ),
            "freezeout.scheduler": ("FreezeOut",),
        },
        rooms=(
            "costs",
            "errors",
            "freezing",
            "integrations",
            "lab",
            "layers",
            "planning",
            "prefix",
            "reference",
            "schedule",
            "scheduler",
            "storage",
            "tensors",
            "text",
            "wrappers",
        ),
    )
