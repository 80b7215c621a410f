"""Many runs as one experiment: what there is to compare; bring every run to its end.

Start with `grid` (what to run) and `experiment` (running it in a folder); `runners` has the
processes, here or on a Ray cluster; `records` reads what came out.
"""

from freezeout.lab.experiments.arms import ArmSettings, Variant, unfrozen, variant_of
from freezeout.lab.experiments.experiment import Experiment
from freezeout.lab.experiments.grid import Cell, Grid
from freezeout.lab.experiments.job import Job, Label, run_job
from freezeout.lab.experiments.presets import EXPERIMENTS, experiment_preset
from freezeout.lab.experiments.records import Unread, read_runs
from freezeout.lab.experiments.run_record import read_run
from freezeout.lab.experiments.runners import Event, Pool, Runner, Task

__all__ = [
    "EXPERIMENTS",
    "ArmSettings",
    "Cell",
    "Event",
    "Experiment",
    "Grid",
    "Job",
    "Label",
    "Pool",
    "Runner",
    "Task",
    "Unread",
    "Variant",
    "experiment_preset",
    "read_run",
    "read_runs",
    "run_job",
    "unfrozen",
    "variant_of",
]
