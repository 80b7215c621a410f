"""Bring many runs to their end: in processes of this machine, or on a Ray cluster."""

from freezeout.lab.experiments.runners.local import Pool, available_cores
from freezeout.lab.experiments.runners.ray import RayPool
from freezeout.lab.experiments.runners.runner import Event, Runner, Task

__all__ = ["Event", "Pool", "RayPool", "Runner", "Task", "available_cores"]
