"""The benchmark of predicted savings at toy size: what it compares, counts and writes."""

import argparse
import itertools
import json
import statistics

import pytest
import torch

from benchmarks.prediction import results as prediction_results
from benchmarks.prediction import saving as bench
from freezeout import Costs, DivergenceError, Plan, Schedule
from freezeout.planning import paper_saving

# the command

QUICK = ["--quick", "--steps", "10", "--models", "resnet-8-4"]


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A quick run with all schedules and two repeats: its file and its status."""
    out = tmp_path_factory.mktemp("prediction") / "new" / "result.json"
    return out, bench.main([*QUICK, "--repeats", "2", "--out", str(out)])


def test_quick_run_writes_everything_down(finished):
    out, status = finished
    result = json.loads(out.read_text())
    assert not out.with_name(out.name + ".part").exists()
    assert set(result) == {
        "benchmark",
        "format",
        "date",
        "hardware",
        "versions",
        "settings",
        "repeats",
        "cells",
        "measuring",
        "shortcomings",
        "complete",
        "passed",
    }
    assert set(result["hardware"]) == {"cpu", "cores", "threads", "gpu", "load"}
    assert result["hardware"]["threads"] == 1
    assert set(result["hardware"]["load"]) == {"before", "after"}
    assert result["versions"]["torch"] == torch.__version__
    settings = result["settings"]
    assert (settings["data"], settings["steps"], settings["train_size"]) == ("digits", 10, 80)
    names = ["cubic:0.5", "cubic:0.8", "linear:0.5", "linear:0.8"]
    assert [one["schedule"] for one in settings["schedules"]] == names
    assert [(c["model"], c["schedule"]) for c in result["cells"]] == [
        ("resnet-8-4", name) for name in names
    ]
    failing = [cell for cell in result["cells"] if cell["verdict"] == "fails"]
    assert len(result["shortcomings"]) == len(failing)
    assert result["complete"]
    assert result["passed"] == (not failing)
    assert status == (0 if result["passed"] else 1)


def test_every_figure_follows_from_the_single_numbers(finished):
    result = json.loads(finished[0].read_text())
    assert [one["repeat"] for one in result["repeats"]] == [0, 1]
    assert [one["seed"] for one in result["repeats"]] == [0, 1]
    costs = [Costs.from_dict(one["costs"]) for one in result["repeats"]]
    assert costs[0] != costs[1]  # a fresh prediction each time
    for i, cell in enumerate(result["cells"]):
        schedule = Schedule(t0=cell["t0"], spacing=cell["spacing"])
        differences = []
        for cost, one in zip(costs, result["repeats"], strict=True):
            plan, got = Plan(cost, schedule, 10), one["schedules"][i]
            assert got["predicted"] == pytest.approx(plan.saving)
            assert got["interval"] == pytest.approx(plan.interval)
            assert got["steps_at_depth"] == list(plan.steps_at_depth)
            assert got["paper"] == cell["paper"]
            flops = [layer.forward_flops for layer in cost.layers]
            assert got["paper"] == paper_saving(flops, cell["t0"], spacing=cell["spacing"])
            steps, plain = got["step_microseconds"], one["unfrozen"]["step_microseconds"]
            assert len(steps) == len(plain) == 10
            assert got["seconds"] == pytest.approx(sum(steps) / 1e6, rel=1e-4)
            assert 1 - got["measured"] == pytest.approx(sum(steps) / sum(plain), rel=1e-3)
            smooth, begin = 0.0, 0
            for count in got["steps_at_depth"]:
                stretch = steps[begin : begin + count]
                smooth += count * statistics.median(stretch) if count else 0.0
                begin += count
            robust = smooth / (10 * statistics.median(plain))
            assert 1 - got["measured_robust"] == pytest.approx(robust, rel=1e-3)
            assert got["training_loss"] > 0
            differences.append(100 * (got["measured"] - got["predicted"]))
        assert cell["differences"] == differences
        assert cell["median_difference"] == pytest.approx(sum(differences) / 2)
    (measuring,) = result["measuring"]
    assert measuring["steps"] > 20  # more where the machine is noisy
    assert measuring["seconds"] > 0
    for one in result["repeats"]:
        step = statistics.median(one["unfrozen"]["step_microseconds"]) / 1e6
        ratio = one["measuring"]["seconds"] / step
        assert one["measuring"]["unfrozen_steps"] == pytest.approx(ratio, rel=1e-3)


def test_the_table_shows_every_cell(finished, capsys):
    result = json.loads(finished[0].read_text())
    bench.say_tables(result)
    printed = capsys.readouterr().out
    for cell in result["cells"]:
        (line,) = (row for row in printed.splitlines() if cell["schedule"] in row)
        for text in (
            f" {100 * cell['predicted']:.1f} ",
            f" {100 * cell['measured']:.1f} ",
            f" {100 * cell['measured_robust']:.1f} ",
            f" {100 * cell['paper']:.1f} ",
            f" {cell['median_difference']:+.2f} ",
            f" {cell['largest_difference']:+.2f} ",
            f" {cell['repeats_within']} of 2 ",
        ):
            assert text in line
        assert line.endswith(cell["verdict"])


# interrupting and resuming, with made-up measurements


class FakeRepeats:
    """Stands in for `measure_repeat`; counts calls, and stops the run at the given one."""

    def __init__(self, monkeypatch, real):
        self.real = json.loads(real.read_text())["repeats"][0]
        self.calls = []
        self.stop_at = None
        self.measured = 0.3
        monkeypatch.setattr(bench, "measure_repeat", self)

    def __call__(self, subject, model, repeat):
        if len(self.calls) == self.stop_at:
            raise DivergenceError(3, "training diverged")
        self.calls.append((model, repeat))
        made = [
            {**one, "predicted": 0.3, "measured": self.measured} for one in self.real["schedules"]
        ]
        return {**self.real, "model": model, "repeat": repeat, "schedules": made}


@pytest.fixture
def fake(monkeypatch, finished):
    return FakeRepeats(monkeypatch, finished[0])


BOTH = ["--quick", "--steps", "10", "--models", "resnet-8-4,wrn-10-1", "--repeats", "2"]


def test_an_interrupted_run_keeps_what_is_done_and_resumes_with_the_rest(fake, tmp_path, capsys):
    out = tmp_path / "result.json"
    fake.stop_at = 3
    with pytest.raises(SystemExit) as stopped:
        bench.main([*BOTH, "--out", str(out)])
    assert stopped.value.code == 2
    assert "training diverged" in capsys.readouterr().err
    result = json.loads(out.read_text())
    assert [(one["model"], one["repeat"]) for one in result["repeats"]] == fake.calls
    assert (result["complete"], result["passed"], len(result["cells"])) == (False, False, 8)
    assert result["shortcomings"] == []  # unfinished, so not passed
    done = fake.calls.copy()

    fake.calls.clear()
    fake.stop_at = None
    assert bench.main([*BOTH, "--out", str(out), "--resume"]) == 0
    assert fake.calls == [("wrn-10-1", 1)]
    assert capsys.readouterr().out.count("there already") == 3
    result = json.loads(out.read_text())
    pairs = [(one["model"], one["repeat"]) for one in result["repeats"]]
    assert pairs == [*done, *fake.calls]
    assert pairs == list(itertools.product(["resnet-8-4", "wrn-10-1"], range(2)))
    assert (result["complete"], result["passed"]) == (True, True)

    fake.calls.clear()
    assert bench.main([*BOTH, "--out", str(out), "--resume"]) == 0
    assert fake.calls == []
    bench.main([*BOTH, "--out", str(out)])  # without it, all again
    assert len(fake.calls) == 4


def test_pieces_may_add_networks_and_repeats(fake, tmp_path):
    out = ["--out", str(tmp_path / "result.json"), "--resume"]
    assert bench.main([*QUICK, *out]) == 0  # nothing there yet: a new run
    assert bench.main(["--quick", "--steps", "10", "--models", "wrn-10-1", *out]) == 0
    result = json.loads((tmp_path / "result.json").read_text())
    assert result["settings"]["models"] == ["resnet-8-4", "wrn-10-1"]
    assert len(result["cells"]) == 8
    # asked for two of one network, the file wants two of both
    assert bench.main([*QUICK, "--repeats", "2", *out]) == 1
    result = json.loads((tmp_path / "result.json").read_text())
    assert (result["complete"], result["passed"], result["shortcomings"]) == (False, False, [])
    assert bench.main([*BOTH, *out]) == 0
    assert len(fake.calls) == len(set(fake.calls)) == 4
    assert bench.main([*QUICK, "--repeats", "1", *out]) == 0  # fewer than there are: none is lost
    result = json.loads((tmp_path / "result.json").read_text())
    assert (result["settings"]["repeats"], len(result["repeats"])) == (2, 4)


def test_a_failing_cell_fails_the_run_and_is_said(fake, tmp_path, capsys):
    fake.measured = 0.2
    assert bench.main([*QUICK, "--out", str(tmp_path / "result.json")]) == 1
    printed = capsys.readouterr().out
    assert printed.count("not met: resnet-8-4, ") == 4
    assert "\n4 not met.\n" in printed
    fake.measured = 0.28
    assert bench.main([*QUICK, "--out", str(tmp_path / "result.json")]) == 0
    assert "\nEvery bar holds.\n" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--batch-size", "4"], "the settings of the results there is"),
        (["--schedules", "cubic:0.5"], "the settings of the results there is"),
        (["--seed", "5"], "the settings of the results there is"),
    ],
)
def test_results_made_otherwise_are_not_gone_on_with(fake, finished, arguments, message, capsys):
    before = finished[0].read_text()
    with pytest.raises(SystemExit) as stopped:
        bench.main([*QUICK, "--out", str(finished[0]), "--resume", *arguments])
    assert stopped.value.code == 2
    assert message in last_line(capsys)
    assert finished[0].read_text() == before
    assert fake.calls == []


def test_results_of_another_machine_are_not_gone_on_with(fake, finished, tmp_path, capsys):
    result = json.loads(finished[0].read_text())
    result["hardware"]["cpu"] = "another"
    out = tmp_path / "result.json"
    out.write_text(json.dumps(result))
    with pytest.raises(SystemExit):
        bench.main([*QUICK, "--out", str(out), "--resume"])
    assert "--resume: the hardware of the results there is" in last_line(capsys)
    for text in ("{", "[]", '{"benchmark": "step_cost"}'):
        out.write_text(text)
        with pytest.raises(SystemExit):
            bench.main([*QUICK, "--out", str(out), "--resume"])
        assert f"--resume cannot read {out}" in last_line(capsys)
    assert fake.calls == []


# options


def last_line(capsys):
    """The one line that says what is wrong, after the usage."""
    lines = capsys.readouterr().err.splitlines()
    assert sum("error: " in line for line in lines) == 1
    return lines[-1].partition("error: ")[2]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--schedules", "cubic"], "must be spacing:t0 with commas"),
        (["--schedules", "cubic:1"], "The run without freezing is always there"),
        (["--schedules", "cubic:0.5,cubed:0.5"], "got 'cubed:0.5'"),
        (["--steps", "0"], "must be at least 1, got 0"),
        (["--repeats", "-1"], "must be at least 1, got -1"),
        (["--batch-size", "1"], "at least 2 images"),
        (["--models", "nonsense"], "nonsense"),
        (["--models", "resnet-8-4,,wrn-10-1"], "''"),
        (["--data", "nonsense"], "nonsense"),
        (["--seed", "-1"], "seed must be at least 0, got -1"),
        (["--resume"], "--resume needs --out with --quick"),
        (["--device", "tpu"], "invalid choice: 'tpu'"),
    ],
)
def test_wrong_arguments_are_refused_in_one_line(fake, arguments, message, capsys):
    with pytest.raises(SystemExit) as stopped:
        bench.main([*QUICK, *arguments])
    assert stopped.value.code == 2
    assert message in last_line(capsys)
    assert fake.calls == []


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there_is_refused(fake, capsys):
    with pytest.raises(SystemExit):
        bench.main([*QUICK, "--device", "cuda"])
    assert "device 'cuda' is not there" in last_line(capsys)


def test_schedules_are_read_in_order_and_once():
    found = bench.parse_schedules("linear:0.8, cubic:.5,cubic:0.50")
    assert found == (Schedule(t0=0.8, spacing="linear"), Schedule(t0=0.5, spacing="cubic"))
    assert all(schedule.scaled for schedule in found)
    with pytest.raises(argparse.ArgumentTypeError):
        bench.parse_schedules("")


def test_defaults_are_those_of_the_question():
    assert bench.FULL["models"].split(",") == [
        "wrn-16-2",
        "densenet-22-12",
        "vgg11-32",
        "resnet-20",
    ]
    given = bench.arguments().parse_args([])
    assert [(s.spacing, s.t0) for s in given.schedules] == [
        ("cubic", 0.5),
        ("cubic", 0.8),
        ("linear", 0.5),
        ("linear", 0.8),
    ]
    assert (given.device, given.threads, given.resume) == ("cpu", 1, False)
    assert prediction_results.BAR == 3.0
