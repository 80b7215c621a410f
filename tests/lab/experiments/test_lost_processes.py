"""What becomes of an experiment whose processes die, played by quick programs in their place."""

import os
import signal
import sys
import threading
from pathlib import Path

import pytest

from freezeout.errors import RunError
from freezeout.lab.experiments import Label, job
from freezeout.lab.experiments.job import Job, failure, record_failure
from freezeout.lab.experiments.runners import Task, process
from tests.lab.experiments.processes import read, wait_for
from tests.lab.experiments.small_experiments import Pretend, made, made_forecast, pool
from tests.lab.runs import small

pytestmark = pytest.mark.multiprocess

# Takes ten steps, one a turn, and notes each in its folder. In `deaths` there is a word for each
# start: when it is to die then.
PROGRAM = """
import json, os, signal, subprocess, sys, time
from pathlib import Path

def say(**message):
    print(json.dumps(message), flush=True)

def hear():
    line = sys.stdin.readline()
    if not line:
        note("stops")
        say(event="end", outcome="interrupted", error=None, reason="")
        sys.exit(3)
    return line

def note(name, word="x"):
    with (folder / name).open("a") as file:
        file.write(f"{word} ")

def die(number=signal.SIGKILL):
    os.kill(os.getpid(), number)
    time.sleep(600)

task = json.loads(sys.stdin.readline())
folder = Path(task["job"]["folder"])
folder.mkdir(parents=True, exist_ok=True)
count = lambda name: len((folder / name).read_text().split()) if (folder / name).exists() else 0
words = (folder / "deaths").read_text().split() if (folder / "deaths").exists() else []
death = (words + ["none"] * 9)[count("starts")]
note("starts", os.getpid())
if death == "starting":
    die()
if task["do"] == "measure":
    say(event="end", outcome="done", error=None, reason="")
    sys.exit(0)
while True:
    step = count("steps")
    said = {"event": "turn", "turn": 10 * step, "step": step, "total": 10, "error": None}
    if death == "speaking":
        sys.stdout.write(json.dumps(said)[:20])
        sys.stdout.flush()
        die()
    if step == 10:
        break
    if death == "leaving" and step:
        child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
        note("left", child.pid)
        die()
    say(**said)
    if death == "waiting" and step:
        die()
    hear()
    if death == "working" and step == 5:
        die()
    if death == "busy" and step == 5:
        note("busy", os.getpid())
        time.sleep(600)
    if death == "told":
        note("stops")
        say(event="end", outcome="interrupted", error=None, reason="")
        sys.exit(3)
    note("steps", step)
say(event="end", outcome="done", error=1.5, reason="")
if death == "lingering":
    time.sleep(600)
"""


@pytest.fixture(autouse=True)
def played(monkeypatch):
    """Quick programs in place of the processes."""
    monkeypatch.setattr(process, "_PROGRAM", (sys.executable, "-c", PROGRAM))


def task(folder, arm, *deaths, do="run"):
    """A task whose process dies so, each time that it is started."""
    place = folder / "runs" / "cell" / arm / "seed-0"
    place.mkdir(parents=True)
    (place / "deaths").write_text(" ".join(deaths))
    label = Label(cell="cell", arm=arm, kind="baseline")
    return Task(Job(folder=place, settings=small(threads=1), label=label), do)


def kinds(events, one):
    return [e.kind for e in events if e.task is one and e.kind != "turn"]


def steps(one):
    return read(one.job.folder / "steps").split()


def pids(one, name="starts"):
    return [int(word) for word in read(one.job.folder / name).split()]


def gone(pid):
    """Whether a process is no more, or only waits for its parent to look."""
    status = read(Path(f"/proc/{pid}/stat"))
    return not status or status.rpartition(")")[2].split()[0] == "Z"


DEATHS = ("starting", "working", "waiting", "speaking", "leaving", "told")


@pytest.mark.parametrize("death", DEATHS)
def test_a_process_that_is_lost_is_started_again_and_the_others_wait_for_it(tmp_path, death):
    events = []
    lost, other, third = (
        task(tmp_path, "lost", death),
        task(tmp_path, "other"),
        task(tmp_path, "third"),
    )
    runner = pool(tmp_path, events, processes=1)
    assert runner.run([[other, lost, third]])
    assert kinds(events, lost) == ["begin", "retry", "done"]
    for one in (other, third):
        assert kinds(events, one) == ["begin", "done"]
    for one in (lost, other, third):
        assert steps(one) == [str(step) for step in range(10)]  # none was done twice
        assert failure(one.job.folder) is None
        assert all(gone(pid) for pid in pids(one))
    retry = next(event for event in events if event.kind == "retry")
    told = "its process was told to stop by somebody else"
    assert retry.reason.startswith(told if death == "told" else "its process ended with signal 9; ")
    # They stayed together: none was ever further ahead than a turn.
    reached = {}
    for event in events:
        if event.kind == "turn":
            reached[event.task.job.label.arm] = event.step
            if len(reached) == 3:
                assert max(reached.values()) - min(reached.values()) <= 1
    for pid in pids(lost, "left"):  # what it had started went with it
        wait_for(lambda pid=pid: gone(pid))


@pytest.mark.parametrize("do", ["run", "measure"])
def test_one_that_is_lost_too_often_fails_in_words_and_the_others_go_on(tmp_path, do):
    events = []
    lost, other = task(tmp_path, "lost", *["starting"] * 3, do=do), task(tmp_path, "other")
    assert pool(tmp_path, events, retries=2).run([[lost], [other]])
    assert kinds(events, lost) == ["begin", "retry", "retry", "failed"]
    assert kinds(events, other) == ["begin", "done"]
    assert len(pids(lost)) == 3
    reason = failure(lost.job.folder)
    assert reason == events[[e.kind for e in events].index("failed")].reason
    assert reason.startswith("its process ended with signal 9; see ")


def test_a_measuring_process_that_dies_is_started_again(tmp_path):
    events = []
    lost = task(tmp_path, "measuring", "starting", do="measure")
    assert pool(tmp_path, events).run([[lost]])
    assert kinds(events, lost) == ["begin", "retry", "done"]
    assert len(pids(lost)) == 2


def test_without_measured_costs_a_sweep_goes_on_without_predictions(tmp_path, monkeypatch):
    monkeypatch.setattr(job, "forecast", made_forecast)

    class Unlucky(Pretend):
        def run(self, teams, *, deadline=None):
            for one in (one for team in teams for one in team):
                self.tasks.append(one)
                if one.do == "measure":
                    record_failure(one.job, "its process ended with signal 9")
            return True

    first, again = Unlucky(), Pretend()
    experiment = made(tmp_path)
    assert experiment.run(first)
    assert [one.do for one in first.tasks] == ["measure", "run", "run"]
    assert [one.job.plan for one in first.tasks if one.do == "run"] == [None, None]
    assert experiment.run(again)
    assert again.came[0] == "done"  # another start measures again
    assert failure(first.tasks[0].job.folder) is None
    assert all(one.job.plan is not None for one in again.tasks)


def test_a_process_that_does_not_end_after_its_last_word_is_ended(tmp_path, monkeypatch):
    monkeypatch.setattr(process, "_END", 0.3)
    events = []
    one = task(tmp_path, "one", "lingering")
    assert pool(tmp_path, events).run([[one]])
    assert kinds(events, one) == ["begin", "done"]
    assert gone(*pids(one))


@pytest.mark.parametrize("kind", ["begin", "turn"])
def test_a_stop_ends_all_of_a_team_wherever_they_are(tmp_path, kind):
    events = []
    team = [task(tmp_path, "a"), task(tmp_path, "b"), task(tmp_path, "c")]
    runner = pool(tmp_path, events, processes=1)

    def tell(event):
        events.append(event)
        if event.kind == kind and event.task is team[1] and event.step == (kind == "turn") * 4:
            os.kill(os.getpid(), signal.SIGTERM)
            assert runner._stop.wait(60)  # the main thread has it

    runner._tell = tell
    assert not runner.run([team])
    for one in team:
        assert kinds(events, one) == ["begin", "interrupted"]
        assert all(gone(pid) for pid in pids(one))
    events.clear()
    assert pool(tmp_path, events, processes=1).run([team])
    for one in team:
        assert kinds(events, one) == ["begin", "done"]
        assert steps(one) == [str(step) for step in range(10)]


def test_a_stop_while_all_processes_die_ends_without_a_word_of_failure(tmp_path):
    events = []
    team = [task(tmp_path, name) for name in "ab"]
    runner = pool(tmp_path, events, processes=1)

    def tell(event):
        events.append(event)
        if event.kind == "turn" and event.step == 3:
            for pid in {pid for one in team for pid in pids(one)}:
                os.kill(pid, signal.SIGKILL)
            runner._stop.set()

    runner._tell = tell
    assert not runner.run([team])
    assert all(kinds(events, one)[-1] == "interrupted" for one in team)
    assert all(failure(one.job.folder) is None for one in team)


def test_a_second_signal_leaves_no_process_behind(tmp_path):
    team = [task(tmp_path, "a"), task(tmp_path, "b", "busy")]
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    runner = pool(tmp_path, [], processes=1)

    def press_twice():
        wait_for(lambda: pids(team[1], "busy"))
        for _ in range(2):
            os.kill(os.getpid(), signal.SIGINT)
            assert runner._stop.wait(600)

    presses = threading.Thread(target=press_twice)
    presses.start()
    try:
        with pytest.raises(KeyboardInterrupt):
            runner.run([team])
    finally:
        presses.join()
        signal.signal(signal.SIGINT, before)
    for pid in {pid for one in team for pid in pids(one)}:
        wait_for(lambda pid=pid: gone(pid), seconds=60)


def test_a_process_that_cannot_be_started_is_told_in_a_line_and_none_is_left(tmp_path, monkeypatch):
    begun = []
    start = process.subprocess.Popen

    def popen(*words, **options):
        if len(begun) == 2:
            raise BlockingIOError(11, "Resource temporarily unavailable")
        begun.append(start(*words, **options))
        return begun[-1]

    monkeypatch.setattr(process.subprocess, "Popen", popen)
    with pytest.raises(RunError) as error:
        pool(tmp_path, [], processes=1).run([[task(tmp_path, name) for name in "abc"]])
    assert str(error.value).startswith("cannot start a process that prints into ")
    assert "c--seed-0.log: Resource temporarily unavailable. " in str(error.value)
    assert "\n" not in str(error.value)
    assert len(begun) == 2
    assert all(one.poll() is not None for one in begun)
