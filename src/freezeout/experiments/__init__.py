"""Many runs as one experiment: what there is to compare, and bringing every run to its end.

Start with `freezeout.experiments.grid` (what to run) and `experiment` (running it in a folder);
`pool` has the processes, `remote` those on a Ray cluster, `records` reads what came out.
"""

from freezeout.experiments.arms import ArmSettings, Variant
from freezeout.experiments.experiment import Experiment
from freezeout.experiments.grid import Cell, Grid
from freezeout.experiments.job import Job, Label, run_job
from freezeout.experiments.pool import Event, Pool, Task
from freezeout.experiments.presets import EXPERIMENTS
from freezeout.experiments.records import read_run, read_runs

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
    "Task",
    "Variant",
    "read_run",
    "read_runs",
    "run_job",
]
