"""What the benchmark of predicted savings computes: its arithmetic, its turns, its runs."""

import gc
from collections import Counter
from dataclasses import replace

import pytest
import torch

from benchmarks.prediction import results as prediction_results
from benchmarks.prediction import runs as prediction_runs
from benchmarks.prediction import saving as bench
from freezeout.lab import data
from freezeout.lab.training import Settings

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
    assert trainer.task.train_data.num_images == images == subject.settings.train_size
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
