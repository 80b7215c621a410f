"""The benchmark at the paper's scale, at toy size: pieces, the file of results, what it says."""

import csv
import importlib.util
import itertools
import json
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from freezeout.errors import FreezeOutError
from freezeout.evidence import compare, comparison_rows
from freezeout.experiments import pool as pools
from freezeout.experiments.job import failure, measure_job, run_job
from freezeout.experiments.pool import Event, Pool
from freezeout.experiments.records import read_runs

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


def load(name):
    """A benchmark's module; one that is there already is taken, as other tests hold its classes."""
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, BENCHMARKS / f"{name}.py")
        sys.modules[name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules[name])
    return sys.modules[name]


load("machine")
paper_results = load("paper_results")
paper_runs = load("paper_runs")
paper_piece = load("paper_piece")
bench = load("paper_gpu")

TOY = {"data": "digits", "train_size": 100, "lr": 0.02, "epochs": 3}
CELLS = {
    "toy": {**TOY, "model": "resnet-8-4"},
    "other": {**TOY, "model": "wrn-10-1"},
    "wild": {**TOY, "model": "resnet-8-4", "lr": 1e30},
    "nonsense": {**TOY, "model": "nonsense"},
}
TOY_NAME = "resnet-8-4 on digits, train_size=100, 3 epochs, lr=0.02"
OTHER_NAME = TOY_NAME.replace("resnet-8-4", "wrn-10-1")
ARMS = ["baseline", "cubic:0.8", "cubic:0.8 equal time"]


class Here:
    """Does all tasks at once and in this process; notes which, and until when it had time."""

    def __init__(self):
        self.asked = []
        self.did = []
        self.deadline = None

    def __call__(self, processes, threads, logs, tell):
        self.asked.append((processes, threads, logs))
        self.tell = tell
        return self

    def run(self, teams, *, deadline=None):
        self.deadline = deadline
        for task in itertools.chain(*teams):
            if task.do == "measure":
                try:
                    measure_job(task.job)
                except FreezeOutError as error:
                    self.tell(Event(task, "failed", reason=str(error)))
                continue
            self.did.append((task.job.label.cell, task.job.label.arm, task.job.settings.seed))
            outcome = run_job(task.job)
            self.tell(Event(task, outcome, reason=failure(task.job.folder) or ""))
        return True


def no_pool(*arguments):
    pytest.fail("there is nothing to run")


class Place:
    """Folders of one experiment, and calls of the benchmark in them."""

    def __init__(self, folder):
        self.folder = folder
        self.state = folder / "state"
        self.results = folder / "state.jsonl"

    def call(self, *more, pool, cells="toy"):
        places = ["--data-dir", str(self.folder), "--state", str(self.state), "--device", "cpu"]
        return bench.main([*places, "--cells", cells, *more], cells=CELLS, pool=pool)

    def lines(self):
        return self.results.read_text().splitlines()

    def runs(self):
        found = [json.loads(line)["run"] for line in self.lines()]
        return [(run["cell"], run["arm"], run["seed"]) for run in found]


@pytest.fixture
def place(tmp_path):
    return Place(tmp_path)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """Two cells with two seeds, finished in one piece; what was run, in order."""
    place = Place(tmp_path_factory.mktemp("paper"))
    here = Here()
    assert place.call("--seeds", "2", pool=here, cells="other,toy") == 0
    return place, here


# pieces


class Clock:
    """The pool's clock, which can be set forward; knows when that has been noticed."""

    def __init__(self):
        self.ahead = 0.0
        self.reads = 0

    def monotonic(self):
        self.reads += 1
        return time.monotonic() + self.ahead

    def pass_deadline(self):
        self.ahead, before, begun = 1e6, self.reads, time.monotonic()
        # the first look stops the pool, the second one is after it
        while self.reads < before + 2 and time.monotonic() < begun + 20:
            time.sleep(0.01)


@pytest.mark.multiprocess
def test_pieces_go_on_where_the_last_one_was_stopped(place, monkeypatch, capsys):
    assert place.call("--seeds", "1", pool=Here()) == 0
    first = place.lines()
    assert len(first) == 3

    clock = Clock()
    monkeypatch.setattr(pools, "time", SimpleNamespace(sleep=time.sleep, monotonic=clock.monotonic))

    def stopped_midway(processes, threads, logs, tell):
        def watched(event):
            tell(event)
            if event.kind == "turn" and event.step >= event.total / 2 and not clock.ahead:
                clock.pass_deadline()

        return Pool(processes, threads, logs, watched)

    capsys.readouterr()
    assert place.call("--seeds", "2", pool=stopped_midway) == 0
    assert clock.ahead
    assert place.lines() == first  # nothing was finished, so nothing came to it
    printed = capsys.readouterr().out
    assert f"{TOY_NAME}: 3 of 6 runs done" in printed
    assert "3 runs left: about " in printed
    logs = [list((place.state / "runs").rglob(f"seed-{seed}/log.jsonl")) for seed in (0, 1)]
    assert [len(found) for found in logs] == [3, 3]
    half = {path: path.read_text().splitlines()[0] for path in logs[1]}

    clock.ahead = 0.0
    assert place.call("--seeds", "2", pool=Here()) == 0
    assert place.lines()[:3] == first
    assert sorted(place.runs()) == [(TOY_NAME, arm, seed) for arm in ARMS for seed in range(2)]
    for path, start in half.items():  # they went on, and did not begin anew
        events = [json.loads(line)["event"] for line in path.read_text().splitlines()]
        assert path.read_text().splitlines()[0] == start
        assert events.count("start") == 1
    assert "Nothing is left to do." in capsys.readouterr().out

    done = place.lines()
    assert place.call("--seeds", "2", pool=no_pool) == 0
    assert place.lines() == done


def test_cells_and_seeds_come_in_the_order_asked_for(finished):
    place, here = finished
    assert [cell for cell, _, _ in here.did] == [OTHER_NAME] * 6 + [TOY_NAME] * 6
    assert [seed for _, _, seed in here.did] == [0, 0, 0, 1, 1, 1] * 2
    assert here.did == place.runs()
    assert len(set(here.did)) == 12
    assert {arm for _, arm, _ in here.did} == set(ARMS)
    assert here.asked == [(1, 1, place.state / "logs")] * 2


def test_a_piece_ends_before_its_time_is_over(place):
    here = Here()
    before = time.monotonic()
    place.call("--seeds", "1", "--minutes", "9", pool=here)
    assert 0 <= here.deadline - (before + 60 * 9 - paper_piece.MARGIN) < 10
    before = time.monotonic()
    place.call("--seeds", "2", "--minutes", "0.4", pool=here)
    assert 0 <= here.deadline - (before + 0.75 * 24) < 10


def test_without_time_nothing_is_begun(place, capsys):
    assert place.call("--seeds", "1", "--minutes", "1e-9", pool=no_pool) == 0
    printed = capsys.readouterr().out
    assert "3 runs left. This piece did not get on: give more --minutes than 1e-09." in printed
    assert "its steps are not measured yet" in printed
    assert not place.results.exists()


def test_the_file_of_results_alone_tells_what_is_done(finished, place):
    place.results.write_text(finished[0].results.read_text())
    assert place.call("--seeds", "2", pool=no_pool) == 0
    here = Here()
    assert place.call("--seeds", "3", pool=here) == 0  # only the seed that is new
    assert here.did == place.runs()[12:]
    assert {(cell, seed) for cell, _, seed in here.did} == {(TOY_NAME, 2)}


def test_a_lost_file_of_results_is_written_again_from_the_folders(finished):
    place, _ = finished
    before, here = sorted(place.runs()), Here()
    kept = place.results.read_text()
    place.results.unlink()
    assert place.call("--seeds", "2", pool=here, cells="toy,other") == 0
    assert here.did == []
    assert sorted(place.runs()) == before
    place.results.write_text(kept)


def test_smaller_budgets_are_other_cells_of_the_same_folder(place):
    place.call("--seeds", "1", pool=Here())
    smaller = ["--epochs", "2", "--batch-size", "25", "--precision", "bf16"]
    here = Here()
    assert place.call("--seeds", "1", *smaller, "--processes", "2", pool=here) == 0
    name = "resnet-8-4 on digits, train_size=100, 2 epochs, batch 25, lr=0.02, bf16"
    assert {cell for cell, _, _ in place.runs()} == {TOY_NAME, name}
    entry = json.loads(place.lines()[-1])
    assert (entry["settings"]["epochs"], entry["settings"]["batch_size"]) == (2, 25)
    assert (entry["settings"]["precision"], entry["processes"]) == ("bf16", 2)
    assert here.asked[0][:2] == (2, 1)


def test_the_protocol_is_the_papers_and_needs_no_name(tmp_path):
    names = []
    for values in bench.CELLS.values():
        part = paper_runs.make_part(values, {"device": "cuda"}, 3, tmp_path, set())
        settings = part.cell.settings
        assert (settings.batch_size, settings.epochs, settings.lr) == (50, 100, 0.1)
        assert (settings.optimizer, settings.nesterov, settings.momentum) == ("sgd", True, 0.9)
        assert (settings.weight_decay, settings.precision) == (1e-4, "fp32")
        assert (settings.train_size, settings.evaluate_every) == (None, 10)
        (variant,) = part.experiment.grid.variants
        assert variant.name == "cubic:0.8"
        assert part.experiment.grid.turns
        assert part.experiment.grid.size == 9
        names.append(part.cell.name)
    assert names[:3] == ["wrn-40-4 on cifar100", "densenet-76-12 on cifar10", "vgg16 on cifar100"]
    assert len(set(names)) == 6


# failures


def test_failed_runs_are_said_and_tried_again_only_when_asked(place, capsys):
    assert place.call("--seeds", "1", pool=Here(), cells="wild,toy") == 1
    printed = capsys.readouterr().out
    assert "0 of 3 runs done, 3 failed" in printed
    assert printed.count("\nfailed: ") == 3
    assert "Nothing is left to do." in printed
    assert {cell for cell, _, _ in place.runs()} == {TOY_NAME}  # the others go on
    here = Here()
    assert place.call("--seeds", "1", pool=here, cells="wild") == 1
    assert here.did == []
    assert place.call("--seeds", "1", "--retry", pool=here, cells="wild") == 1
    assert len(here.did) == 3


def test_a_step_that_cannot_be_measured_is_said(place, capsys):
    assert place.call("--seeds", "1", pool=Here(), cells="nonsense,toy") == 1
    printed = capsys.readouterr().out
    assert "failed: nonsense on digits, train_size=100, 3 epochs, lr=0.02 cannot be" in printed
    assert "3 runs could not be begun." in printed
    assert len(place.lines()) == 3


# how much is left


def at(done, left, *, runs=6, finished=0, each=10.0):
    return paper_runs.Standing(
        cell="c",
        runs=runs,
        done=finished,
        seconds_done=done,
        seconds_left=left,
        run_seconds=None if left is None else each,
    )


def test_pieces_left_follow_from_what_the_last_one_got_done():
    assert paper_runs.pieces_left([at(0, 60)], [at(20, 40)]) == 2
    assert paper_runs.pieces_left([at(20, 40)], [at(39, 21)]) == 2  # begun ones count
    assert paper_runs.pieces_left([at(0, 60), at(0, 60)], [at(20, 40), at(0, 60)]) == 5
    # one that was measured by the piece itself
    assert paper_runs.pieces_left([at(0, None)], [at(20, 40)]) == 2
    # one that is not: six runs of ten seconds
    assert paper_runs.pieces_left([at(0, 60)], [at(20, 40), at(0, None)]) == 5
    assert paper_runs.pieces_left([at(20, 40)], [at(20, 40)]) is None
    assert paper_runs.pieces_left([at(0, None)], [at(0, None)]) is None


# results


def test_a_result_has_what_comparisons_need_and_where_it_was_made(finished):
    place, _ = finished
    for line in place.lines():
        entry = json.loads(line)
        assert set(entry) == {
            "benchmark",
            "format",
            "date",
            "run",
            "step_seconds",
            "settings",
            "processes",
            "hardware",
            "versions",
        }
        run = entry["run"]
        assert run["finished"]
        assert run["steps"] == run["total_steps"]
        assert 0 <= run["tested"][-1][2] <= 100
        assert run["tested"][-1][0] == run["steps"]
        assert set(run).isdisjoint({"rates", "rate_steps", "step_times", "memory", "layer_names"})
        depths = [depth for depth, _ in entry["step_seconds"]]
        assert depths[0] == 0
        assert (len(depths) > 1) == (run["kind"] == "variant")
        assert entry["hardware"]["threads"] == 1
        assert entry["versions"]["torch"] == torch.__version__
        assert str(place.folder) not in line


def test_summaries_are_the_comparison_of_the_run_folders(finished, tmp_path, capsys):
    place, _ = finished
    records, unread = read_runs([place.state / "runs"])
    assert not unread
    wanted = {one.cell: one for one in compare(records)}

    lines = place.lines()
    (tmp_path / "a").write_text("".join(f"{line}\n" for line in lines[:8]))
    (tmp_path / "b").write_text("".join(f"{line}\n" for line in lines[5:]))
    out = tmp_path / "new" / "paper.json"
    files = [str(tmp_path / "a"), str(tmp_path / "b")]
    assert bench.main(["--summarise", *files, "--out", str(out)]) == 0
    printed = capsys.readouterr().out
    assert "12 runs; 3 more left out that were there already" in printed
    for one in wanted.values():
        assert one.verdicts[0].sentence in " ".join(printed.split())

    result = json.loads(out.read_text())
    assert [one["cell"] for one in result["comparisons"]] == [OTHER_NAME, TOY_NAME]
    assert len(result["runs"]) == 12
    assert len(result["places"]) == 1
    assert {run["place"] for run in result["runs"]} == {0}
    with out.with_suffix(".csv").open() as file:
        table = list(csv.DictReader(file))
    by_arm = {(row["cell"], row["arm"]): row for row in table}
    assert len(table) == len(by_arm) == 6
    for one in result["comparisons"]:
        columns, rows = comparison_rows(wanted[one["cell"]])
        there = {arm["arm"]: arm for arm in one["arms"]}
        assert len(there) == 3
        for row in rows:
            arm = dict(zip(columns, row, strict=True))
            for name, value in arm.items():
                found = there[arm["arm"]][name]
                assert found == (pytest.approx(value) if isinstance(value, float) else value)
                text = by_arm[arm["cell"], arm["arm"]][name]
                assert text == ("" if there[arm["arm"]][name] is None else str(found))


def test_of_a_run_that_is_there_twice_the_first_counts(finished):
    first = [json.loads(line) for line in finished[0].lines()]
    second = json.loads(json.dumps(first))
    second[0]["run"]["tested"][-1][2] = 99.0
    entries, dropped = paper_results.merged([first, second])
    assert entries == first
    assert dropped == 12


# options


def last_line(capsys):
    """The one line that says what is wrong, after the usage."""
    lines = capsys.readouterr().err.splitlines()
    assert sum("error: " in line for line in lines) == 1
    return lines[-1].partition("error: ")[2]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "give --data-dir"),
        (["--data-dir", "nowhere"], "--data-dir must be a folder, got nowhere"),
        (["--data-dir", ".", "--cells", "toy,none"], "out of toy, other, wild, nonsense, got 'no"),
        (["--data-dir", ".", "--seeds", "0"], "must be at least 1, got 0"),
        (["--data-dir", ".", "--epochs", "-1"], "must be at least 1, got -1"),
        (["--data-dir", ".", "--processes", "0"], "must be at least 1, got 0"),
        (["--data-dir", ".", "--minutes", "0"], "must be above 0 and finite, got 0"),
        (["--data-dir", ".", "--minutes", "nan"], "must be above 0 and finite, got nan"),
        (["--data-dir", ".", "--precision", "fp8"], "invalid choice: 'fp8'"),
        (["--data-dir", ".", "--epochs", "9999999"], "epochs must be at most 1e+06"),
        (["--data-dir", ".", "--out", "a.json"], "--out belongs to --summarise"),
        (["--data-dir", ".", "--summarise", "a"], "needs no --data-dir"),
        (["--summarise", "a", "--out", "a.csv"], "--out must end with .json, got a.csv"),
        (["--summarise", "nowhere"], "cannot read nowhere: No such file"),
    ],
)
def test_wrong_arguments_are_refused_in_one_line(arguments, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as stopped:
        bench.main(["--device", "cpu", *arguments], cells=CELLS, pool=no_pool)
    assert stopped.value.code == 2
    assert message in last_line(capsys)
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there_is_refused(tmp_path, capsys):
    with pytest.raises(SystemExit) as stopped:
        bench.main(["--data-dir", str(tmp_path)], pool=no_pool)
    assert stopped.value.code == 2
    assert "device 'cuda' is not there" in last_line(capsys)


@pytest.mark.parametrize("text", ["{", "[]", "{}", '{"benchmark": "paper_gpu", "format": 1}', "3"])
def test_files_of_something_else_are_left_alone(place, finished, text, capsys):
    line = finished[0].lines()[0]
    place.results.write_text(f"{line}\n{text}\n")
    with pytest.raises(SystemExit) as stopped:
        place.call(pool=no_pool)
    assert stopped.value.code == 2
    assert f"line 2 of {place.results} is no finished run" in last_line(capsys)
    assert place.results.read_text() == f"{line}\n{text}\n"
    with pytest.raises(SystemExit):
        bench.main(["--summarise", str(place.results), "--out", str(place.folder / "o.json")])
    assert "line 2 of" in last_line(capsys)
    assert not (place.folder / "o.json").exists()


def test_a_folder_of_something_else_is_left_alone(place, capsys):
    place.state.mkdir()
    (place.state / "letter.txt").write_text("")
    with pytest.raises(SystemExit) as stopped:
        place.call(pool=no_pool)
    assert stopped.value.code == 2
    assert "--state must be a new folder or that of an earlier piece" in last_line(capsys)


def test_results_without_a_run_are_no_comparison(tmp_path, capsys):
    (tmp_path / "empty").write_text("")
    with pytest.raises(SystemExit) as stopped:
        bench.main(["--summarise", str(tmp_path / "empty"), "--out", str(tmp_path / "o.json")])
    assert stopped.value.code == 2
    assert "no finished run in" in last_line(capsys)


def test_data_that_cannot_be_read_is_said_in_one_line(place, monkeypatch, capsys):
    cells = {"images": {"model": "resnet-8-4", "data": "cifar10", "epochs": 1}}
    (place.folder / "cifar-10-batches-py").mkdir()
    (place.folder / "cifar-10-batches-py" / "data_batch_1").write_text("damaged")
    arguments = ["--data-dir", str(place.folder), "--state", str(place.state), "--device", "cpu"]
    with pytest.raises(SystemExit) as stopped:
        bench.main(arguments, cells=cells, pool=no_pool_but_named)
    assert stopped.value.code == 2
    assert "cifar-10-batches-py" in last_line(capsys)


def no_pool_but_named(*arguments):
    """A pool is made before the data are read, but never run."""
    return SimpleNamespace(run=no_pool)
