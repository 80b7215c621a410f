"""Processes on one machine: killed ones go on, each has its cores, signals end them."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from freezeout.lab.experiments import Pool, read_runs
from freezeout.lab.experiments.job import job_status
from freezeout.lab.experiments.runners import available_cores
from freezeout.lab.experiments.runners.local import slot_cores
from freezeout.lab.training import RunFolder, StopSignals, start
from freezeout.lab.training.checkpoint import load_checkpoint
from tests.lab.experiments.processes import children, first_epoch, read, wait_for
from tests.lab.experiments.small_experiments import VALUES, Pretend, made, pool
from tests.lab.runs import assert_same_end

pytestmark = pytest.mark.multiprocess


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


@pytest.mark.slow
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


@pytest.mark.slow
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


def test_a_deadline_stops_an_experiment(tmp_path):
    experiment = made(tmp_path, grid={"seed": [0]}, t0=1.0)
    events = []
    assert not experiment.run(pool(tmp_path, events), deadline=time.monotonic() - 1)
    assert "done" not in {e.kind for e in events}


@pytest.mark.slow
def test_runs_end_and_save_when_their_parent_is_killed(tmp_path):
    program = (
        "import sys; from pathlib import Path\n"
        "from freezeout.lab.experiments import Experiment, Grid, Pool\n"
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


def test_nothing_to_shorten_is_no_obstacle(killed_once):
    _, events, _ = killed_once
    assert {(e.task.do, e.task.job.label.kind) for e in events} == {("run", "baseline")}
    assert events[-1].kind == "done"
    assert job_status(events[0].task.job) == "done"


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
