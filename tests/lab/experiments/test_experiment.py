"""Whole experiments: every run done once, never twice, whatever stopped it."""

import os
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from filelock import FileLock

from freezeout.errors import CostError, RunError
from freezeout.lab.evidence import compare
from freezeout.lab.experiments import Experiment, read_runs
from freezeout.lab.experiments.arms import equal_steps
from freezeout.lab.experiments.prepared import load_prepared
from freezeout.lab.experiments.runners.worker import _Turns
from freezeout.lab.training import RunFolder, start
from freezeout.lab.training.checkpoint import load_checkpoint
from freezeout.planning import Plan
from tests.lab.experiments.damage import fail_to_open
from tests.lab.experiments.processes import children, first_epoch
from tests.lab.experiments.small_experiments import TURNS, Pretend, made, pool
from tests.lab.runs import assert_same_end


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


def test_waiting_for_the_others_is_not_counted(compared, tmp_path, monkeypatch):
    experiment, _ = compared
    now, turns = 0.0, []

    class Line:
        is_cut = False

        def tell(self, **message):
            turns.append(message["turn"])

        def wait(self):
            nonlocal now
            now += 3600.0

    monkeypatch.setattr(time, "monotonic", lambda: now)  # only waiting takes time
    run = RunFolder(experiment.folder / "runs" / "resnet-8-8-on-digits" / "baseline" / "seed-0")
    result = start(run.settings(), RunFolder(tmp_path / "run"), (_Turns(Line()),), predict=False)
    assert len(turns) > 10
    assert now == 3600.0 * len(turns)
    assert result.seconds == 0.0


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
        assert 0 < r.train_seconds <= r.total_seconds
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


@pytest.mark.slow
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

    runner._tell = tell
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


def test_a_folder_is_used_by_one_process_at_a_time(tmp_path):
    experiment = made(tmp_path, grid={"seed": [0]})

    class Again:
        def run(self, teams, *, deadline=None):
            with pytest.raises(RunError, match=f"is in use by process {os.getpid()} on "):
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
        pytest.raises(RunError, match="is in use by another process"),
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
    experiment = made(tmp_path, arms=arms, epochs=40)
    experiment.run(longer)
    assert [t.do for t in longer.tasks].count("measure") == 1
    (cell,), (variant,) = experiment.grid.cells, experiment.grid.variants
    plan = Plan.load(experiment.plan_file(cell))
    assert plan.total_steps == 400
    steps = {t.job.label.kind: t.job.settings.steps for t in longer.tasks if t.do == "run"}
    assert steps["equal-time"] == equal_steps(cell.settings, variant, plan)


def test_damaged_costs_are_named_and_nothing_is_taken_for_done(tmp_path):
    experiment = made(tmp_path, arms={"equal_time": True})
    experiment.run(Pretend())
    assert experiment.done() == 0
    experiment.plan_file(experiment.grid.cells[0]).write_text('{"broken')
    with pytest.raises(RunError, match=r"resnet-8-8-on-digits\.json is damaged"):
        experiment.run(Pretend())


def test_costs_that_cannot_be_read_for_a_moment_are_not_called_damaged(tmp_path, monkeypatch):
    experiment = made(tmp_path, arms={"equal_time": True})
    experiment.run(Pretend())
    fail_to_open(monkeypatch, "resnet-8-8-on-digits.json")
    with pytest.raises(CostError, match="nothing against its content"):
        experiment.run(Pretend())


def test_costs_that_cannot_be_read_are_not_called_damaged(tmp_path):
    experiment = made(tmp_path, arms={"equal_time": True})
    experiment.run(Pretend())
    path = experiment.plan_file(experiment.grid.cells[0])
    path.unlink()
    path.mkdir()
    with pytest.raises(CostError, match=r"cannot read the plan .*: Is a directory") as caught:
        experiment.done()
    assert "damaged" not in str(caught.value)


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
    with pytest.raises(RunError, match="there is no description of an experiment"):
        Experiment.load(tmp_path)


@pytest.mark.parametrize("equal_time", [pytest.param(True, marks=pytest.mark.slow), False])
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
