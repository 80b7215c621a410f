"""Predictions from costs that cannot be right say so wherever they are shown."""

import json
import math
from dataclasses import replace

import pytest

from freezeout import Plan, plan
from freezeout.costs import trouble_words
from freezeout.lab.cli import main
from freezeout.lab.experiments import Cell, Experiment, Grid, Variant
from freezeout.lab.training import Trainer, prepare, run_costs
from tests.lab.runs import SMALL_ARGUMENTS, Here, small


@pytest.fixture(scope="module")
def quiet():
    """Costs of the small run on a machine that does nothing else."""
    found = run_costs(Trainer(*prepare(small(threads=1))), rounds=1)
    layers = tuple(
        replace(c, forward=1e-3, frozen_forward=1e-3, backward=2e-3, optimizer=5e-4)
        for c in found.layers
    )
    even = replace(found, layers=layers, overhead=1e-3)
    row = tuple(even.step_seconds(depth) for depth in even.depths)
    return replace(even, rounds=(row,) * 6)


@pytest.fixture(scope="module")
def spoilt(quiet):
    layers = list(quiet.layers)
    layers[2] = replace(layers[2], forward=5e-3, optimizer=-4e-3)
    made = replace(quiet, layers=tuple(layers))
    assert "is below 0 (-4.00 ms)" in made.trouble
    assert not quiet.trouble
    return made


@pytest.mark.parametrize("kind", ["quiet", "spoilt"])
def test_train_tells_before_the_run_and_in_the_summary(
    kind, tmp_path, capsys, monkeypatch, request
):
    costs = request.getfixturevalue(kind)

    def forecast(trainer):
        return Plan(costs, trainer.settings.schedule, trainer.total_steps)

    monkeypatch.setattr("freezeout.lab.training.run.forecast", forecast)
    words = ["train", *SMALL_ARGUMENTS, "--predict", "--display", "lines"]
    assert main([*words, "--out", str(tmp_path / "run")]) == 0
    printed = capsys.readouterr().out
    bad = kind == "spoilt"
    assert ("spoilt costs, not to be relied on: the cost of" in printed) == bad
    assert ("predicted, by spoilt costs: freezing saves" in printed) == bad
    assert ("predicted: freezing saves" in printed) != bad
    assert ("Not to be relied on: the cost of" in " ".join(printed.split())) == bad
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert summary["predicted_trouble"] == costs.trouble


@pytest.mark.parametrize("kind", ["quiet", "spoilt"])
@pytest.mark.parametrize("wish", [[], ["--t0", "0.6"], ["--saving", "20%"]])
def test_plan_says_it_in_its_first_line(kind, wish, tmp_path, capsys, request):
    costs = request.getfixturevalue(kind)
    costs.save(tmp_path / "costs.json")
    words = ["plan", "--model", "resnet-8-8", "--batch-size", "16", "--device", "cpu", *wish]
    words += ["--costs", str(tmp_path / "costs.json"), "--out", str(tmp_path / "out")]
    assert main(words) == 0
    lines = capsys.readouterr().out.splitlines()
    assert (lines[0] == trouble_words(costs.trouble)) == (kind == "spoilt")
    assert lines[0].startswith("spoilt costs") == (kind == "spoilt")


def test_a_plan_that_is_followed_tells_too(spoilt, tmp_path, capsys):
    plan(spoilt, 12, t0=0.6).save(tmp_path / "plan.json")
    words = [w for w in SMALL_ARGUMENTS if w not in ("--t0", "0.6", "--epochs", "3")]
    words += ["--plan", str(tmp_path / "plan.json"), "--out", str(tmp_path / "run")]
    assert main(["train", *words, "--display", "lines"]) == 0
    assert trouble_words(spoilt.trouble) in capsys.readouterr().out


@pytest.mark.parametrize("kind", ["quiet", "spoilt"])
def test_a_comparison_says_whose_costs_are_spoilt(kind, tmp_path, monkeypatch, request):
    costs, asked = request.getfixturevalue(kind), []

    def forecast(trainer, *, rounds):
        asked.append(rounds)
        return Plan(costs, trainer.settings.schedule, trainer.total_steps)

    monkeypatch.setattr("freezeout.lab.experiments.job._SHARE", math.inf)  # there is time for more
    monkeypatch.setattr("freezeout.lab.experiments.job.forecast", forecast)
    cell = Cell(name="small", settings=small(t0=1.0, threads=1))
    grid = Grid(
        cells=(cell,),
        variants=(Variant(spacing="cubic", t0=0.6),),
        seeds=(0,),
        equal_time=True,
        rates_only=False,
    )
    said = []
    Experiment(tmp_path / "all", grid).run(Here(), say=said.append)
    told = [text for text in said if "spoilt" in text]
    if kind == "spoilt":
        (text,) = told
        assert text.startswith(f"small: {trouble_words(costs.trouble)} Equal-time runs have")
        assert asked == [6, 12, 24]
    else:
        assert told == []
        assert asked == [6]
