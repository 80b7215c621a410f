"""The process of a run: it hears when it is to go on, and when nobody is there any more."""

import json
import os
import subprocess
import sys
import threading

import pytest

from freezeout.lab.experiments import job as job_module
from freezeout.lab.experiments.job import failure, job_status
from freezeout.lab.experiments.runners import worker
from freezeout.lab.experiments.runners.worker import _Line, _Turns, _work
from freezeout.lab.locks import FolderLock
from freezeout.lab.training import RunFolder, start
from tests.lab.experiments.processes import wait_for
from tests.lab.experiments.small_experiments import job
from tests.lab.runs import assert_same_end, train


@pytest.fixture
def pipe():
    """Both ends of a line; the outer one can be closed to cut it."""
    inner, outer = os.pipe()
    with os.fdopen(outer, "w") as end:
        yield inner, end
    os.close(inner)


@pytest.fixture
def ended(monkeypatch):
    """Set in place of the end of this process."""
    event = threading.Event()
    monkeypatch.setattr(worker.os, "_exit", lambda code: event.set() if code == 3 else None)
    return event


class Played:
    """A line that says what to do, is cut after so many turns, and keeps what it is told."""

    def __init__(self, task=None, *, turns=10**9):
        self.task = task
        self.turns = turns
        self.told = []

    @property
    def is_cut(self):
        return self.turns <= 0

    def first(self):
        return json.dumps(self.task)

    def tell(self, **message):
        self.told.append(message)

    def wait(self):
        self.turns -= 1

    def end_when_cut(self):
        pass


def test_it_goes_on_as_often_as_it_is_told_and_hears_that_the_line_is_cut(pipe):
    inner, end = pipe
    end.write('{"do": "run"}\ngo\n')
    end.flush()
    line = _Line(inner, sys.stdout)
    assert line.first() == '{"do": "run"}'
    line.wait()
    went_on = threading.Event()
    threading.Thread(target=lambda: (line.wait(), went_on.set()), daemon=True).start()
    assert not went_on.wait(0.05)
    assert not line.is_cut
    end.close()
    assert went_on.wait(600)
    assert line.is_cut
    line.wait()  # nobody waits any more


@pytest.mark.parametrize("first", ["cut", "ask"])
def test_what_has_nothing_to_save_ends_when_the_line_is_cut_before_or_after(pipe, ended, first):
    inner, end = pipe
    end.write("{}\n")
    end.flush()
    line = _Line(inner, sys.stdout)
    line.first()
    if first == "ask":
        line.end_when_cut()
        assert not ended.is_set()
    end.close()
    wait_for(lambda: line.is_cut)
    if first == "cut":
        assert not ended.is_set()
        line.end_when_cut()
    assert ended.wait(600)


@pytest.mark.multiprocess
def test_a_process_that_is_told_nothing_says_so_in_a_line():
    ran = subprocess.run(
        [sys.executable, "-m", "freezeout.lab.experiments.runners.worker"],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
    )
    assert (ran.returncode, ran.stdout) == (3, "")
    assert ran.stderr == "nothing was said: this program is started by freezeout sweep.\n"


@pytest.mark.parametrize("turns", [1, 2, 6])
def test_a_run_whose_line_is_cut_saves_and_ends_and_goes_on_to_the_same_bits(tmp_path, turns):
    cut = job(tmp_path / "cut")
    line = Played({"do": "run", "job": cut.to_dict()}, turns=turns)
    assert _work(line) == 3
    assert line.told[-1]["outcome"] == "interrupted"
    assert len(line.told) == turns + 1
    assert job_status(cut) == "unfinished"
    rest = Played({"do": "run", "job": cut.to_dict()})
    assert _work(rest) == 0
    assert rest.told[0]["step"] == line.told[-2]["step"] + 1  # after the step under way
    assert_same_end(RunFolder(cut.folder), train(tmp_path / "whole", threads=1))


def test_a_run_that_another_process_holds_is_not_waited_for_once_the_line_is_cut(tmp_path):
    held = job(tmp_path / "held")
    line = Played({"do": "run", "job": held.to_dict()}, turns=0)
    with FolderLock(held.folder, beside=True):
        assert _work(line) == 3
    assert line.told == [{"event": "end", "outcome": "interrupted", "error": None, "reason": ""}]
    assert job_status(held) == "new"


def test_a_run_that_another_process_does_not_let_go_of_fails_in_words(tmp_path, monkeypatch):
    monkeypatch.setattr(job_module, "PATIENCE", 0.0)
    held = job(tmp_path / "held")
    line = Played({"do": "run", "job": held.to_dict()})
    with FolderLock(held.folder, beside=True):
        assert _work(line) == 1
    (told,) = line.told
    assert told["outcome"] == "failed"
    assert f"is in use by process {os.getpid()} on " in told["reason"]
    assert told["reason"] == failure(held.folder)


@pytest.mark.parametrize("do", ["run", "measure"])
def test_a_defect_is_recorded_with_its_trace_whatever_is_done(tmp_path, monkeypatch, do):
    def broken(*_, **__):
        raise ZeroDivisionError("oh\nno")

    monkeypatch.setattr(job_module, "_precise_forecast", broken)
    monkeypatch.setattr(job_module, "start", broken)
    bad = job(tmp_path / "bad")
    values = {**bad.to_dict(), "plan": str(tmp_path / "plan.json")}
    line = Played(
        {"do": do, "job": {**values, "plan": values["plan"] if do == "measure" else None}}
    )
    assert _work(line) == 1
    record = json.loads((bad.folder / "failed.json").read_text())
    assert "ZeroDivisionError: oh" in record["reason"]
    assert "in broken" in record["traceback"]
    assert line.told[-1]["outcome"] == "failed"
    assert ("its step cannot be measured: " in record["reason"]) == (do == "measure")


def test_a_run_asks_only_once_to_be_stopped(tmp_path, monkeypatch):
    killed = []
    monkeypatch.setattr(worker.os, "kill", lambda pid, number: killed.append(number))
    start(job(tmp_path).settings, RunFolder(tmp_path / "run"), (_Turns(Played(turns=2)),))
    assert killed == [worker.signal.SIGTERM]
