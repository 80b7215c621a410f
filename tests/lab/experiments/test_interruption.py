"""Experiments that are interrupted, with turns and an equal-time baseline, end in the same bits."""

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from freezeout.lab.experiments import Experiment, read_runs
from freezeout.lab.training import RunFolder
from freezeout.storage import is_part
from tests.lab.experiments.processes import read, wait_for
from tests.lab.experiments.small_experiments import TURNS, Pretend, give_costs, made
from tests.lab.runs import assert_same_end

pytestmark = [pytest.mark.multiprocess, pytest.mark.slow]

# Goes on with an experiment; does to its processes what it is told to, each at an event's number.
DRIVER = """
import json, os, signal, sys, threading
from pathlib import Path
from freezeout.lab.experiments import Experiment, Pool
from tests.lab.experiments.processes import children

signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background ignores it
folder, plan = Path(sys.argv[1]), json.loads(sys.argv[2])
count = 0

def tell(event):
    global count
    arm = event.task.job.label.arm
    print(json.dumps([event.kind, arm, event.step, children()]), flush=True)
    count += 1
    for word, number in plan.get(str(count), []):
        # While an event is told all wait for their turns; soon afterwards one is at work.
        threading.Timer(0.03, act, (word, number)).start() if word == "soon" else act(word, number)

def act(word, number):
    for pid in children()[: None if word == "all" else 1] if word != "driver" else ():
        os.kill(pid, number)
    if word in ("driver", "all"):
        os.kill(os.getpid(), number)

experiment = Experiment.load(folder)
pool = Pool(1, 1, folder / "logs", tell, retries=5)
sys.exit(0 if experiment.run(pool, say=lambda text: None) else 3)
"""

INT, TERM, KILL = int(signal.SIGINT), int(signal.SIGTERM), int(signal.SIGKILL)


def go_on(folder, **plan):
    """Go on with an experiment in another process; return its exit code and what it told."""
    words = {name.removeprefix("at_"): [what] for name, what in plan.items()}
    root = Path(__file__).parents[3]
    with (folder / "driver.log").open("a") as log:
        driver = subprocess.run(
            [sys.executable, "-c", DRIVER, str(folder), json.dumps(words)],
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            cwd=root,
            timeout=900,
        )
    events = [json.loads(line) for line in driver.stdout.splitlines()]
    return driver.returncode, events


def nothing_is_left(events):
    """Wait until no process that the driver has started is there any more."""
    for pid in {pid for *_, pids in events for pid in pids}:
        wait_for(lambda pid=pid: not ours(pid))


def ours(pid):
    return "freezeout.lab.experiments.runners.worker" in read(Path(f"/proc/{pid}/cmdline"))


def begun(folder):
    experiment = made(folder, arms=TURNS, grid={"seed": [0]})
    give_costs(experiment)
    return experiment


def runs(folder):
    return {path.parent.relative_to(folder) for path in folder.rglob("settings.toml")}


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("undisturbed")
    here = Pretend(runs=True)
    assert begun(folder).run(here)
    assert here.came == ["done"] * 4
    return folder


SCHEDULES = {
    "single processes are killed as they start, wait or work, and told to stop": (
        {
            "at_1": ("one", KILL),
            "at_9": ("one", KILL),
            "at_30": ("soon", KILL),
            "at_50": ("one", TERM),
            "at_77": ("soon", KILL),
        },
        {},
    ),
    "the driver is told to stop": ({"at_12": ("driver", INT)}, {"at_20": ("driver", TERM)}, {}),
    "the driver is killed, and the next at once": (
        {"at_10": ("driver", KILL)},
        {"at_17": ("driver", KILL)},
        {},
    ),
    "all are killed as they start, then as they work, then told to stop": (
        {"at_2": ("all", KILL)},
        {"at_25": ("all", KILL)},
        {"at_20": ("all", TERM)},
        {},
    ),
}


@pytest.mark.parametrize("name", SCHEDULES)
def test_whatever_happens_to_processes_the_results_have_the_same_bits(undisturbed, tmp_path, name):
    begun(tmp_path)
    told = []
    *disturbed, last = SCHEDULES[name]
    codes = []
    for plan in disturbed:
        code, events = go_on(tmp_path, **plan)
        codes.append(code)
        told += events
    if 0 not in codes:
        code, events = go_on(tmp_path, **last)
        told += events
        codes.append(code)
    assert codes.pop() == 0, read(tmp_path / "driver.log")
    assert set(codes) <= {3, -KILL}
    nothing_is_left(told)
    finished = [arm for kind, arm, *_ in told if kind == "done"]
    assert len(finished) == len(set(finished))  # none was done twice
    assert runs(tmp_path) == runs(undisturbed)
    assert len(runs(tmp_path)) == 4
    for place in runs(tmp_path):
        one, other = RunFolder(tmp_path / place), RunFolder(undisturbed / place)
        assert_same_end(one, other)
        assert summary(one) == summary(other)
        assert not (tmp_path / place / "failed.json").exists()
        events = [line["event"] for line in one.read_log()]
        assert events.count("start") == 1
        epochs = [line["epoch"] for line in one.read_log() if line["event"] == "epoch"]
        assert epochs == [line["epoch"] for line in other.read_log() if line["event"] == "epoch"]
    records, unread = read_runs([tmp_path])
    assert (len(records), unread) == (4, [])
    assert not any(map(is_part, tmp_path.rglob("*")))
    nothing = Pretend()
    assert Experiment.load(tmp_path).run(nothing)
    assert nothing.tasks == []


def summary(folder):
    values = json.loads(folder.summary_file.read_text())
    return {name: values[name] for name in ("test_error", "steps", "interrupted")}
