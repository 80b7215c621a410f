"""The benchmark of predicted savings at toy size: what it compares, counts and writes."""

import argparse
import gc
import importlib.util
import itertools
import json
import statistics
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from freezeout import Costs, DivergenceError, Plan, Schedule, data
from freezeout.paper_estimate import paper_saving
from freezeout.training import Settings

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


def load(name):
    """A benchmark's module; one that is there already is taken, as other tests hold its classes."""
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, BENCHMARKS / f"{name}.py")
        sys.modules[name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules[name])
    return sys.modules[name]


for needed in ("by_hand", "held", "machine", "steps"):
    load(needed)
prediction_results = load("prediction_results")
prediction_runs = load("prediction_runs")
bench = load("predicted_saving")


# arithmetic


def test_saving_is_one_minus_the_ratio_of_sums():
    assert prediction_results.saving([4.0, 4.0, 1.0, 1.0], [4.0, 4.0, 8.0, 4.0]) == 0.5
    assert prediction_results.saving([3.0], [2.0]) == -0.5
    with pytest.raises(RuntimeError, match="as many steps"):
        prediction_results.saving([1.0], [1.0, 1.0])


def test_smoothing_puts_medians_of_a_depth_in_place_of_single_steps():
    seconds = [2.0, 90.0, 3.0, 1.0, 1.5, 7.0]
    smoothed = prediction_results.smoothed(seconds, [0, 0, 0, 1, 1, 3])
    assert smoothed == [3.0, 3.0, 3.0, 1.25, 1.25, 7.0]
    # a depth counts as a whole, wherever its steps are
    assert prediction_results.smoothed([1.0, 9.0, 5.0, 2.0], [0, 1, 0, 0]) == [2.0, 9.0, 2.0, 2.0]


@pytest.mark.parametrize(
    ("difference", "verdict"),
    [(0.0, "holds"), (3.0, "holds"), (-3.0, "holds"), (3.01, "fails"), (-3.01, "fails")],
)
def test_verdict_is_against_three_points_either_way(difference, verdict):
    assert prediction_results.judge(difference) == verdict


def outcome(predicted, measured, robust):
    return {
        "predicted": predicted,
        "interval": [predicted - 0.01, predicted + 0.01],
        "measured": measured,
        "measured_robust": robust,
        "paper": 0.4,
    }


CUBIC = {"schedule": "cubic:0.5", "spacing": "cubic", "t0": 0.5}


def test_a_cell_is_judged_by_the_median_of_the_differences_within_repeats():
    found = [outcome(0.30, 0.32, 0.31), outcome(0.20, 0.12, 0.20), outcome(0.40, 0.41, 0.60)]
    cell = prediction_results.cell("net", CUBIC, found)
    assert (cell["model"], cell["schedule"], cell["t0"]) == ("net", "cubic:0.5", 0.5)
    assert (cell["predicted"], cell["measured"], cell["measured_robust"]) == (0.30, 0.32, 0.31)
    assert cell["differences"] == pytest.approx([2.0, -8.0, 1.0])
    assert cell["differences_robust"] == pytest.approx([1.0, 0.0, 20.0])
    assert cell["median_difference"] == pytest.approx(1.0)  # that of the medians would be 2
    assert cell["median_difference_robust"] == pytest.approx(1.0)
    assert cell["largest_difference"] == pytest.approx(-8.0)
    assert (cell["repeats"], cell["repeats_within"], cell["verdict"]) == (3, 2, "holds")
    assert cell["intervals"] == [one["interval"] for one in found]
    assert prediction_results.shortcomings([cell]) == []


def test_a_cell_that_fails_is_named():
    found = [outcome(0.30, 0.25, 0.30)]  # the robust one does not count
    cell = prediction_results.cell("net", CUBIC, found)
    assert (cell["verdict"], cell["repeats_within"]) == ("fails", 0)
    assert prediction_results.shortcomings([cell]) == [
        "net, cubic:0.5: measured 25.0 %, predicted 30.0 %, median difference -5.00 points, bar 3, "
        "fails"
    ]


# taking turns


def test_every_run_takes_one_step_in_every_round_in_changing_orders(monkeypatch):
    monkeypatch.setattr(prediction_runs.gc, "collect", lambda: None)  # it takes a while
    seen = []
    steps = [lambda i=i: seen.append(i) for i in range(5)]
    prediction_runs.take_turns(steps, 60, seed=1)
    rounds = [tuple(seen[k : k + 5]) for k in range(0, 300, 5)]
    assert len(seen) == 300
    assert all(sorted(order) == [0, 1, 2, 3, 4] for order in rounds)
    assert len(set(rounds)) > 30
    assert min(Counter(order[0] for order in rounds).values()) >= 3  # none is always late
    first = seen.copy()
    seen.clear()
    prediction_runs.take_turns(steps, 60, seed=1)
    assert seen == first
    seen.clear()
    prediction_runs.take_turns(steps, 60, seed=2)
    assert seen != first


def test_garbage_is_collected_between_rounds_only(monkeypatch):
    events = []
    monkeypatch.setattr(prediction_runs.gc, "collect", lambda: events.append("collect"))
    monkeypatch.setattr(prediction_runs, "ROUNDS_PER_COLLECTION", 2)
    assert gc.isenabled()
    prediction_runs.take_turns([lambda: events.append(gc.isenabled())] * 2, 3, seed=0)
    assert events == ["collect", False, False, False, False, "collect", False, False]
    assert gc.isenabled()


class FakeTrainer:
    """Epochs of two batches; everything it does takes a time of its own."""

    device = torch.device("cpu")
    epoch_steps = 2

    def __init__(self):
        self.now = 0.0
        self.batch = 0
        self.frozen = 0
        self.epochs = 0

    def batches(self):
        for batch in range(2):
            self.now += 0.25
            yield self.epochs, batch

    def take_step(self, images, labels):
        assert (images, labels) == (self.epochs, self.batch)
        self.now += 1.0
        self.batch += 1
        self.frozen += 1

    def read(self):
        self.now += 100.0

    def finish_epoch(self):
        self.now += 1000.0
        self.batch = 0
        self.epochs += 1


def test_a_step_is_the_batch_and_the_step_and_nothing_else():
    trainer = FakeTrainer()
    run = prediction_runs.Run(trainer, now=lambda: trainer.now)
    for _ in range(5):
        run.step()
    assert run.seconds == [1.25] * 5
    assert run.depths == [0, 1, 2, 3, 4]  # as many as were frozen while it ran
    assert trainer.now == 5 * 101.25 + 2 * 1000
    assert trainer.epochs == 2


# real runs


def toy(steps=12, images=96, schedules="cubic:0.5,linear:0.5"):
    settings = Settings(
        batch_size=8, steps=steps, t0=1.0, lr=0.02, padding=0, flip=False, device="cpu", threads=1
    )
    digits = data.load("digits")
    small = replace(
        digits,
        train_images=digits.train_images[:images],
        train_labels=digits.train_labels[:images],
        test_images=digits.test_images[:8],
        test_labels=digits.test_labels[:8],
    )
    return prediction_runs.Subject(settings, small, bench.parse_schedules(schedules))


def test_a_run_ends_in_the_weights_of_the_trainer_alone():
    subject = toy(steps=5, images=16)  # two steps an epoch
    runs = [
        prediction_runs.Run(subject.trainer(model="resnet-8-4", t0=0.5, evaluate_every=10))
        for _ in range(2)
    ]
    prediction_runs.take_turns([run.step for run in runs], 5, seed=0)
    alone = subject.trainer(model="resnet-8-4", t0=0.5)
    while not alone.finished:
        for batch in alone.batches():
            alone.take_step(*batch)
        alone.finish_epoch()
    for run in runs:
        assert run.depths == [alone.scheduler.depth_at(n) for n in range(5)]
        assert run.trainer.step == 5
        assert [record.test_loss for record in run.trainer.history] == [None, None]
        ours, theirs = run.trainer.model.state_dict(), alone.model.state_dict()
        assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


@pytest.mark.parametrize(("steps", "images"), [(10, 80), (400, 1437)])
def test_subjects_train_on_as_many_images_as_they_need_and_test_on_none(steps, images):
    given = bench.arguments().parse_args(["--data", "digits", "--batch-size", "8"])
    given.steps = steps
    subject = bench.prepared(given)
    trainer = subject.trainer(model="resnet-8-4")
    assert trainer.train_data.num_images == images == subject.settings.train_size
    assert trainer.total_steps == steps
    assert trainer.epochs == -(-steps * 8 // images)
    assert subject.settings.evaluate_every > trainer.epochs
    assert all(n is None for n in trainer.scheduler.freeze_steps)


def test_warm_up_comes_by_every_depth(monkeypatch):
    depths = []

    class Watched(prediction_runs.Run):
        def step(self):
            super().step()
            depths.append(self.depths[-1])

    monkeypatch.setattr(prediction_runs, "Run", Watched)
    prediction_runs.warm_up(toy(), "resnet-8-4", 5)
    assert depths == [depth for depth in range(5) for _ in range(3)]


def test_a_run_that_freezes_otherwise_than_planned_is_no_measurement():
    subject = toy()
    plans, _ = prediction_runs.predict(subject, "resnet-8-4", 0)
    run = prediction_runs.Run(subject.trainer(model="resnet-8-4"))
    for _ in range(12):
        run.step()
    with pytest.raises(RuntimeError, match="freeze when the plan says"):
        prediction_runs.outcome(plans[0], run, run)


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
            assert got["measured"] == pytest.approx(1 - sum(steps) / sum(plain), abs=1e-4)
            smooth, begin = 0.0, 0
            for count in got["steps_at_depth"]:
                stretch = steps[begin : begin + count]
                smooth += count * statistics.median(stretch) if count else 0.0
                begin += count
            robust = 1 - smooth / (10 * statistics.median(plain))
            assert got["measured_robust"] == pytest.approx(robust, abs=1e-4)
            assert got["training_loss"] > 0
            differences.append(100 * (got["measured"] - got["predicted"]))
        assert cell["differences"] == differences
        assert cell["median_difference"] == pytest.approx(sum(differences) / 2)
    (measuring,) = result["measuring"]
    assert 20 < measuring["steps"] < 100
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
    bench.main([*BOTH, "--out", str(out)])  # without it, all anew
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
