"""Experiments: runs in processes that take turns, never twice, whatever is killed on the way."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from filelock import FileLock

from freezeout.errors import FreezeOutError, RunError
from freezeout.evidence import compare
from freezeout.experiments import Experiment, Grid, Job, Label, Pool, read_run, read_runs
from freezeout.experiments import job as job_module
from freezeout.experiments.arms import unfrozen
from freezeout.experiments.job import failure, job_status, measure_job, run_job
from freezeout.experiments.pool import available_cores, slot_cores
from freezeout.experiments.prepared import load_prepared, save_prepared
from freezeout.saving import Plan
from freezeout.schedule import Schedule
from freezeout.training import Observer, RunFolder, start
from freezeout.training.checkpoint import load_checkpoint
from freezeout.training.signals import StopSignals
from runs import SMALL, KillAt, KilledError, assert_same_end, small, train
from strategies import made_costs

LABEL = Label(cell="small", arm="cubic:0.6", kind="variant")


def job(folder, **changes):
    settings = small(threads=1, **changes)
    return Job(folder=folder, settings=settings, label=LABEL)


# --- One run -----------------------------------------------------------------------------------


def test_a_job_is_the_run_that_train_makes(tmp_path):
    done = job(tmp_path / "runs" / "job")
    assert job_status(done) == "new"
    assert run_job(done) == "done"
    assert job_status(done) == "done"
    assert_same_end(RunFolder(done.folder), train(tmp_path / "train", threads=1))
    assert json.loads((done.folder / "arm.json").read_text()) == {
        "cell": "small",
        "arm": "cubic:0.6",
        "kind": "variant",
        "of": None,
    }


def test_a_job_that_is_done_is_not_repeated(tmp_path):
    done = job(tmp_path / "job")
    run_job(done)
    before = {path: path.stat().st_mtime_ns for path in done.folder.iterdir()}

    class Refuse(Observer):
        def start(self, *_):
            raise AssertionError("it began again")

    assert run_job(done, [Refuse()]) == "done"
    assert {path: path.stat().st_mtime_ns for path in done.folder.iterdir()} == before


def test_a_job_goes_on_from_its_last_checkpoint(tmp_path):
    whole, cut = job(tmp_path / "whole"), job(tmp_path / "cut")
    run_job(whole)
    with pytest.raises(KilledError):
        start(cut.settings, RunFolder(cut.folder), [KillAt(6)])
    assert job_status(cut) == "unfinished"
    seen = []

    class Note(Observer):
        def start(self, title, names, freeze_steps, total, epochs, done):
            seen.append(done)

    assert run_job(cut, [Note()]) == "done"
    assert seen == [4]  # the checkpoint after the first epoch
    assert_same_end(RunFolder(cut.folder), RunFolder(whole.folder))


def test_a_run_that_diverges_is_recorded_and_may_be_tried_again(tmp_path):
    bad = job(tmp_path / "bad", lr=1e25)
    assert run_job(bad) == "failed"
    assert job_status(bad) == "failed"
    assert "training diverged" in failure(bad.folder)
    good = job(tmp_path / "new")
    job_module.record_failure(good, "the machine caught fire")
    assert job_status(good) == "failed"
    assert failure(good.folder) == "the machine caught fire"
    assert run_job(good) == "done"
    assert failure(good.folder) is None


def test_a_defect_is_recorded_with_its_traceback(tmp_path):
    class Broken(Observer):
        def epoch(self, record):
            raise ZeroDivisionError("oh")

    assert run_job(job(tmp_path / "bad"), [Broken()]) == "failed"
    record = json.loads((tmp_path / "bad" / "failed.json").read_text())
    assert record["reason"] == "ZeroDivisionError: oh"
    assert "in epoch" in record["traceback"]


def test_a_folder_with_another_run_is_refused(tmp_path):
    run_job(job(tmp_path / "job"))
    with pytest.raises(RunError, match=r"holds a run with lr=0\.1, but 0\.2 is asked for"):
        run_job(job(tmp_path / "job", lr=0.2))
    assert job_status(job(tmp_path / "job")) == "done"


def test_a_run_that_was_killed_as_it_began_begins_anew(tmp_path):
    begun = job(tmp_path / "job")
    begun.folder.mkdir()
    (begun.folder / ".settings.toml.x.part").write_text("half")
    assert run_job(begun) == "done"
    assert not list(begun.folder.glob(".*.part"))


def test_a_job_survives_json(tmp_path):
    made = replace(job(tmp_path, times=[0.2, 0.4, 0.6, 0.8, 1.0]), plan=tmp_path / "p", data=None)
    assert Job.from_dict(json.loads(json.dumps(made.to_dict()))) == made


def test_a_measured_job_leaves_a_plan_of_its_whole_length(tmp_path):
    made = job(tmp_path / "job")
    measuring = replace(made, settings=unfrozen(made.settings), plan=tmp_path / "plans" / "x.json")
    measure_job(measuring)
    plan = Plan.load(measuring.plan)
    assert plan.total_steps == 12
    assert len(plan.costs) == 5
    assert plan.saving == 0
    assert run_job(replace(made, plan=measuring.plan)) == "done"
    used = RunFolder(made.folder).plan()
    assert used.total_steps == 12
    assert used.schedule == made.settings.schedule
    assert used.costs == plan.costs
    assert 0 < read_run(made.folder).predicted == used.saving
    with pytest.raises(ValueError, match="plan must name a file"):
        measure_job(made)


@pytest.mark.parametrize(
    ("width", "seconds", "rounds"),
    [(0.03, 1.0, [6]), (0.3, 1000.0, [6, 12, 24]), (0.3, 0.0, [6])],
    ids=["precise at once", "noisy", "noisy, but long enough for this run"],
)
def test_a_noisy_step_is_measured_longer(monkeypatch, width, seconds, rounds):
    asked = []

    class Found(Plan):
        interval = property(lambda self: (0.1, 0.1 + width))
        baseline_seconds = property(lambda self: seconds)

    def forecast(trainer, *, rounds):
        asked.append(rounds)
        return Found(made_costs((2.0, 1.0)), Schedule(t0=1.0), 100)

    monkeypatch.setattr(job_module, "forecast", forecast)
    job_module._precise_forecast(None)
    assert asked == rounds


def test_prepared_data_are_those_of_the_settings(tmp_path):
    settings = small(shrink=2, holdout=100, threads=1)
    path = save_prepared(settings, tmp_path)
    data = load_prepared(path)
    assert data.train_images.shape == (64, 1, 4, 4)
    assert len(data.test_images) == 100
    assert path.stat().st_size < 50_000  # not all that they were cut from
    before = path.stat().st_mtime_ns
    assert save_prepared(replace(settings, seed=3, epochs=9), tmp_path) == path
    assert path.stat().st_mtime_ns == before
    assert save_prepared(replace(settings, shrink=1), tmp_path) != path
    one = replace(job(tmp_path / "one"), settings=settings, data=path)
    other = replace(job(tmp_path / "other"), settings=settings)
    assert (run_job(one), run_job(other)) == ("done", "done")
    assert_same_end(RunFolder(one.folder), RunFolder(other.folder))
    path.write_bytes(b"x")
    with pytest.raises(RunError, match="is missing or damaged"):
        load_prepared(path)


# --- Whole experiments, in processes ------------------------------------------------------------

VALUES = {**SMALL, "threads": 1, "epochs": 4, "train_size": 160}
TURNS = {"equal_time": True, "rates_only": True, "turns": True}


def made(folder, **values):
    return Experiment(folder, Grid.from_dict({**VALUES, **values}, "test"))


def pool(folder, events, **options):
    return Pool(options.pop("processes", 2), 1, folder / "logs", events.append, **options)


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


@pytest.fixture(scope="module")
def compared(tmp_path_factory):
    """One seed in processes, with what they told, and one more in this process."""
    folder = tmp_path_factory.mktemp("compared")
    events = []
    assert made(folder, arms=TURNS, grid={"seed": [0]}).run(pool(folder, events))
    experiment, here = made(folder, arms=TURNS, grid={"seed": [0, 1]}), Pretend(runs=True)
    assert experiment.run(here)
    assert here.came == ["done"] * 4
    return experiment, events


pytestmark = pytest.mark.multiprocess


def test_every_run_of_an_experiment_is_done_in_its_folder(compared):
    experiment, events = compared
    assert experiment.grid.size == 8
    done = [e for e in events if e.kind == "done" and e.task.do == "run"]
    assert len(done) == 4
    assert {e.kind for e in events} == {"begin", "turn", "done"}
    told = {str(e.task.job.folder.relative_to(experiment.folder)) for e in done}
    runs = (experiment.folder / "runs").rglob("summary.json")
    folders = {str(path.parent.relative_to(experiment.folder)) for path in runs}
    assert told == {folder for folder in folders if folder.endswith("seed-0")}
    assert folders == {
        f"runs/resnet-8-8-on-digits/{arm}/seed-{seed}"
        for arm in (
            "baseline",
            "cubic-0.6",
            "cubic-0.6-equal-time",
            "cubic-0.6-rates-only",
        )
        for seed in (0, 1)
    }


@pytest.mark.parametrize("arm", ["baseline", "cubic-0.6", "cubic-0.6-rates-only"])
def test_a_run_in_a_comparison_is_the_one_that_train_makes(compared, arm, tmp_path):
    experiment, _ = compared
    folder = RunFolder(experiment.folder / "runs" / "resnet-8-8-on-digits" / arm / "seed-0")
    again = RunFolder(tmp_path / "again")
    start(folder.settings(), again)
    assert_same_end(again, folder)


def test_the_equal_time_baseline_has_the_steps_that_take_as_long(compared):
    experiment, _ = compared
    records, _ = read_runs([experiment.folder])
    (variant, short, full) = (
        next(r for r in records if r.kind == kind and r.seed == 0)
        for kind in ("variant", "equal-time", "baseline")
    )
    assert full.total_steps == variant.total_steps == 40
    assert short.total_steps == max(1, round(40 * (1 - variant.predicted)))
    assert short.of == variant.arm
    assert (variant.epochs, short.epochs) == (4.0, short.total_steps / 10)
    assert short.rates[0][-1] == 0.0  # its rate is fully annealed
    assert short.freeze_steps == (None,) * 5


def test_the_control_ends_as_the_variant_and_freezes_nothing(compared):
    experiment, _ = compared
    runs = experiment.folder / "runs" / "resnet-8-8-on-digits"
    for seed in (0, 1):
        variant = load_checkpoint(runs / "cubic-0.6" / f"seed-{seed}" / "checkpoint.pt")
        control = load_checkpoint(runs / "cubic-0.6-rates-only" / f"seed-{seed}" / "checkpoint.pt")
        for name, value in variant["model"].items():
            assert torch.equal(value, control["model"][name]), name
        assert variant["history"][-1]["frozen"] == 4
        assert control["history"][-1]["frozen"] == 0
    plain = load_checkpoint(runs / "baseline" / "seed-0" / "checkpoint.pt")
    assert not all(torch.equal(v, plain["model"][n]) for n, v in variant["model"].items())


def test_arms_take_turns(compared):
    _, events = compared
    done = {}
    for event in events:
        if event.task.job.settings.seed != 0 or event.task.do != "run":
            continue
        arm = event.task.job.label.arm
        if event.kind == "begin":
            done[arm] = 0.0
        if event.kind != "turn":
            continue
        done[arm] = event.step / event.total
        # None is further ahead than one step of its own and one turn; the shortest run has the
        # longest steps, and fewer of them than turns.
        assert done[arm] - min(done.values()) < 1 / event.total + 0.01
    assert len(done) == 4
    assert set(done.values()) == {1.0}


def test_waiting_for_the_others_is_not_counted(compared):
    experiment, _ = compared
    records, _ = read_runs([experiment.folder])
    for record in records:
        assert record.train_seconds <= record.total_seconds < record.train_seconds + 5


def test_records_hold_what_a_comparison_needs(compared):
    experiment, _ = compared
    records, unread = read_runs([experiment.folder])
    assert unread == []
    assert {(r.arm, r.kind, r.of) for r in records} == {
        ("baseline", "baseline", None),
        ("cubic:0.6", "variant", None),
        ("cubic:0.6 equal time", "equal-time", "cubic:0.6"),
        ("cubic:0.6 rates only", "control", "cubic:0.6"),
    }
    (comparison,) = compare(records)
    assert comparison.cell == "resnet-8-8 on digits"
    (verdict,) = comparison.verdicts
    assert verdict.as_control == (0, 1)
    for r in records:
        assert r.device == "CPU, 1 thread"
        assert r.peak_memory > 1e8
        assert len(r.memory) == len(r.tested) or r.kind == "equal-time"
        assert len(r.rates) == len(r.layer_names) == 5
        assert r.error == r.tested[-1].error
    variant = next(r for r in records if r.kind == "variant")
    control = next(r for r in records if r.kind == "control" and r.seed == variant.seed)
    assert variant.rates == control.rates
    full = next(r for r in records if r.kind == "baseline" and r.seed == variant.seed)
    assert variant.measured == 1 - variant.train_seconds / full.train_seconds
    assert control.measured is None


def test_what_is_done_is_never_repeated_and_more_seeds_can_follow(compared):
    experiment, _ = compared
    files = sorted((experiment.folder / "runs").rglob("checkpoint.pt"))
    before = [path.stat().st_mtime_ns for path in files]
    nothing, here = Pretend(), Pretend(runs=True)
    assert experiment.run(nothing)
    assert nothing.tasks == []
    grid = replace(experiment.grid, seeds=(0, 1, 2), rates_only=False, equal_time=False)
    more = Experiment(experiment.folder, grid)
    assert more.run(here)
    assert here.came == ["done"] * 2
    assert {task.job.settings.seed for task in here.tasks} == {2}
    assert [path.stat().st_mtime_ns for path in files] == before


@pytest.fixture(scope="module")
def killed_once(tmp_path_factory):
    """A baseline alone, in one process that is killed half-way, and what that process was given."""
    folder = tmp_path_factory.mktemp("killed")
    experiment = made(folder, grid={"seed": [0]}, t0=1.0, arms={"equal_time": True})
    events, seen = [], {}

    def tell(event):
        events.append(event)
        if event.kind == "turn" and not seen:
            (pid,) = children()
            seen["cores"] = os.sched_getaffinity(pid)
            environment = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
            seen["threads"] = b"OMP_NUM_THREADS=1" in environment
        if event.kind == "turn" and event.step == 25 and not any(e.kind == "retry" for e in events):
            for pid in children():
                os.kill(pid, signal.SIGKILL)

    assert experiment.run(Pool(1, 1, folder / "logs", tell))
    return folder, events, seen


def test_a_killed_process_goes_on_from_its_last_checkpoint(killed_once, tmp_path):
    place, events, _ = killed_once
    kinds = [e.kind for e in events if e.kind != "turn"]
    assert kinds == ["begin", "retry", "done"]
    retry = next(e for e in events if e.kind == "retry")
    assert "signal 9" in retry.reason
    after = [e.step for e in events[events.index(retry) :] if e.kind == "turn"]
    assert after[0] == 20  # the checkpoint after the second epoch, not the beginning
    folder = RunFolder(place / "runs" / "resnet-8-8-on-digits" / "baseline" / "seed-0")
    again = RunFolder(tmp_path / "again")
    start(folder.settings(), again)
    assert_same_end(again, folder)


def test_what_fails_or_dies_is_recorded_and_does_not_stop_the_rest(tmp_path):
    experiment = made(tmp_path, t0=1.0, grid={"lr": [0.1, 1e25, 0.2]})
    events = []

    def tell(event):
        events.append(event)
        if event.kind == "turn" and event.step == 15 and event.task.job.settings.lr == 0.2:
            for pid in children():
                os.kill(pid, signal.SIGKILL)

    assert experiment.run(Pool(1, 1, tmp_path / "logs", tell, retries=0))
    ends = {e.task.job.settings.lr: e for e in events if e.kind in ("done", "failed")}
    assert {lr: e.kind for lr, e in ends.items()} == {0.1: "done", 1e25: "failed", 0.2: "failed"}
    assert "training diverged" in ends[1e25].reason
    assert "signal 9" in ends[0.2].reason
    records, unread = read_runs([tmp_path])
    assert len(records) == 1
    assert sorted(run.reason.split()[0] for run in unread) == ["its", "training"]
    # Not again by itself; on request what died goes on.
    nothing, again = Pretend(), Pretend(runs=True)
    assert experiment.run(nothing)
    assert nothing.tasks == []
    died = ends[0.2].task.job.folder
    before = first_epoch(died)
    assert experiment.run(again, retry=True)
    assert first_epoch(died) == before
    rates = [task.job.settings.lr for task in again.tasks]
    assert dict(zip(rates, again.came, strict=True)) == {1e25: "failed", 0.2: "done"}


def test_a_stopped_experiment_goes_on_to_the_same_bits(tmp_path, compared):
    whole, _ = compared
    experiment = made(tmp_path, arms={"turns": True}, grid={"seed": [0]})
    experiment.save()
    (tmp_path / "plans").mkdir()
    for file in (whole.folder / "plans").iterdir():  # the same costs
        (tmp_path / "plans" / file.name).write_bytes(file.read_bytes())
    events = []
    runner = pool(tmp_path, events, processes=1)

    def tell(event):
        events.append(event)
        if event.kind == "turn" and event.step == 13:
            runner._stop.set()

    runner._tell_outside = tell
    assert not experiment.run(runner)
    assert {e.kind for e in events} >= {"interrupted"}
    assert "done" not in {e.kind for e in events}
    assert children() == []
    assert max(e.step for e in events) < 25
    runs = [
        Path("runs") / "resnet-8-8-on-digits" / arm / "seed-0" for arm in ("baseline", "cubic-0.6")
    ]
    before = [first_epoch(tmp_path / place) for place in runs]
    steps = [load_checkpoint(tmp_path / place / "checkpoint.pt")["step"] for place in runs]
    assert min(steps) >= 12
    assert experiment.run(Pretend(runs=True))
    assert [first_epoch(tmp_path / place) for place in runs] == before  # not from the beginning
    for place in runs:
        assert_same_end(RunFolder(tmp_path / place), RunFolder(whole.folder / place))


def test_a_deadline_stops_an_experiment(tmp_path):
    experiment = made(tmp_path, grid={"seed": [0]}, t0=1.0)
    events = []
    assert not experiment.run(pool(tmp_path, events), deadline=time.monotonic() - 1)
    assert "done" not in {e.kind for e in events}


def test_runs_end_and_save_when_their_parent_is_killed(tmp_path):
    program = (
        "import sys; from pathlib import Path\n"
        "from freezeout.experiments import Experiment, Grid, Pool\n"
        f"values = {dict(VALUES, t0=1.0, epochs=400)!r}\n"
        "folder = Path(sys.argv[1])\n"
        "grid = Grid.from_dict(values, 'test')\n"
        "Experiment(folder, grid).run(Pool(1, 1, folder / 'logs', lambda event: None))\n"
    )
    parent = subprocess.Popen([sys.executable, "-c", program, str(tmp_path)])
    run = tmp_path / "runs" / "resnet-8-8-on-digits" / "baseline" / "seed-0"
    try:
        wait_for(lambda: '"epoch"' in read(run / "log.jsonl"))
        (worker,) = children(parent.pid)
    finally:
        parent.kill()
        parent.wait()
    wait_for(lambda: not Path(f"/proc/{worker}").exists())
    last = json.loads(read(run / "log.jsonl").splitlines()[-1])
    assert (last["event"], last["finished"]) == ("end", False)
    assert load_checkpoint(run / "checkpoint.pt")["step"] == last["step"] > 0


def test_a_folder_is_used_by_one_process_at_a_time(tmp_path):
    experiment = made(tmp_path, grid={"seed": [0]})

    class Again:
        def run(self, teams, *, deadline=None):
            with pytest.raises(RunError, match="another process is working on"):
                experiment.run(self)
            return False

    assert not experiment.run(Again())


def test_what_is_refused_leaves_the_description_as_it_was(tmp_path):
    experiment = made(tmp_path, grid={"seed": [0]}, t0=1.0)
    assert experiment.run(Pretend(runs=True))
    before = experiment.description.read_text()
    with pytest.raises(RunError, match=r"with epochs=4, but 2 is asked for"):
        made(tmp_path, grid={"seed": [0]}, t0=1.0, epochs=2).run(None)
    with (
        FileLock(tmp_path / ".lock"),
        pytest.raises(RunError, match="another process is working on"),
    ):
        made(tmp_path, grid={"seed": [7]}).run(None)
    assert experiment.description.read_text() == before


def test_a_run_that_cannot_be_read_does_not_stop_the_rest(tmp_path):
    experiment = made(tmp_path, grid={"seed": [0, 1]}, t0=1.0)
    broken = tmp_path / "runs" / "resnet-8-8-on-digits" / "baseline" / "seed-0"
    broken.mkdir(parents=True)
    (broken / "settings.toml").write_text("model =")
    experiment.save()
    assert experiment.run(Pretend(runs=True))
    records, unread = read_runs([tmp_path])
    assert [r.seed for r in records] == [1]
    assert "its folder cannot be read" in unread[0].reason
    assert experiment.done() == 1


def test_costs_are_measured_anew_for_other_settings_and_not_for_the_same(tmp_path):
    arms = {"equal_time": True}
    first, again, longer = Pretend(), Pretend(), Pretend()
    made(tmp_path, arms=arms).run(first)
    assert [t.do for t in first.tasks].count("measure") == 1
    made(tmp_path, arms=arms, evaluate_every=2, grid={"seed": [3]}).run(again)
    assert "measure" not in [t.do for t in again.tasks]
    made(tmp_path, arms=arms, epochs=40).run(longer)
    assert [t.do for t in longer.tasks].count("measure") == 1
    steps = {t.job.label.kind: t.job.settings.steps for t in longer.tasks if t.do == "run"}
    assert 200 < steps["equal-time"] < 400  # of 400


def test_damaged_costs_are_named_and_nothing_is_taken_for_done(tmp_path):
    experiment = made(tmp_path, arms={"equal_time": True})
    experiment.run(Pretend())
    assert experiment.done() == 0
    experiment.plan_file(experiment.grid.cells[0]).write_text('{"broken')
    with pytest.raises(RunError, match=r"resnet-8-8-on-digits\.json is damaged"):
        experiment.run(Pretend())


def test_damaged_data_are_prepared_anew(tmp_path):
    experiment = made(tmp_path, t0=1.0)
    experiment.run(Pretend())
    (data,) = (tmp_path / "data").iterdir()
    data.write_bytes(b"x")
    experiment.run(Pretend())
    assert len(load_prepared(data).train_images) == 160


def test_a_folder_that_holds_something_else_is_refused(tmp_path):
    (tmp_path / "thesis.tex").write_text("x")
    with pytest.raises(RunError, match="is not empty and holds no experiment"):
        made(tmp_path).run(None)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["thesis.tex"]
    with pytest.raises(RunError, match="there is no experiment in"):
        Experiment.load(tmp_path)


@pytest.mark.parametrize("equal_time", [True, False])
def test_a_cell_that_cannot_be_measured_fails_and_the_others_go_on(tmp_path, equal_time):
    experiment = made(
        tmp_path,
        arms={"equal_time": equal_time, "baseline": not equal_time},
        grid={"model": ["resnet-8-8", "no-such-net"], "seed": [0]},
    )
    runner = pool(tmp_path, []) if equal_time else Pretend(runs=True)
    assert experiment.run(runner, keep_checkpoints=False)
    records, unread = read_runs([tmp_path])
    assert {r.model for r in records} == {"resnet-8-8"}
    assert len(records) == 2
    assert len(unread) == (1 if equal_time else 2)
    if equal_time:
        assert "its step cannot be measured" in unread[0].reason
    assert all("unknown network 'no-such-net'" in run.reason for run in unread)
    assert not list(tmp_path.rglob("checkpoint.pt"))


def test_nothing_to_shorten_is_no_obstacle(killed_once):
    _, events, _ = killed_once
    assert {(e.task.do, e.task.job.label.kind) for e in events} == {("run", "baseline")}
    assert events[-1].kind == "done"
    assert job_status(events[0].task.job) == "done"


# --- Cores, signals ------------------------------------------------------------------------------


def test_slots_have_cores_of_their_own():
    cores = available_cores()
    assert slot_cores(1, 1) == [[cores[0]]]
    if len(cores) > 1:
        assert slot_cores(2, 1) == [[cores[0]], [cores[1]]]
        assert slot_cores(1, 2) == [cores[:2]]
    assert slot_cores(len(cores) + 1, 1) == [None] * (len(cores) + 1)


def test_a_process_is_pinned_and_has_its_threads(killed_once):
    _, _, seen = killed_once
    assert seen == {"cores": {available_cores()[0]}, "threads": True}


def test_a_pool_needs_processes_and_threads(tmp_path):
    for values in ((0, 1), (1, 0)):
        with pytest.raises(ValueError, match="must be at least 1, got 0"):
            Pool(*values, tmp_path, print)


@pytest.fixture
def interruptible():
    """Ctrl-C acts as usual; programs that a shell begins in the background ignore it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_the_first_signal_asks_to_stop_and_the_second_acts(interruptible):
    stop = threading.Event()
    with StopSignals(stop) as signals:
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop.wait(5)
        assert signals.received
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)


# --- Records of runs that were trained one by one ----------------------------------------------


def test_single_runs_are_told_apart_by_what_differs(tmp_path):
    train(tmp_path / "a", t0=1.0)
    train(tmp_path / "b")
    train(tmp_path / "c", epochs=2)
    train(tmp_path / "d", seed=1)
    train(tmp_path / "e")
    for path in tmp_path.iterdir():
        finish_by_hand(RunFolder(path))
    records, unread = read_runs([tmp_path])
    assert unread == []
    assert [(r.name, r.cell, r.arm) for r in records] == [
        ("a", "resnet-8-8 on digits, epochs=3", "baseline"),
        ("b", "resnet-8-8 on digits, epochs=3", "cubic:0.6"),
        ("c", "resnet-8-8 on digits, epochs=2", "cubic:0.6"),
        ("d", "resnet-8-8 on digits, epochs=3", "cubic:0.6"),
        ("e", "resnet-8-8 on digits, epochs=3 (e)", "cubic:0.6"),
    ]
    assert [c.cell for c in compare(records)]  # no two runs of one arm and seed in a cell


def test_runs_trained_one_by_one_never_join_a_cell_of_an_experiment(tmp_path):
    done = job(tmp_path / "m" / "runs" / "cell" / "arm" / "seed-0")
    run_job(replace(done, label=replace(LABEL, cell="resnet-8-8 on digits")))
    for place, changes in (("a", {"epochs": 2, "seed": 4}), ("z", {"epochs": 2})):
        run = train(tmp_path / place, threads=1, **changes)
        finish_by_hand(run)
    records, _ = read_runs([tmp_path])
    assert [(r.name.split("/")[0], r.cell) for r in records] == [
        ("a", "resnet-8-8 on digits, trained one by one"),
        ("m", "resnet-8-8 on digits"),
        ("z", "resnet-8-8 on digits, trained one by one"),
    ]


def test_the_same_cell_in_several_experiments_is_told_apart_by_their_folders(tmp_path):
    for place in ("p1/x", "p2/x"):
        for seed in (0, 1):
            run_job(job(tmp_path / place / "runs" / "cell" / "arm" / f"seed-{seed}", seed=seed))
    records, _ = read_runs([tmp_path])
    assert {r.cell for r in records} == {"small (p1/x)", "small (p2/x)"}


def finish_by_hand(folder):
    folder.write_summary({"interrupted": False, "train_seconds": 1.0})


def test_an_unfinished_run_is_read_from_its_log(tmp_path):
    with pytest.raises(KilledError):
        start(small(threads=1), RunFolder(tmp_path / "run"), [KillAt(6)])
    record = read_run(tmp_path / "run")
    assert not record.finished
    assert record.error is None
    assert (record.steps, record.total_steps, record.epochs) == (4, 12, 3.0)
    assert [t.step for t in record.step_times] == [4]
    assert len(record.tested) == 1


def test_damaged_runs_are_named_with_a_reason(tmp_path):
    train(tmp_path / "good")
    train(tmp_path / "bad")
    (tmp_path / "bad" / "settings.toml").write_text("model = ")
    (tmp_path / "worse").mkdir()
    (tmp_path / "worse" / "settings.toml").write_text('model = "resnet-8"')
    (tmp_path / "worse" / "summary.json").write_text("{")
    records, unread = read_runs([tmp_path])
    assert [r.name for r in records] == ["good"]
    assert [run.name for run in unread] == ["bad", "worse"]
    assert all(run.reason.startswith("cannot be read: ") for run in unread)


def test_no_run_at_all_is_an_error(tmp_path):
    with pytest.raises(RunError, match="there is no run in the folders"):
        read_runs([tmp_path])
    with pytest.raises(RunError, match="is no folder"):
        read_runs([tmp_path / "none"])


# --- Helpers -------------------------------------------------------------------------------------


def children(pid=None):
    """Processes that a process has started and that work for an experiment."""
    found = []
    for task in Path(f"/proc/{pid or os.getpid()}/task").iterdir():
        for child in read(task / "children").split():
            words = read(Path(f"/proc/{child}/cmdline"))
            if "freezeout.experiments.worker" in words:
                found.append(int(child))
    return found


def read(path):
    try:
        return path.read_text()
    except OSError:  # not there yet, or gone
        return ""


def first_epoch(run):
    """The beginning of a run's log, with the seconds that its first epoch took."""
    lines = read(run / "log.jsonl").splitlines()[:6]
    assert any('"epoch"' in line for line in lines)
    return lines[: 1 + next(i for i, line in enumerate(lines) if '"epoch"' in line)]


def wait_for(condition, seconds=60):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.05)
