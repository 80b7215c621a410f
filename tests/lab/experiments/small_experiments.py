"""Small experiments, in processes or in pretence."""

import pytest

from freezeout.errors import FreezeOutError
from freezeout.lab.experiments import Experiment, Grid, Job, Label, Pool, run_job
from freezeout.lab.experiments import job as job_module
from freezeout.lab.experiments.arms import unfrozen
from freezeout.lab.experiments.job import measure_job
from freezeout.lab.training import run_costs
from freezeout.planning import Plan
from tests.lab.runs import SMALL, small
from tests.strategies import with_made_times

LABEL = Label(cell="small", arm="cubic:0.6", kind="variant")


def job(folder, **changes):
    settings = small(threads=1, **changes)
    return Job(folder=folder, settings=settings, label=LABEL)


VALUES = {**SMALL, "threads": 1, "epochs": 4, "train_size": 160}
TURNS = {"equal_time": True, "rates_only": True, "turns": True}


def made(folder, **values):
    return Experiment(folder, Grid.from_dict({**VALUES, **values}, "test"))


def pool(folder, events, **options):
    return Pool(options.pop("processes", 2), 1, folder / "logs", events.append, **options)


def made_forecast(trainer, *, rounds=6):
    """A plan whose times are made up: those of a busy machine could be any."""
    costs = with_made_times(run_costs(trainer, rounds=1))
    return Plan(costs, trainer.settings.schedule, trainer.total_steps)


def give_costs(experiment):
    """Begin an experiment whose steps have been measured, with made-up times."""
    experiment.make()
    experiment.save()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(job_module, "forecast", made_forecast)
        for cell in experiment.grid.cells:
            settings, plan = unfrozen(cell.settings), experiment.plan_file(cell)
            folder = experiment.folder / "measuring"
            measure_job(Job(folder=folder, settings=settings, label=LABEL, plan=plan))


class Pretend:
    """Measures in this process, runs if asked to, and notes what it is told to do and what came."""

    def __init__(self, *, runs=False):
        self.tasks = []
        self.came = []
        self.runs = runs

    def run(self, teams, *, deadline=None):
        for task in (task for team in teams for task in team):
            self.tasks.append(task)
            if task.do == "run":
                self.came.append(run_job(task.job) if self.runs else None)
                continue
            try:
                measure_job(task.job)
            except FreezeOutError as error:
                self.came.append(str(error))
            else:
                self.came.append("done")
        return True
