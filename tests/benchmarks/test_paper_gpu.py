"""The benchmark at the paper's scale, at toy size: its pieces, its folders, what they say."""

import csv
import itertools
import json
import shutil
from types import SimpleNamespace

import pytest
import torch

from benchmarks.paper import gpu
from freezeout.errors import FreezeOutError
from freezeout.lab.cli import experiments as carry_out
from freezeout.lab.evidence import compare, comparison_rows
from freezeout.lab.experiments import Event, Experiment, read_runs, run_job
from freezeout.lab.experiments.job import failure, measure_job
from freezeout.lab.training import Settings
from freezeout.storage import write_json

TOY = {"data": "digits", "train_size": 100, "lr": 0.02, "epochs": 3, "threads": 1}
CELLS = {
    "toy": {**TOY, "model": "resnet-8-4"},
    "other": {**TOY, "model": "wrn-10-1"},
    "wild": {**TOY, "model": "resnet-8-4", "lr": 1e30},
    "nonsense": {**TOY, "model": "nonsense"},
}
TOY_NAME = "resnet-8-4 on digits"
OTHER_NAME = "wrn-10-1 on digits"
ARMS = ["baseline", "cubic:0.8", "cubic:0.8 equal time"]


class Here:
    """Stands for the pool of a sweep: does tasks in this process, up to a number; notes which."""

    def __init__(self, most=99):
        self.most = most
        self.asked = []
        self.did = []

    def __call__(self, processes, threads, logs, tell):
        self.asked.append((processes, threads))
        self.tell = tell
        return self

    def run(self, teams, *, deadline=None):
        for task in itertools.chain(*teams):
            if task.do == "measure":
                try:
                    measure_job(task.job)
                except FreezeOutError as error:
                    self.tell(Event(task, "failed", reason=str(error)))
                continue
            if len(self.did) == self.most:
                return False
            self.did.append((task.job.label.cell, task.job.label.arm, task.job.settings.seed))
            outcome = run_job(task.job)
            self.tell(Event(task, outcome, reason=failure(task.job.folder) or ""))
        return True


class Place:
    """The folder of the benchmark, and calls of it there."""

    def __init__(self, folder):
        self.out = folder / "out"

    def call(self, *more, pool, cells="toy"):
        words = ["--out", str(self.out), "--cells", cells, "--device", "cpu", *more]
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(carry_out, "Pool", pool)
            return gpu.main(words, cells=CELLS)

    def runs(self):
        records, _ = gpu.finished_runs([self.out])
        return {(one.cell, one.arm, one.seed) for one in records.values()}


def no_pool(*arguments):
    """Make a pool, which an experiment has before it looks at what is left; it may not be run."""
    return SimpleNamespace(run=lambda *_, **__: pytest.fail("there is nothing to run"))


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


@pytest.fixture
def copied(finished, tmp_path):
    """A copy of the two cells as it is taken to another machine: without what is large."""
    place = Place(tmp_path)
    shutil.copytree(finished[0].out, place.out, ignore=shutil.ignore_patterns("*.pt"))
    return place


# pieces


def test_cells_and_seeds_come_in_the_order_asked_for(finished):
    place, here = finished
    assert [cell for cell, _, _ in here.did] == [OTHER_NAME] * 6 + [TOY_NAME] * 6
    assert [seed for _, _, seed in here.did] == [0, 0, 0, 1, 1, 1] * 2
    assert set(here.did) == place.runs()
    assert len(set(here.did)) == 12
    assert {arm for _, arm, _ in here.did} == set(ARMS)
    assert not list(place.out.rglob("checkpoint.pt"))  # a hundred megabytes each at full size
    assert not list(finished[0].out.glob("*/runs/**/failed.json"))


def test_a_copy_without_large_files_has_all_that_is_finished(finished, copied, capsys):
    large = sum(file.stat().st_size for file in finished[0].out.rglob("*.pt"))
    assert large > 10_000
    assert copied.runs() == finished[0].runs()
    here = Here()
    assert copied.call("--seeds", "2", pool=here, cells="other,toy") == 0
    assert here.did == []
    assert copied.call("--seeds", "3", pool=here) == 0  # only the seed that is new
    assert here.did == [(TOY_NAME, arm, 2) for _, arm, _ in here.did]
    assert {arm for _, arm, _ in here.did} == set(ARMS)
    kept = Experiment.load(copied.out / "toy")
    (cell,) = kept.grid.cells
    before = Experiment.load(finished[0].out / "toy").plan_file(cell)
    assert kept.plan_file(cell).read_bytes() == before.read_bytes()  # and nothing measured again


def test_pieces_go_on_where_the_last_one_was_stopped(place, capsys):
    first = Here(most=2)
    assert place.call("--seeds", "1", pool=first, cells="toy,other") == gpu.STOPPED
    assert "stopped, all saved" in capsys.readouterr().out
    assert place.runs() == set(first.did)
    assert len(first.did) == 2
    rest = Here()
    assert place.call("--seeds", "1", pool=rest, cells="toy,other") == 0
    assert "2 of 3 runs are done" in capsys.readouterr().out
    assert len(rest.did) == 4  # none of them again
    assert {*first.did, *rest.did} == place.runs()
    assert place.call("--seeds", "1", pool=no_pool, cells="toy,other") == 0


def test_minutes_are_of_the_whole_piece_and_leave_time_to_save(place, monkeypatch):
    asked = []
    now = [0.0]

    def sweep(words):
        asked.append(float(words[words.index("--minutes") + 1]))
        now[0] += 250.0
        return 0

    monkeypatch.setattr(gpu, "freezeout", sweep)
    monkeypatch.setattr(gpu.time, "monotonic", lambda: now[0])
    assert place.call(pool=no_pool, cells="toy,other,wild") == gpu.STOPPED
    assert asked == pytest.approx([9 - gpu.MARGIN, 9 - gpu.MARGIN - 250 / 60])
    asked.clear()
    assert place.call("--minutes", "0.4", pool=no_pool, cells="toy,other") == gpu.STOPPED
    assert asked == pytest.approx([0.3])


def test_a_piece_that_is_stopped_begins_no_other_cell(place, monkeypatch):
    asked = []
    monkeypatch.setattr(gpu, "freezeout", lambda words: asked.append(words) or gpu.STOPPED)
    assert place.call("--retry", pool=no_pool, cells="toy,other") == gpu.STOPPED
    (words,) = asked
    assert "--drop-checkpoints" in words
    assert words[-3:] == ["--device", "cpu", "--retry"]  # options of sweep are passed on


def test_smaller_budgets_are_other_cells_of_the_same_folder(place):
    here = Here()
    assert place.call("--seeds", "1", pool=here) == 0
    smaller = ["--epochs", "2", "--batch-size", "25", "--precision", "bf16"]
    assert place.call("--seeds", "1", *smaller, "--processes", "2", pool=here) == 0
    name = f"{TOY_NAME}, epochs=2, batch_size=25, precision=bf16"
    assert {cell for cell, _, _ in place.runs()} == {TOY_NAME, name}
    assert here.asked[-1] == (2, 1)
    records, _ = gpu.finished_runs([place.out])
    (one,) = (r for r in records.values() if r.cell == name and r.arm == "baseline")
    assert (one.epochs, one.precision) == (2, "bf16")


def test_the_protocol_is_the_papers(tmp_path, monkeypatch):
    names = []
    monkeypatch.setattr("freezeout.lab.training.preparation.pick_device", lambda name: name)
    monkeypatch.setattr(Experiment, "run", lambda self, *_, **__: names.append(self.grid) or True)
    monkeypatch.setattr(Experiment, "done", lambda self: self.grid.size)
    assert gpu.main(["--out", str(tmp_path), "--data-dir", str(tmp_path)]) == 0
    for grid in names:
        (cell,) = grid.cells
        settings = cell.settings
        assert (settings.batch_size, settings.epochs, settings.lr) == (50, 100, 0.1)
        assert (settings.optimizer, settings.nesterov, settings.momentum) == ("sgd", True, 0.9)
        assert (settings.weight_decay, settings.precision) == (1e-4, "fp32")
        assert (settings.train_size, settings.evaluate_every) == (None, 10)
        assert settings.device == "cuda"
        (variant,) = grid.variants
        assert variant.name == "cubic:0.8"
        assert grid.turns
        assert grid.size == 9
    cells = [grid.cells[0].name for grid in names]
    assert cells[:3] == ["wrn-40-4 on cifar100", "densenet-76-12 on cifar10", "vgg16 on cifar100"]
    assert len(set(cells)) == 6


def test_a_cell_that_fails_does_not_hold_up_the_others(place, capsys):
    here = Here()
    assert place.call("--seeds", "1", pool=here, cells="wild,toy") == 2
    assert "3 runs failed" in capsys.readouterr().err
    assert place.runs() == {(TOY_NAME, arm, 0) for arm in ARMS}
    here.did.clear()
    assert place.call("--seeds", "1", pool=here, cells="wild") == 2
    assert here.did == []
    assert place.call("--seeds", "1", "--retry", pool=here, cells="wild") == 2
    assert len(here.did) == 3


def test_a_cell_that_cannot_be_measured_does_not_hold_up_the_others(place, capsys):
    assert place.call("--seeds", "1", pool=Here(), cells="nonsense,toy") == 2
    assert "no training step could be measured" in capsys.readouterr().err
    assert place.runs() == {(TOY_NAME, arm, 0) for arm in ARMS}


def test_what_cannot_begin_is_said_once(place, capsys):
    assert place.call("--lr", "much", pool=no_pool, cells="toy,other") == 2
    assert capsys.readouterr().err.count("error: ") == 1
    (place.out / "toy").mkdir()
    (place.out / "toy" / "letter.txt").write_text("")
    assert place.call(pool=no_pool, cells="toy,other") == 2
    assert capsys.readouterr().err.count("is not empty and holds no experiment") == 1


# together


def test_summaries_are_the_comparison_of_the_run_folders(finished, copied, tmp_path, capsys):
    records, unread = read_runs([finished[0].out])
    assert not unread
    wanted = {one.cell: one for one in compare(records)}
    shutil.rmtree(next(copied.out.glob("toy/runs/*/cubic-0.8/seed-1")))
    out = tmp_path / "new" / "paper.json"
    both = [str(finished[0].out), str(copied.out)]
    assert gpu.main(["--summarise", *both, "--results", str(out)]) == 0
    printed = capsys.readouterr().out
    assert "12 runs; 11 not finished or there already" in printed
    for one in wanted.values():
        assert one.verdicts[0].sentence in printed

    result = json.loads(out.read_text())
    assert set(result) == {"benchmark", "format", "date", "places", "comparisons", "runs"}
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


def test_a_run_in_a_summary_has_what_made_it(finished, tmp_path):
    out = tmp_path / "paper.json"
    assert gpu.main(["--summarise", str(finished[0].out), "--results", str(out)]) == 0
    result = json.loads(out.read_text())
    assert str(finished[0].out) not in out.read_text()
    for run in result["runs"]:
        assert run["finished"]
        assert run["steps"] == run["total_steps"]
        assert run["tested"][-1]["step"] == run["steps"]
        assert 0 <= run["tested"][-1]["error"] <= 100
        assert set(run).isdisjoint({"rates", "rate_steps", "step_times", "memory", "layer_names"})
        depths = [depth for depth, _ in run["step_seconds"]]
        assert depths[0] == 0
        assert (len(depths) > 1) == (run["kind"] == "variant")
        assert run["settings"]["seed"] == run["seed"]
        assert Settings.from_dict(run["settings"]).epochs == 3
        place = result["places"][run["place"]]
        assert place["torch"] == torch.__version__
        assert place["device"] == "CPU, 1 thread"


def test_of_a_run_that_is_there_twice_the_first_counts(finished, copied):
    summary = next(copied.out.glob("toy/runs/*/baseline/seed-0/summary.json"))
    values = json.loads(summary.read_text())
    write_json(summary, {**values, "train_seconds": 1e6})
    both = [finished[0].out, copied.out]
    first, twice = gpu.finished_runs(both)
    assert (len(first), twice) == (12, 12)
    assert max(one.train_seconds for one in first.values()) < 1e6
    second, _ = gpu.finished_runs(both[::-1])
    assert max(one.train_seconds for one in second.values()) == 1e6


# options


def last_line(capsys):
    """The one line that says what is wrong, after the usage."""
    lines = capsys.readouterr().err.splitlines()
    assert sum("error: " in line for line in lines) == 1
    return lines[-1].partition("error: ")[2]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--cells", "toy,none"], "out of toy, other, wild, nonsense, got 'none'"),
        (["--seeds", "0"], "must be at least 1, got 0"),
        (["--epochs", "-1"], "must be at least 1, got -1"),
        (["--minutes", "0"], "must be above 0 and finite, got 0"),
        (["--minutes", "nan"], "must be above 0 and finite, got nan"),
        (["--summarise", "a", "--retry"], "--summarise runs nothing: leave out --retry"),
        (["--summarise", "a", "--results", "a.csv"], "--results must end with .json, got a.csv"),
        (["--summarise", "nowhere"], "no finished run in nowhere"),
    ],
)
def test_wrong_arguments_are_refused_in_one_line(arguments, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as stopped:
        gpu.main(arguments, cells=CELLS)
    assert stopped.value.code == 2
    assert message in last_line(capsys)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--processes", "0"], "--processes must lie in 1 to 1024, got 0"),
        (["--precision", "fp8"], "precision must be one of"),
        (["--epochs", "9999999"], "epochs must be at most 1e+06"),
        (["--data", "cifar10", "--data-dir", "."], "cifar"),
    ],
)
def test_what_sweep_refuses_is_said_in_one_line(arguments, message, place, capsys):
    assert place.call(*arguments, pool=no_pool) == 2
    assert message in last_line(capsys)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there_is_refused(tmp_path, capsys):
    assert gpu.main(["--out", str(tmp_path)]) == 2
    assert "device 'cuda' is not there" in last_line(capsys)


def test_a_damaged_run_is_named(copied, capsys):
    next(copied.out.glob("toy/runs/*/baseline/seed-0/settings.toml")).write_text("{")
    with pytest.raises(SystemExit):
        gpu.main(["--summarise", str(copied.out), "--results", str(copied.out / "new.json")])
    assert "settings.toml" in last_line(capsys)
    assert not (copied.out / "new.json").exists()


def test_an_unfinished_run_without_its_checkpoint_begins_again(copied):
    folder = next(copied.out.glob("toy/runs/*/cubic-0.8/seed-1"))
    begun = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    (folder / "summary.json").unlink()
    here = Here()
    assert copied.call("--seeds", "2", pool=here) == 0
    assert here.did == [(TOY_NAME, "cubic:0.8", 1)]
    again = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    assert [one["event"] for one in again] == [one["event"] for one in begun]
    assert [one.get("test_error") for one in again] == [one.get("test_error") for one in begun]
