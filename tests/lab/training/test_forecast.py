"""Predicting a run before it begins, and lengthening it by what is saved."""

import json
from dataclasses import replace

import pytest
import torch

from freezeout import CheckpointError, CostError, Plan, RunError, Schedule, plan
from freezeout.lab.cli import main
from freezeout.lab.cli.follow import plan_settings
from freezeout.lab.training import (
    RunFolder,
    Settings,
    Trainer,
    forecast,
    prepare,
    resume,
    run_costs,
    start,
)
from freezeout.lab.training.checkpoint import load_checkpoint
from freezeout.lab.training.forecasting import LEAST_STEPS
from freezeout.lab.training.processes import Processes
from tests.lab.runs import (
    SMALL,
    SMALL_ARGUMENTS,
    KillAt,
    KilledError,
    Listening,
    assert_same_end,
    small,
    train,
)


def a_trainer(**changes):
    return Trainer(*prepare(small(**changes)))


@pytest.fixture(scope="module")
def costs():
    """Costs of a run, with the times of a quiet machine: every layer's step takes as long."""
    found = run_costs(a_trainer(), rounds=1)
    layers = tuple(
        replace(c, forward=1e-3, frozen_forward=1e-3, backward=2e-3, optimizer=5e-4)
        for c in found.layers
    )
    even = replace(found, layers=layers, overhead=1e-3)
    return replace(even, rounds=(tuple(even.step_seconds(depth) for depth in even.depths),))


# --- The prediction ----------------------------------------------------------------------------


def test_a_forecast_is_the_schedule_of_the_run_over_its_steps():
    trainer = a_trainer(steps=50)
    made = forecast(trainer, rounds=1)
    assert made.freeze_steps == trainer.scheduler.freeze_steps
    assert made.total_steps == 50
    made.check(trainer.scheduler.layers)


def test_loading_a_batch_is_in_the_costs(monkeypatch):
    monkeypatch.setattr("freezeout.lab.training.forecasting._loading_seconds", lambda trainer: 3.0)
    costs = run_costs(a_trainer(), rounds=1)
    assert 3.0 < costs.overhead < 6.0  # it is counted, and once
    assert costs.step_seconds(4) > 3.0


def test_bf16_and_the_runs_optimizer_are_what_is_measured():
    trainer = a_trainer(precision="bf16", optimizer="adamw")
    seen = set()
    trainer.model.register_forward_hook(lambda m, args, output: seen.add(output.dtype))
    costs = run_costs(trainer, rounds=1)
    assert seen == {torch.bfloat16}
    parameters = sum(layer.parameter_bytes for layer in costs.layers)
    assert sum(layer.state_bytes for layer in costs.layers) >= 2 * parameters  # two moments


@pytest.mark.parametrize("changes", [{}, {"precision": "bf16", "optimizer": "adamw"}])
def test_a_predicted_run_ends_in_the_same_bits_as_one_that_was_not(tmp_path, changes):
    plain = train(tmp_path / "plain", **changes)
    predicted = RunFolder(tmp_path / "predicted")
    result = start(small(**changes), predicted, predict=True)
    assert result.plan is not None
    assert_same_end(plain, predicted)
    assert not plain.plan_file.exists()
    assert predicted.plan() == result.plan


@pytest.mark.parametrize(
    ("predict", "steps", "t0", "expected"),
    [
        (None, LEAST_STEPS, 0.6, True),
        (None, LEAST_STEPS - 1, 0.6, False),
        (None, LEAST_STEPS, 1.0, False),
        (True, 20, 1.0, True),
        (False, LEAST_STEPS, 0.6, False),
    ],
)
def test_long_runs_that_freeze_are_predicted(tmp_path, monkeypatch, predict, steps, t0, expected):
    asked = []

    def record(trainer):
        asked.append(trainer.total_steps)
        raise KilledError

    monkeypatch.setattr("freezeout.lab.training.run.forecast", record)
    folder = RunFolder(tmp_path / "run")
    with pytest.raises(KilledError):
        start(small(steps=steps, t0=t0), folder, [KillAt(1)], predict=predict)
    assert asked == ([steps] if expected else [])
    assert folder.path.exists() != expected  # nothing is left where measuring fails


def test_a_resumed_run_still_knows_its_prediction(tmp_path):
    folder = RunFolder(tmp_path / "run")
    with pytest.raises(KilledError):
        start(small(), folder, [KillAt(7)], predict=True)
    result = resume(folder)
    assert result.plan == Plan.load(folder.plan_file)
    assert result.trainer.finished


def test_a_damaged_plan_is_named_and_the_run_goes_on_without(tmp_path):
    folder = train(tmp_path / "run")
    folder.plan_file.write_text("{")
    with pytest.raises(CheckpointError, match=r"plan\.json is damaged: .* Or delete .*plan\.json"):
        resume(folder)
    folder.plan_file.unlink()
    assert resume(folder).plan is None


# --- Constant time -----------------------------------------------------------------------------


def fake_forecast(costs):
    def made(trainer, **_):
        return Plan(costs, trainer.settings.schedule, trainer.total_steps)

    return made


def test_constant_time_lengthens_the_run_by_what_freezing_saves(tmp_path, monkeypatch, costs):
    monkeypatch.setattr("freezeout.lab.training.run.forecast", fake_forecast(costs))
    listening = Listening()
    folder = RunFolder(tmp_path / "run")
    result = start(small(const_time=True), folder, [listening])
    base = plan(costs, 12, t0=SMALL["t0"])
    steps = result.trainer.total_steps
    assert steps == base.lengthened().total_steps
    assert result.trainer.step == steps
    if base.saving > 1 / 12:
        assert steps > 12
    longer = plan(costs, steps, t0=SMALL["t0"])
    assert longer.seconds <= base.baseline_seconds
    assert plan(costs, steps + 1, t0=SMALL["t0"]).seconds > base.baseline_seconds
    assert load_checkpoint(folder.checkpoint)["step"] == steps
    assert any(f"constant time: {steps} steps" in text for text in listening.messages)
    # What was found is settled: the same settings give the same run without measuring.
    settings = folder.settings()
    assert (settings.steps, settings.const_time) == (steps, False)
    again = RunFolder(tmp_path / "again")
    start(settings, again)
    assert_same_end(folder, again)


def test_constant_time_with_a_big_saving_is_much_longer(tmp_path, monkeypatch, costs):
    # As if the backward pass were all there is.
    layers = tuple(
        replace(c, forward=0.0, frozen_forward=0.0, backward=1.0, optimizer=0.0)
        for c in costs.layers
    )
    steep = replace(costs, layers=layers, overhead=0.0)
    monkeypatch.setattr("freezeout.lab.training.run.forecast", fake_forecast(steep))
    folder = RunFolder(tmp_path / "run")
    result = start(small(const_time=True, epochs=2), folder)
    saving = plan(steep, 8, t0=SMALL["t0"]).saving
    assert saving > 0.3
    assert result.trainer.total_steps >= 8 / (1 - saving) - 1
    assert result.trainer.epochs == -(-result.trainer.total_steps // 4)
    assert result.trainer.scheduler.frozen == 4  # every layer froze in time


def test_constant_time_without_a_prediction_is_refused(tmp_path):
    with pytest.raises(RunError, match="const_time needs a prediction"):
        start(small(const_time=True), RunFolder(tmp_path / "run"), predict=False)
    # of several processes none can have one
    with pytest.raises(RunError, match=r"const_time needs measured costs, .* got 2"):
        start(
            small(const_time=True),
            RunFolder(tmp_path / "run"),
            predict=False,
            processes=Processes(0, 2),
        )
    assert not (tmp_path / "run").exists()


# --- Following a plan --------------------------------------------------------------------------


def test_a_plan_is_followed_by_the_program(tmp_path, costs, capsys):
    made = plan(costs, 15, saving=0.2, spacing="budget")
    made.save(tmp_path / "plan.json")
    words = [w for w in SMALL_ARGUMENTS if w not in ("--t0", "0.6", "--epochs", "3")]
    out = tmp_path / "run"
    arguments = ["train", *words, "--plan", str(tmp_path / "plan.json"), "--out", str(out)]
    assert main(arguments) == 0
    printed = capsys.readouterr().out
    start_line = RunFolder(out).read_log()[0]
    assert start_line["total_steps"] == 15
    assert tuple(start_line["freeze_steps"]) == made.freeze_steps
    summary = json.loads((out / "summary.json").read_text())
    assert summary["predicted"] == pytest.approx(made.saving)
    assert f"{100 * made.saving:.1f} % before the run" in printed
    assert RunFolder(out).plan().costs == costs


def test_a_plan_over_another_number_of_steps(tmp_path, costs):
    plan(costs, 15, t0=0.5, spacing="linear").save(tmp_path / "plan.json")
    words = [w for w in SMALL_ARGUMENTS if w not in ("--t0", "0.6", "--epochs", "3")]
    out = tmp_path / "run"
    plan_file = str(tmp_path / "plan.json")
    words += ["--plan", plan_file, "--steps", "8", "--out", str(out), "--display", "none"]
    assert main(["train", *words]) == 0
    settings = RunFolder(out).settings()
    assert (settings.t0, settings.spacing, settings.steps) == (0.5, "linear", 8)
    assert RunFolder(out).plan().total_steps == 8


def test_a_plan_of_layers_that_freeze_together(tmp_path, costs):
    schedule = Schedule(t0=0.5, spacing="linear", max_freezes=2)
    made = Plan(costs, schedule, 15)
    made.save(tmp_path / "plan.json")
    settings = plan_settings(Plan.load(tmp_path / "plan.json"), {})
    assert Settings.from_dict(settings).schedule == schedule
    assert schedule.freeze_times(len(costs)) == made.freeze_times
    assert len(set(made.freeze_times)) == 3


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--plan", "PLAN", "--t0", "0.5"], "--t0 cannot be given with --plan"),
        (["--plan", "PLAN", "--epochs", "3"], "--epochs cannot be given with --plan"),
        (["--plan", "PLAN", "--const-time"], "--const-time cannot be given with --plan"),
        (["--plan", "nowhere.json"], "there is no plan nowhere.json"),
        (["--plan", "DAMAGED"], "is damaged: line 1"),
        (
            ["--plan", "PLAN", "--model", "vgg11-8"],
            "the plan was made for 5 layers, but the model has 9",
        ),
        (["--const-time", "--no-predict"], "const_time needs a prediction"),
        (["--resume", "x", "--plan", "PLAN"], "--plan cannot be given with --resume"),
        (["--resume", "x", "--no-predict"], "--no-predict cannot be given with --resume"),
    ],
)
def test_mistakes_with_plans_are_one_line(tmp_path, monkeypatch, capsys, costs, words, message):
    monkeypatch.chdir(tmp_path)
    plan(costs, 15, t0=0.5).save("PLAN")
    (tmp_path / "DAMAGED").write_text("{")
    assert main(["train", "--train-size", "64", "--model", "resnet-8-8", *words]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert message in error
    assert not (tmp_path / "runs").exists()


def test_the_summary_compares_prediction_and_measurement(tmp_path, capsys, costs, monkeypatch):
    monkeypatch.setattr("freezeout.lab.training.run.forecast", fake_forecast(costs))
    words = ["train", *SMALL_ARGUMENTS, "--predict", "--out", str(tmp_path / "run")]
    assert main([*words, "--display", "lines"]) == 0
    printed = capsys.readouterr().out
    made = plan(costs, 12, t0=0.6)
    assert f"predicted: freezing saves {100 * made.saving:.1f} %" in printed
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert summary["predicted"] == pytest.approx(made.saving)
    off = round(100 * summary["saving"], 1) - round(100 * summary["predicted"], 1)
    word = "more" if off > 0 else "less"
    word = "the same" if abs(off) < 0.05 else f"{abs(off):.1f} points {word}"
    assert f"% before the run; measured {word}" in printed


@pytest.mark.parametrize(
    ("changes", "difference"),
    [
        ({"batch_size": 32}, "batch 16 in place of 32"),
        ({"optimizer": "adamw"}, "SGD in place of AdamW"),
        ({"precision": "bf16"}, "float32 in place of bfloat16"),
    ],
)
def test_a_plan_of_another_step_is_followed_but_predicts_nothing(
    tmp_path, costs, changes, difference
):
    listening = Listening()
    made = plan(costs, 12, t0=0.6)
    folder = RunFolder(tmp_path / "run")
    result = start(small(steps=12, **changes), folder, [listening], plan=made)
    assert result.plan is None
    assert result.trainer.scheduler.freeze_steps == made.freeze_steps
    assert any(difference in text and "does not hold" in text for text in listening.messages)


def test_an_interrupted_run_tells_both_predictions(tmp_path, costs, monkeypatch, capsys):
    from freezeout.lab.report.terminal import plain_text, render_summary
    from freezeout.lab.training import DepthCost, RunSummary

    done = (DepthCost(0, 10, 0.2), DepthCost(1, 10, 0.18))
    summary = RunSummary(
        model="net",
        data="digits",
        steps=20,
        total_steps=100,
        epochs=3,
        test_error=None,
        train_seconds=3.8,
        total_seconds=5.0,
        seconds_per_epoch=(),
        depth_costs=done,
        frozen_layers=1,
        layers=4,
        predicted=0.25,
        predicted_interval=(0.2, 0.3),
        predicted_so_far=0.06,
        out="runs/x",
        device="CPU",
        precision="fp32",
        interrupted=True,
    )
    text = " ".join(plain_text(render_summary(summary)).split())
    assert "predicted 25.0 % before the run (20.0 to 30.0), 6.0 % for the steps done; " in text
    assert "measured 1.0 points less" in text


def test_a_plan_of_other_layers_stops_the_run_before_it_begins(tmp_path, costs):
    other = Settings(**{**SMALL, "model": "resnet-14-8"})
    with pytest.raises(CostError, match="Make a plan for this model"):
        start(other, RunFolder(tmp_path / "run"), plan=plan(costs, 12, t0=0.6))
    assert not (tmp_path / "run").exists()
