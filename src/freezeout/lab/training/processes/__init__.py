"""Train in several processes: who takes part, what they exchange, how they begin and end."""

from freezeout.lab.training.processes.exchange import (
    check_alike,
    draw_apart,
    random_states,
    restore_random,
    share_buffers,
    spread,
)
from freezeout.lab.training.processes.launcher import End, Launcher
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
