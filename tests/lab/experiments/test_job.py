"""One run of an experiment."""

import json
import shutil
from dataclasses import replace
from unittest.mock import ANY

import pytest

from freezeout.errors import RunError
from freezeout.lab.experiments import Job, read_run, run_job
from freezeout.lab.experiments import job as job_module
from freezeout.lab.experiments.arms import unfrozen
from freezeout.lab.experiments.job import failure, job_status, measure_job, measured_with
from freezeout.lab.experiments.prepared import load_prepared, save_prepared
from freezeout.lab.training import Observer, RunFolder, start
from freezeout.planning import Plan
from freezeout.schedule import Schedule
from tests.lab.experiments.damage import fail_to_open
from tests.lab.experiments.small_experiments import job, made_forecast
from tests.lab.other_user import folder_of_another_user
from tests.lab.runs import KillAt, KilledError, assert_same_end, small, train
from tests.strategies import made_costs


def test_a_job_is_the_run_that_train_makes(tmp_path):
    done = job(tmp_path / "runs" / "job")
    assert job_status(done) == "new"
    assert run_job(done) == "done"
    assert job_status(done) == "done"
    assert_same_end(RunFolder(done.folder), train(tmp_path / "train", threads=1))
    assert json.loads((done.folder / "arm.json").read_text()) == {
        "digest": ANY,
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


class Note(Observer):
    """Notes at which step a run is taken up."""

    def __init__(self):
        self.begun = []

    def start(self, run):
        self.begun.append(run.done_steps)


def test_a_job_goes_on_from_its_last_checkpoint(tmp_path):
    whole, cut = job(tmp_path / "whole"), job(tmp_path / "cut")
    run_job(whole)
    with pytest.raises(KilledError):
        start(cut.settings, RunFolder(cut.folder), [KillAt(6)])
    assert job_status(cut) == "unfinished"
    note = Note()
    assert run_job(cut, [note]) == "done"
    assert note.begun == [4]  # the checkpoint after the first epoch
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


def test_a_folder_that_may_not_be_looked_into_is_named():
    with folder_of_another_user() as place:
        (place / "run").mkdir(mode=0)
        with pytest.raises(RunError, match=r"cannot look into .*run: Permission denied\. Fix"):
            job_status(job(place / "run"))
        (place / "run").chmod(0o700)
        assert job_status(job(place / "run")) == "new"


def test_a_run_that_was_killed_as_it_began_begins_again(tmp_path):
    begun = job(tmp_path / "job")
    begun.folder.mkdir()
    (begun.folder / ".settings.toml.x.freezeout-part").write_text("half")
    assert run_job(begun) == "done"
    assert not list(begun.folder.glob(".*part"))


def test_an_unfinished_run_without_its_checkpoint_begins_again(tmp_path):
    whole = job(tmp_path / "whole")
    run_job(whole)
    copy = job(tmp_path / "copy")
    shutil.copytree(whole.folder, copy.folder, ignore=shutil.ignore_patterns("*.pt"))
    note = Note()
    assert run_job(copy, [note]) == "done"
    assert note.begun == []  # it was finished
    (copy.folder / "summary.json").unlink()
    assert job_status(copy) == "unfinished"
    assert run_job(copy, [note]) == "done"
    assert note.begun == [0]
    assert_same_end(RunFolder(whole.folder), RunFolder(copy.folder))
    events = [[r["event"] for r in RunFolder(one.folder).read_log()] for one in (whole, copy)]
    assert events[0] == events[1]


@pytest.mark.parametrize("name", ["settings.toml", "summary.json"])
def test_a_disk_that_fails_for_a_moment_changes_nothing(tmp_path, monkeypatch, name):
    done = replace(job(tmp_path / "job"), keep_checkpoint=False)
    assert run_job(done) == "done"
    before = {path.name: path.read_bytes() for path in done.folder.iterdir()}
    with monkeypatch.context() as patched:
        fail_to_open(patched, name)
        for look in (job_status, run_job):
            with pytest.raises(RunError, match=rf"{name}: Input/output error\. .*nothing against"):
                look(done)
    assert {path.name: path.read_bytes() for path in done.folder.iterdir()} == before
    assert job_status(done) == "done"


def test_what_was_measured_is_not_forgotten_by_a_disk_that_fails(tmp_path, monkeypatch):
    plan, beside = tmp_path / "cell.json", tmp_path / "cell.settings.json"
    assert measured_with(plan) is None
    beside.write_text("{")
    assert measured_with(plan) is None  # damaged: it is measured again
    beside.write_text('{"model": "x"}')
    assert measured_with(plan) == {"model": "x"}
    fail_to_open(monkeypatch, beside.name)
    with pytest.raises(RunError, match="nothing against its content"):
        measured_with(plan)


def test_a_job_survives_json(tmp_path):
    made = replace(job(tmp_path, times=[0.2, 0.4, 0.6, 0.8, 1.0]), plan=tmp_path / "p", data=None)
    assert Job.from_dict(json.loads(json.dumps(made.to_dict()))) == made


def test_a_measured_job_leaves_a_plan_of_its_whole_length(tmp_path, monkeypatch):
    monkeypatch.setattr(job_module, "forecast", made_forecast)
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
    assert read_run(made.folder).predicted == used.saving > 0.1
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
