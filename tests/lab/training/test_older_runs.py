"""What 0.1.0 left on disk before its files were moved is still read: runs, checkpoints, plans."""

import json
import shutil
from pathlib import Path

import pytest

from freezeout import Costs, Plan
from freezeout.lab.cli import main
from freezeout.lab.experiments import read_run
from freezeout.lab.training import RunFolder, resume

OLDER = Path(__file__).parent / "written_by_0_1_0"


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
