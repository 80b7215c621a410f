"""A plain, fast training loop for the paper's networks, with exact resume.

Read `run` first, a run from its settings to its end; then `preparation` (settings filled in, data
cut), `trainer` (one step at a time) with its `task` and its parts from `assembly`, and `stretch`
(steps, epochs and checkpoints until the end or a signal). `settings` has all that can be set.
"""

from typing import TYPE_CHECKING

from freezeout.lazy import lazy_names

if TYPE_CHECKING:
    from freezeout.lab.training.assembly import build_optimizer, pick_device
    from freezeout.lab.training.claims import drop_empty, next_free
    from freezeout.lab.training.clock import DepthCost, Window, measured_saving
    from freezeout.lab.training.folder import RunFolder, held, slug
    from freezeout.lab.training.forecasting import cost_differences, forecast, run_costs
    from freezeout.lab.training.observer import EpochRecord, Observer, Progress, RunStart
    from freezeout.lab.training.preparation import prepare, resolve, resolve_machine
    from freezeout.lab.training.presets import PRESETS, preset
    from freezeout.lab.training.processes import Processes
    from freezeout.lab.training.run import MOVABLE, RunResult, resume, start
    from freezeout.lab.training.settings import Settings, check_names, setting_fields
    from freezeout.lab.training.signals import (
        Interrupted,
        StopSignals,
        forget_signals,
        stop_code,
    )
    from freezeout.lab.training.stretch import on_machine
    from freezeout.lab.training.summary import RunSummary, save_summary, summarise
    from freezeout.lab.training.tensorboard import TensorBoardObserver
    from freezeout.lab.training.threads import Threads, chosen_threads, most_threads, pick_threads
    from freezeout.lab.training.toml import read_toml
    from freezeout.lab.training.trainer import Trainer

__all__ = [
    "MOVABLE",
    "PRESETS",
    "DepthCost",
    "EpochRecord",
    "Interrupted",
    "Observer",
    "Processes",
    "Progress",
    "RunFolder",
    "RunResult",
    "RunStart",
    "RunSummary",
    "Settings",
    "StopSignals",
    "TensorBoardObserver",
    "Threads",
    "Trainer",
    "Window",
    "build_optimizer",
    "check_names",
    "chosen_threads",
    "cost_differences",
    "drop_empty",
    "forecast",
    "forget_signals",
    "held",
    "measured_saving",
    "most_threads",
    "next_free",
    "on_machine",
    "pick_device",
    "pick_threads",
    "prepare",
    "preset",
    "read_toml",
    "resolve",
    "resolve_machine",
    "resume",
    "run_costs",
    "save_summary",
    "setting_fields",
    "slug",
    "start",
    "stop_code",
    "summarise",
]

if not TYPE_CHECKING:
    __getattr__, __dir__ = lazy_names(
        __name__,
        {
            "freezeout.lab.training.assembly": (
                "build_optimizer",
                "pick_device",
            ),
            "freezeout.lab.training.claims": (
                "drop_empty",
                "next_free",
            ),
            "freezeout.lab.training.clock": (
                "DepthCost",
                "Window",
                "measured_saving",
            ),
            "freezeout.lab.training.folder": (
                "RunFolder",
                "held",
                "slug",
            ),
            "freezeout.lab.training.forecasting": (
                "cost_differences",
                "forecast",
                "run_costs",
            ),
            "freezeout.lab.training.observer": (
                "EpochRecord",
                "Observer",
                "Progress",
                "RunStart",
            ),
            "freezeout.lab.training.preparation": (
                "prepare",
                "resolve",
                "resolve_machine",
            ),
            "freezeout.lab.training.presets": (
                "PRESETS",
                "preset",
            ),
            "freezeout.lab.training.processes": ("Processes",),
            "freezeout.lab.training.run": (
                "MOVABLE",
                "RunResult",
                "resume",
                "start",
            ),
            "freezeout.lab.training.settings": (
                "Settings",
                "check_names",
                "setting_fields",
            ),
            "freezeout.lab.training.signals": (
                "Interrupted",
                "StopSignals",
                "forget_signals",
                "stop_code",
            ),
            "freezeout.lab.training.stretch": ("on_machine",),
            "freezeout.lab.training.summary": (
                "RunSummary",
                "save_summary",
                "summarise",
            ),
            "freezeout.lab.training.tensorboard": ("TensorBoardObserver",),
            "freezeout.lab.training.threads": (
                "Threads",
                "chosen_threads",
                "most_threads",
                "pick_threads",
            ),
            "freezeout.lab.training.toml": ("read_toml",),
            "freezeout.lab.training.trainer": ("Trainer",),
        },
    )
