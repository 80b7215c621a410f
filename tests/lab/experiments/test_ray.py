"""Runs on a real Ray cluster: the same bits as here, whatever is killed on the way."""

import io
import json
import math
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import redirect_stderr
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from filelock import FileLock

from freezeout.errors import RunError
from freezeout.lab.cli import main
from freezeout.lab.cli.experiments import pinned
from freezeout.lab.experiments import Experiment, Grid
from freezeout.lab.experiments.runners import RayPool, ray_cluster
from freezeout.lab.experiments.runners import ray as remote
from freezeout.lab.training import RunFolder
from tests.lab.runs import SMALL, Here, assert_same_end, train

pytest.importorskip("ray", reason="needs Ray: pip install 'freezeout[ray]'")
pytestmark = pytest.mark.multiprocess

VALUES = {**SMALL, "threads": 1, "train_size": 160, "t0": 1.0}  # ten steps an epoch
LONG = {**VALUES, "epochs": 30}

# The cluster lives in a process of its own: a head that does no work, and two machines of one CPU.
CLUSTER = """
import os
import sys
from ray.cluster_utils import Cluster

own = os.path.join(os.environ["RAY_TMPDIR"], "ray")
os.mkdir(own)  # Ray expects the folder in which it notes the address

small = {"object_store_memory": 80_000_000, "include_dashboard": False}
cluster = Cluster(True, head_node_args={**small, "num_cpus": 0, "temp_dir": own})
nodes = [cluster.add_node(**small, num_cpus=1) for _ in range(2)]
nodes = {node.node_id: node for node in nodes}
print(cluster.address, *nodes, flush=True)
for line in sys.stdin:  # machines to end at once
    cluster.remove_node(nodes.pop(line.strip()), allow_graceful=False)
cluster.shutdown()
"""


@dataclass
class RunningCluster:
    address: str
    nodes: set[str]
    process: Any

    def kill_node(self, node):
        self.nodes.remove(node)
        self.process.stdin.write(node + "\n")
        self.process.stdin.flush()


@pytest.fixture(scope="module")
def cluster():
    folder = tempfile.mkdtemp(prefix="fz-ray-")  # pytest's own are too long for a socket's name
    log = Path(folder, "cluster.log")
    with (
        log.open("w") as errors,
        subprocess.Popen(
            [sys.executable, "-c", CLUSTER],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            env={**os.environ, "RAY_TMPDIR": folder},
        ) as process,
    ):
        address, *nodes = process.stdout.readline().split() or ["none"]
        assert len(nodes) == 2, log.read_text()
        yield RunningCluster(address, set(nodes), process)
        process.stdin.close()
        process.wait(600)
    shutil.rmtree(folder, ignore_errors=True)


def ray_pool(address, folder, tell, **options):
    """A pool at an address that is known to be good."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(remote, "check_address", lambda address: None)
        return RayPool(address, options.pop("threads", 1), folder / "logs", tell, **options)


def made(folder, **values):
    return Experiment(folder, pinned(Grid.from_dict({**VALUES, **values}, "test")))


def journal(folder):
    return [json.loads(line) for line in (folder / "logs" / "ray.jsonl").read_text().splitlines()]


def runs(folder):
    return {path.parent.relative_to(folder) for path in folder.rglob("settings.toml")}


def children(pid):
    return [
        int(child)
        for file in Path(f"/proc/{pid}/task").glob("*/children")
        for child in file.read_text().split()
    ]


# --- The same as here --------------------------------------------------------------------------


@pytest.fixture(scope="module")
def swept(cluster, tmp_path_factory):
    """One sweep file, once on the cluster from the command line, and once in this process."""
    folder = tmp_path_factory.mktemp("swept")
    file = folder / "small.toml"
    top = {**VALUES, "t0": 0.6}
    lines = [f"{name} = {json.dumps(value)}" for name, value in top.items()]
    file.write_text("\n".join([*lines, "[grid]", "seed = [0, 1]"]))
    command = [sys.executable, "-m", "freezeout", "sweep", "small.toml", "--out", "there"]
    ran = subprocess.run(
        [*command, "--ray", cluster.address], cwd=folder, capture_output=True, text=True
    )
    here = Experiment(folder / "here", pinned(Grid.load(file)))
    assert here.run(Here())
    return SimpleNamespace(ran=ran, there=folder / "there", here=here.folder)


@pytest.mark.slow
def test_the_command_shows_the_runs_and_nothing_of_ray(swept):
    assert (swept.ran.returncode, swept.ran.stderr) == (0, "")
    # A busy machine spoils the costs that are measured, and that is said, too.
    lines = [line for line in swept.ran.stdout.splitlines() if "spoilt costs" not in line]
    assert lines[:3] == [
        "preparing digits",
        "measuring what a training step costs",
        "0 of 4 runs are done",
    ]
    done = sorted(line.partition("] ")[2].partition(": error ")[0] for line in lines[3:7])
    assert done == [
        f"resnet-8-8 on digits, {arm}, seed {seed}"
        for arm in ("baseline", "cubic:0.6")
        for seed in range(2)
    ]
    assert "INFO" not in swept.ran.stdout


@pytest.mark.slow
def test_every_run_ends_with_the_bits_that_it_has_here(swept):
    assert len(runs(swept.here)) == 4
    assert runs(swept.there) == runs(swept.here)
    for run in runs(swept.here):
        assert_same_end(RunFolder(swept.there / run), RunFolder(swept.here / run))
        assert (swept.there / run / "arm.json").read_text() == (
            swept.here / run / "arm.json"
        ).read_text()


@pytest.mark.slow
def test_all_machines_work_and_it_is_noted_which_did_what(swept, cluster):
    ends = [line for line in journal(swept.there) if line["event"] == "end"]
    assert [line["do"] for line in ends] == ["measure"] + 4 * ["run"]
    assert {line["node"] for line in ends} == cluster.nodes
    assert {line["outcome"] for line in ends} == {"done"}
    assert {Path(line["run"]) for line in ends[1:]} == runs(swept.there)


@pytest.mark.slow
def test_nothing_stays_behind_but_what_is_documented(swept):
    assert not [path.name for path in (swept.there / "logs").iterdir() if path.name[0] == "."]
    assert sorted(p.name for p in swept.there.iterdir() if p.name[0] != ".") == sorted(
        [
            *(p.name for p in swept.here.iterdir() if p.name[0] != "."),
            *("comparison.csv", "logs"),
        ]
    )


# --- Whatever is killed ------------------------------------------------------------------------

WHOLE, PROCESS, TASK, MACHINE, DYING, DIVERGING = 0.1, 0.11, 0.12, 0.13, 0.14, 1e25


@pytest.fixture(scope="module")
def disturbed(cluster, tmp_path_factory):
    """Long runs told apart by their rates. All but the first meet with something."""
    folder = tmp_path_factory.mktemp("disturbed")
    rates = [PROCESS, TASK, DYING, DIVERGING, MACHINE, WHOLE]
    experiment = made(folder, **{**LONG, "grid": {"lr": rates}})
    events: dict[float, list[Any]] = {rate: [] for rate in rates}
    killed = set()

    def tell(event):
        rate = event.task.job.settings.lr
        events[rate].append(event)
        tries = 1 + sum(e.kind == "retry" for e in events[rate])
        due = 20 if tries == 1 else 60  # once the second epoch has been saved
        if event.kind != "turn" or event.step < due or (rate, tries) in killed:
            return
        if tries == 1 or rate == DYING:
            killed.add((rate, tries))
            kill(rate, next(x for x in reversed(journal(folder)) if ours(x, event)))

    def ours(line, event):
        return line["event"] == "begin" and folder / line["run"] == event.task.job.folder

    def kill(rate, where):
        if rate == MACHINE:
            cluster.kill_node(where["node"])
        elif rate == TASK:
            os.kill(where["pid"], signal.SIGKILL)
        elif rate in (PROCESS, DYING):
            (child,) = children(where["pid"])
            os.kill(child, signal.SIGKILL)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(remote, "_POLL", 0.05)  # so that it is soon known how far a run is
        assert experiment.run(ray_pool(cluster.address, folder, tell))
    return SimpleNamespace(folder=folder, events=events)


def kinds(events):
    return [event.kind for event in events if event.kind != "turn"]


def after_retry(events):
    return [e.step for e in events[kinds_index(events, "retry") :] if e.kind == "turn"]


def kinds_index(events, kind):
    return [event.kind for event in events].index(kind)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("rate", "reason"),
    [
        (PROCESS, "its process ended with signal 9; see "),
        (TASK, "its process or machine was lost (worker crashed error)"),
        (MACHINE, "its process or machine was lost ("),
    ],
    ids=["process", "task", "machine"],
)
def test_a_killed_run_goes_on_from_its_last_checkpoint_to_the_same_bits(
    disturbed, rate, reason, tmp_path
):
    events = disturbed.events[rate]
    assert kinds(events) == ["begin", "retry", "done"]
    retry = events[kinds_index(events, "retry")]
    assert retry.reason.startswith(reason)
    steps = after_retry(events)
    assert steps[0] >= 20  # not from the beginning
    job = retry.task.job
    log = [json.loads(line) for line in (job.folder / "log.jsonl").read_text().splitlines()]
    assert [line["event"] for line in log].count("start") == 1
    again = train(tmp_path / "again", **{**LONG, "lr": rate, "seed": 0})
    assert_same_end(RunFolder(job.folder), again)


@pytest.mark.slow
def test_a_run_that_nothing_happens_to_is_not_begun_twice(disturbed):
    events = disturbed.events[WHOLE]
    assert kinds(events) == ["begin", "done"]
    steps = [event.step for event in events if event.kind == "turn"]
    assert steps == sorted(steps)
    assert (steps[-1], events[-2].total) == (300, 300)


@pytest.mark.slow
def test_a_run_that_dies_too_often_fails_and_the_others_finish(disturbed):
    events = disturbed.events[DYING]
    assert kinds(events) == ["begin", "retry", "failed"]
    reason = events[-1].reason
    assert reason.startswith("its process ended with signal 9")
    assert json.loads((events[-1].task.job.folder / "failed.json").read_text())["reason"] == reason


@pytest.mark.slow
def test_a_run_that_fails_by_itself_is_not_tried_again(disturbed):
    events = disturbed.events[DIVERGING]
    assert kinds(events) == ["begin", "failed"]
    assert "training diverged" in events[-1].reason
    run = events[-1].task.job.folder
    tries = [x for x in journal(disturbed.folder) if disturbed.folder / x["run"] == run]
    assert [line["event"] for line in tries] == ["begin", "end"]


# --- Stops -------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_stopped_experiment_goes_on_to_the_same_bits(cluster, tmp_path, monkeypatch):
    folder = tmp_path / "stopped"
    clock = SimpleNamespace(monotonic=time.monotonic, time=time.time)
    monkeypatch.setattr(remote, "time", clock)
    monkeypatch.setattr(remote, "_POLL", 0.05)
    events = []

    def tell(event):
        events.append(event)
        if event.kind == "turn" and event.step and not stops:
            stops.append(event.step)
            stop()

    def late():
        clock.monotonic = lambda: math.inf  # past any deadline

    stops, stop = [], late
    deadline = time.monotonic() + 1e6
    many = made(folder, **{**LONG, "grid": {"seed": [0, 1, 2, 3]}})
    assert not many.run(ray_pool(cluster.address, folder, tell), deadline=deadline)
    begun = {event.task.job.folder for event in events if event.kind == "begin"}
    assert 1 <= len(begun) <= 2  # as many as there are machines
    assert {e.task.job.folder for e in events if e.kind == "interrupted"} == begun
    assert runs(folder) == {run.relative_to(folder) for run in begun}
    for run in begun:
        last = json.loads((run / "log.jsonl").read_text().splitlines()[-1])
        assert (last["event"], last["finished"]) == ("end", False)
    clock.monotonic = time.monotonic

    seed = min(event.task.job.settings.seed for event in events if event.kind == "begin")
    one = made(folder, **LONG, seed=seed, grid={"seed": [seed]})
    before = max(e.step for e in events if e.kind == "turn" and e.task.job.settings.seed == seed)
    events.clear()

    stops, stop = [], lambda: os.kill(os.getpid(), signal.SIGTERM)
    handler = signal.getsignal(signal.SIGTERM)
    assert not one.run(ray_pool(cluster.address, folder, tell))
    assert signal.getsignal(signal.SIGTERM) == handler
    assert kinds(events) == ["begin", "interrupted"]
    assert stops[0] >= before  # it went on where it had been stopped

    events.clear()
    assert one.run(ray_pool(cluster.address, folder, tell))  # stops only once
    assert kinds(events) == ["begin", "done"]
    assert events[1].step >= stops[0]
    run = events[0].task.job.folder
    assert_same_end(RunFolder(run), train(tmp_path / "again", **LONG, seed=seed))


@pytest.mark.parametrize("address", ["a..b:1", f"localhost:{'9' * 5000}", "localhost:99999"])
def test_an_address_that_cannot_be_has_nobody_who_listens(address):
    assert ray_cluster._silence(address)


@pytest.mark.slow
def test_a_lost_cluster_is_told_and_the_same_command_goes_on(cluster, tmp_path, monkeypatch):
    """It is played: a cluster that is really gone would be gone for the other tests."""
    monkeypatch.setattr(remote, "_POLL", 0.05)
    monkeypatch.setattr(ray_cluster, "_LOST", 0.5)
    events, again = [], []

    def tell(event):
        events.append(event)
        if event.kind == "turn" and event.step >= 10:
            monkeypatch.setattr(ray_cluster, "_silence", lambda address: "Connection refused")

    experiment = made(tmp_path, **LONG)
    reason = r"no answer for 0\.5 seconds: Connection refused"
    with pytest.raises(RunError, match=rf"^the Ray cluster at \S+ was lost \({reason}\)\. Start"):
        experiment.run(ray_pool(cluster.address, tmp_path, tell))
    monkeypatch.undo()
    assert experiment.run(ray_pool(cluster.address, tmp_path, again.append))
    assert kinds(again) == ["begin", "done"]
    assert again[1].step >= 10


# --- What cannot work --------------------------------------------------------------------------


@pytest.mark.slow
def test_a_run_that_another_process_holds_fails_in_time(cluster, tmp_path, monkeypatch):
    monkeypatch.setattr(remote, "PATIENCE", 1.0)
    events = []
    experiment = made(tmp_path)
    run = tmp_path / "runs" / "resnet-8-8-on-digits" / "baseline" / "seed-0"
    experiment.save()
    run.parent.mkdir(parents=True)
    with FileLock(run.with_name(".seed-0.lock")):
        assert experiment.run(ray_pool(cluster.address, tmp_path, events.append))
    assert kinds(events) == ["failed"]
    assert events[0].reason.startswith("another process has held it for 1 seconds")
    assert json.loads((run / "failed.json").read_text())["reason"] == events[0].reason


@pytest.mark.slow
def test_a_machine_that_does_not_see_the_folder_ends_the_sweep(cluster, tmp_path, monkeypatch):
    monkeypatch.setattr(remote, "_VISIBLE", 1.0)
    events = []
    experiment = made(tmp_path / "sweep")
    number = os.open(tmp_path, os.O_RDONLY)  # a path that leads elsewhere in another process
    try:
        unshared = ray_pool(
            cluster.address, Path(f"/proc/self/fd/{number}") / "sweep", events.append
        )
        with pytest.raises(
            RunError, match=r"does not see .*fd/\d+/sweep\. Give a folder with --out"
        ):
            experiment.run(unshared)
    finally:
        os.close(number)
    assert events == []
    assert not list(tmp_path.rglob("failed.json"))


@pytest.mark.slow
def test_a_run_for_which_no_machine_is_large_enough_is_refused(cluster, tmp_path):
    with pytest.raises(RunError, match="a run takes 3 CPUs, but no machine of the Ray cluster has"):
        made(tmp_path).run(ray_pool(cluster.address, tmp_path, print, threads=3))


@pytest.mark.parametrize(
    ("address", "says"),
    [
        ("nonsense", "'nonsense' is not an address of a Ray cluster. Give what `ray start --head`"),
        ("redis://127.0.0.1:1", "is not an address of a Ray cluster"),
        ("127.0.0.1:{port}", "there is no Ray cluster at 127.0.0.1:{port} (Connection refused)"),
        ("ray://127.0.0.1:{port}", "(Connection refused). Give what"),
        ("127.0.0.1:99999", "there is no Ray cluster at 127.0.0.1:99999 ("),
        ("127.0.0.1:{deaf}", "there is no Ray cluster at 127.0.0.1:{deaf} (no answer in 4 "),
    ],
)
def test_a_bad_address_is_told_in_a_line(address, says, tmp_path, monkeypatch):
    monkeypatch.setattr(ray_cluster, "_ANSWER", 4.0)
    text = io.StringIO()
    with socket.create_server(("127.0.0.1", 0)) as deaf, socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))  # nobody listens there, and nobody else can
        names = {"port": closed.getsockname()[1], "deaf": deaf.getsockname()[1]}
        address = address.format(**names)
        file = tmp_path / "small.toml"
        file.write_text('model = "resnet-8-8"')
        words = ["sweep", str(file), "--out", str(tmp_path / "out"), "--ray", address]
        with redirect_stderr(text):
            assert main(words) == 2
    assert says.format(**names) in text.getvalue()
    assert text.getvalue().count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_ray_that_is_not_installed_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(RunError, match=r"not installed. Run: pip install 'freezeout\[ray\]'"):
        RayPool("auto", 1, tmp_path, print)


@pytest.mark.parametrize(("name", "values"), [("threads", (0, 1)), ("retries", (1, -1))])
def test_numbers_are_checked(name, values, tmp_path):
    with pytest.raises(ValueError, match=f"{name} must be at least"):
        RayPool("auto", values[0], tmp_path, print, retries=values[1])
