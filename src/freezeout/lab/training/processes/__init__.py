"""Train in several processes: who takes part, what they exchange, how they begin and end."""

from typing import TYPE_CHECKING

from freezeout.lazy import lazy_names

if TYPE_CHECKING:
    from freezeout.lab.training.processes.end import End
    from freezeout.lab.training.processes.exchange import (
        check_alike,
        draw_apart,
        random_states,
        restore_random,
        share_buffers,
        spread,
    )
    from freezeout.lab.training.processes.launcher import Launcher
    from freezeout.lab.training.processes.processes import ALONE, Processes
    from freezeout.lab.training.processes.synced_norm import local_norms

__all__ = [
    "ALONE",
    "End",
    "Launcher",
    "Processes",
    "check_alike",
    "draw_apart",
    "local_norms",
    "random_states",
    "restore_random",
    "share_buffers",
    "spread",
]

if not TYPE_CHECKING:
    __getattr__, __dir__ = lazy_names(
        __name__,
        {
            "freezeout.lab.training.processes.end": ("End",),
            "freezeout.lab.training.processes.exchange": (
                "check_alike",
                "draw_apart",
                "random_states",
                "restore_random",
                "share_buffers",
                "spread",
            ),
            "freezeout.lab.training.processes.launcher": ("Launcher",),
            "freezeout.lab.training.processes.processes": (
                "ALONE",
                "Processes",
            ),
            "freezeout.lab.training.processes.synced_norm": ("local_norms",),
        },
    )
