"""Records of runs that were trained one by one."""

from dataclasses import replace
from pathlib import Path

import pytest

from freezeout.errors import RunError
from freezeout.lab.evidence import compare
from freezeout.lab.experiments import read_run, read_runs, run_job
from freezeout.lab.experiments.run_record import FoundRun
from freezeout.lab.experiments.told_apart import short_names, told_apart
from freezeout.lab.training import RunFolder, start
from tests.lab.experiments.small_experiments import LABEL, job
from tests.lab.report.records import record
from tests.lab.runs import KillAt, KilledError, small, train


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


def test_a_run_has_a_name_wherever_one_stands(tmp_path, monkeypatch):
    train(tmp_path / "a")
    monkeypatch.chdir(tmp_path / "a")
    for folders in (["."], [".", ".."], [".."], ["../a", "."]):
        records, unread = read_runs(map(Path, folders))
        assert [run.name for run in records] == ["a"]
        assert unread == []


def test_a_run_at_the_top_of_a_disk_has_a_name_and_an_experiment():
    top = Path("/")
    assert short_names([top]) == ["/"]
    assert len({*short_names([top, top / "x"])}) == 2
    run = FoundRun(top, small(), True, record("a", seed=0))
    assert told_apart([run]) == [run.record]


def finish_by_hand(folder):
    folder.write_summary({"interrupted": False, "train_seconds": 1.0})


def test_runs_with_fewer_freezes_are_compared_with_the_others(tmp_path):
    for place, changes in (("a", {"t0": 1.0}), ("b", {}), ("c", {"max_freezes": 1})):
        finish_by_hand(train(tmp_path / place, **changes))
    finish_by_hand(train(tmp_path / "d", max_freezes=1, freeze=False))
    records, _ = read_runs([tmp_path])
    assert {r.cell for r in records} == {"resnet-8-8 on digits"}
    assert [(r.arm, r.kind, r.of, r.max_freezes) for r in records] == [
        ("baseline", "baseline", None, None),
        ("cubic:0.6", "variant", None, None),
        ("cubic:0.6:max_freezes=1", "variant", None, 1),
        ("cubic:0.6:max_freezes=1 rates only", "control", "cubic:0.6:max_freezes=1", 1),
    ]


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
    with pytest.raises(RunError, match="is not a folder"):
        read_runs([tmp_path / "none"])
