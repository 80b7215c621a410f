"""What 0.1.0 left on disk before files had digests is still read: runs, plans, experiments."""

import json
import shutil
from pathlib import Path

import pytest

from freezeout import Costs, Plan
from freezeout.lab.cli import main
from freezeout.lab.experiments import Experiment, read_run, read_runs
from freezeout.lab.training import RunFolder, resume
from freezeout.lab.training.checkpoint import load_checkpoint
from freezeout.storage.digests import is_sealed
from tests.lab.runs import Here

OLDER = Path(__file__).parents[2] / "files" / "v0.1.0"


def test_a_run_that_was_stopped_half_way_goes_on_to_its_end(tmp_path):
    folder = RunFolder(shutil.copytree(OLDER / "half", tmp_path / "run"))
    result = resume(folder)
    trainer = result.trainer
    assert trainer.scheduler.progress == 1.0
    assert trainer.scheduler.frozen == 4
    assert trainer.scheduler.freeze_steps == (60, 72, 85, 100, None)
    events = folder.read_log()
    whole = [json.loads(line) for line in (OLDER / "whole/log.jsonl").read_text().splitlines()]
    froze = [[e for e in log if e["event"] == "freeze"] for log in (events, whole)]
    assert froze[0] == froze[1]
    assert len(froze[0]) == 4


def test_a_finished_run_is_not_trained_again(tmp_path):
    folder = RunFolder(shutil.copytree(OLDER / "whole", tmp_path / "run"))
    before = folder.read_log()
    assert resume(folder).trainer.scheduler.progress == 1.0
    after = folder.read_log()
    assert before[-1]["event"] == "end"
    assert after[:-1] == before[:-1]  # nothing but the seconds of the end is written again
    assert len(after) == len(before)


def test_a_run_is_still_reported(tmp_path, capsys):
    record = read_run(OLDER / "whole")
    assert record.error == pytest.approx(
        json.loads((OLDER / "whole/summary.json").read_text())["test_error"]
    )
    assert main(["report", str(OLDER / "whole"), "--out", str(tmp_path / "page")]) == 0
    assert capsys.readouterr().err == ""
    assert "resnet-8-2" in (tmp_path / "page" / "report.html").read_text("utf-8")


def test_costs_and_plans_are_still_read():
    costs, plan = Costs.load(OLDER / "costs.json"), Plan.load(OLDER / "plan.json")
    assert plan.costs == costs
    assert 0 < plan.saving < 1


def test_a_run_that_was_killed_with_its_prediction_goes_on(tmp_path):
    folder = RunFolder(shutil.copytree(OLDER / "stopped", tmp_path / "run"))
    plan = folder.plan()
    assert load_checkpoint(folder.checkpoint)["step"] == 6
    assert [r["step"] for r in folder.read_log()] == [0, 2, 3, 3, 6, 6]
    assert folder.log_damage() == []
    result = resume(folder)
    assert result.plan == plan
    assert [r["epoch"] for r in folder.read_log() if r["event"] == "epoch"] == [1, 2, 3, 4]
    frozen = [(r["index"], r["step"]) for r in folder.read_log() if r["event"] == "freeze"]
    assert frozen == [(i, n) for i, n in enumerate(plan.freeze_steps[:-1])]
    # From here on everything has its digest.
    assert "# digest: " not in folder.settings_file.read_text()
    assert all("sum" in json.loads(line) for line in folder.log_file.read_text().splitlines())
    with folder.checkpoint.open("rb") as file:
        assert is_sealed(file)


def test_a_plan_of_then_is_followed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words = ["--model", "resnet-8-2", "--train-size", "48", "--batch-size", "16", "--threads", "1"]
    plan = OLDER / "stopped" / "plan.json"
    assert main(["train", *words, "--plan", str(plan), "--out", "run", "--device", "cpu"]) == 0
    assert RunFolder(Path("run")).settings().schedule == Plan.load(plan).schedule


def test_an_experiment_goes_on_with_the_data_and_costs_of_then(tmp_path):
    folder = shutil.copytree(OLDER / "experiment", tmp_path / "experiment")
    experiment = Experiment.load(folder)
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    assert experiment.run(Here())
    made = folder / "runs" / "resnet-8-2-on-digits" / "baseline" / "seed-0"
    assert read_run(made).finished
    before.pop(experiment.description)  # gets its digest
    for path, content in before.items():
        assert path.read_bytes() == content, path
    records, unread = read_runs([folder])
    assert (len(records), unread) == (4, [])
