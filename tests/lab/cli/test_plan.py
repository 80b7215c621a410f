"""``freezeout plan``: what it prints and writes, and one line for every mistake."""

import argparse
import json
import re
import shlex
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from freezeout import Costs, Plan
from freezeout.errors import CostError
from freezeout.lab.cli import main
from freezeout.lab.cli.options import merged_settings
from freezeout.lab.cli.parser import make_parser
from freezeout.lab.cli.plan.show import PlanResult
from freezeout.lab.cli.plan.subject import load_subject
from freezeout.lab.cli.plan.verb import _fraction, _seconds
from freezeout.lab.data import load
from freezeout.lab.locks import FolderLock, is_lock
from freezeout.lab.report.terminal import PlanTable, plain_text
from freezeout.lab.training import RunFolder, Settings, Trainer, prepare, run_costs
from freezeout.planning import densenet_costs, paper_saving
from tests.lab.runs import planned
from tests.strategies import with_made_times

REUSED = ["--model", "resnet-8-8", "--data", "digits", "--batch-size", "16"]
REUSED += ["--threads", "1", "--device", "cpu"]
SMALL = [*REUSED, "--rounds", "1"]


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """A finished plan without a wish; its costs are measured, but for the times, which are made up.

    A busy machine gives any times at all, and with some of them a wish cannot be met.
    """
    folder = tmp_path_factory.mktemp("plan") / "out"
    assert main(["plan", *SMALL, "--out", str(folder)]) == 0
    measured = Costs.load(folder / "costs.json")
    with_made_times(measured, rounds=1).save(folder / "costs.json")
    return folder


# --- What it shows and leaves ------------------------------------------------------------------


def test_layers_and_schedules_are_shown_and_written(tmp_path, capsys):
    out = planned(capsys, *SMALL, "--out", tmp_path / "out").out
    assert "\nresnet-8-8 on digits, batch 16, fp32  (CPU, 1 thread, torch " in out
    for name in ("stem", "blocks.block1_layer1", "blocks.block3_layer1", "classifier"):
        assert name in out
    for spacing in ("linear", "squared", "cubic"):
        assert sum(line.startswith(spacing) for line in out.splitlines()) == 5
    assert "paper's" in out
    assert str(tmp_path / "out") in out
    left = {p.name for p in (tmp_path / "out").iterdir() if not is_lock(p)}
    assert left == {"costs.json", "savings.png"}
    costs = Costs.load(tmp_path / "out" / "costs.json")
    assert len(costs.rounds) == 1
    assert costs.batch_size == 16
    assert (tmp_path / "out" / "savings.png").read_bytes()[:4] == b"\x89PNG"


def test_one_schedule_for_a_saving(done, tmp_path, capsys):
    words = [*REUSED, "--costs", done / "costs.json", "--out", tmp_path / "out"]
    out = planned(capsys, *words, "--saving", "20%", "--spacing", "budget").out
    made = Plan.load(tmp_path / "out" / "plan.json")
    assert made.spacing == "budget"
    assert made.reached
    assert made.saving >= 0.2
    assert made.total_steps == 10 * 90  # epochs times batches of the 1,437 digits
    assert str(made) in out
    file = tmp_path / "out" / "plan.json"
    words = "--model resnet-8-8 --batch-size 16 --device cpu --threads 1"
    assert f"freezeout train {words} --plan {file}\n" in out
    assert made.costs == Costs.load(done / "costs.json")


def test_one_schedule_for_a_time_and_for_a_t0(done, tmp_path, capsys):
    costs = Costs.load(done / "costs.json")
    seconds = 0.9 * 900 * costs.step_seconds(0)
    words = [*REUSED, "--costs", done / "costs.json"]
    planned(capsys, *words, "--time", f"{seconds}s", "--out", tmp_path / "a")
    made = Plan.load(tmp_path / "a" / "plan.json")
    assert made.seconds <= seconds
    planned(capsys, *words, "--t0", "0.7", "--spacing", "linear", "--out", tmp_path / "b")
    made = Plan.load(tmp_path / "b" / "plan.json")
    assert (made.schedule.t0, made.schedule.spacing) == (0.7, "linear")


def test_a_wish_that_cannot_be_met_says_the_limit(done, tmp_path, capsys):
    words = [*REUSED, "--costs", done / "costs.json", "--out", tmp_path / "out"]
    out = planned(capsys, *words, "--saving", "95%").out
    assert "cannot be reached" in out
    assert "the limit is" in out
    assert not Plan.load(tmp_path / "out" / "plan.json").reached


def test_a_disturbed_machine_is_mentioned(done, tmp_path, capsys):
    costs = Costs.load(done / "costs.json")
    even = {"forward": 1e-3, "frozen_forward": 1e-3, "backward": 2e-3, "optimizer": 5e-4}
    costs = replace(costs, layers=tuple(replace(c, **even) for c in costs.layers), overhead=1e-3)
    quiet = tuple(costs.step_seconds(depth) for depth in costs.depths)
    for name, factor in (("quiet", 1.0), ("disturbed", 3.0)):
        disturbed = tuple(t * factor ** (k % 2) for k, t in enumerate(quiet))
        rounds = (quiet, quiet, quiet, disturbed, disturbed, quiet)
        replace(costs, rounds=rounds).save(tmp_path / f"{name}.json")
        words = [*REUSED, "--costs", tmp_path / f"{name}.json", "--out", tmp_path / name]
        out = planned(capsys, *words).out
        assert ("the machine was disturbed" in out) == (name == "disturbed")


def test_few_freezes_and_settings_of_rates_are_passed_on(done, tmp_path, capsys):
    words = [*REUSED, "--costs", done / "costs.json", "--out", tmp_path / "out"]
    words += ["--t0", "0.5", "--max-freezes", "2", "--no-scaled", "--warmup-steps", "20"]
    planned(capsys, *words)
    made = Plan.load(tmp_path / "out" / "plan.json")
    assert made.freezes == 2
    assert made.schedule.scaled is False
    assert made.schedule.warmup_steps == 20


def test_explicit_times_have_their_saving_predicted(done, tmp_path, capsys):
    words = [*REUSED, "--costs", done / "costs.json"]
    out = planned(capsys, *words, "--times", "0.3,0.4,0.5,0.8,1", "--out", tmp_path / "a").out
    made = Plan.load(tmp_path / "a" / "plan.json")
    assert made.schedule.times == (0.3, 0.4, 0.5, 0.8, 1.0)
    assert "explicit freeze times" in out
    few = ["--times", "0.3,0.4,0.5,0.8,1", "--max-freezes", "2", "--out", tmp_path / "b"]
    planned(capsys, *words, *few)
    assert Plan.load(tmp_path / "b" / "plan.json").freezes == 2


def test_the_run_that_is_planned_is_the_one_that_train_would_make(done):
    settings = Settings(model="resnet-8-8", data="digits", batch_size=16, holdout=100, epochs=3)
    subject = load_subject(settings)
    trainer = Trainer(*prepare(settings))
    assert subject.total_steps == trainer.total_steps
    assert subject.layers.names == trainer.scheduler.layers.names
    costs = run_costs(trainer, rounds=1)
    mine = Costs.load(done / "costs.json")
    for a, b in zip(costs.layers, mine.layers, strict=True):
        assert (a.forward_flops, a.saved_bytes, a.state_bytes) == (
            b.forward_flops,
            b.saved_bytes,
            b.state_bytes,
        )


def test_planning_needs_no_data(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("freezeout.lab.data.load", lambda *_, **__: pytest.fail("read data"))
    words = ["--model", "resnet-8-8", "--data", "cifar100", "--batch-size", "4", "--rounds", "1"]
    out = planned(capsys, *words, "--out", tmp_path / "out").out
    assert "resnet-8-8 on cifar100" in out
    assert "without freezing" in out.lower()
    assert load  # the real one is another name here


def test_default_folders_are_numbered(done, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for _ in range(2):
        planned(capsys, *REUSED, "--costs", done / "costs.json")
    assert {p.name for p in (tmp_path / "runs").iterdir()} == {
        "plan-digits-resnet-8-8-1",
        "plan-digits-resnet-8-8-2",
    }


def test_a_reader_that_goes_away_is_no_error(done, tmp_path, monkeypatch):
    class Gone:
        encoding = "utf-8"

        def write(self, text):
            raise BrokenPipeError

        def flush(self):
            raise BrokenPipeError

        def isatty(self):
            return False

        def fileno(self):
            raise OSError

    monkeypatch.setattr(sys, "stdout", Gone())
    out = tmp_path / "out"
    assert main(["plan", *REUSED, "--costs", str(done / "costs.json"), "--out", str(out)]) == 0
    assert (out / "costs.json").exists()


# --- The paper beside it -----------------------------------------------------------------------


def test_the_papers_densenet_shows_the_papers_own_eighteen_values(done):
    settings = Settings(model="densenet-76-12", data="cifar10", batch_size=2)
    subject = load_subject(settings)
    any_costs = Costs.load(done / "costs.json")
    assert list(subject.paper_costs(any_costs)) == list(densenet_costs(76, 12))
    shown = [
        f"{100 * paper_saving(subject.paper_costs(any_costs), i / 10, spacing=spacing):.1f}"
        for spacing in ("linear", "cubic")
        for i in range(9, 0, -1)
    ]
    linear = ["4.5", "9.0", "13.5", "18.0", "22.5", "27.0", "31.5", "36.0", "40.5"]
    cubic = ["9.6", "17.8", "24.6", "30.3", "34.8", "38.5", "41.3", "43.4", "44.9"]
    assert shown == linear + cubic


def test_other_networks_show_the_papers_formula_on_forward_flops(done):
    settings = Settings(model="resnet-8-8", data="digits", batch_size=16, threads=1)
    costs = Costs.load(done / "costs.json")
    subject = load_subject(settings)
    rates = {"scaled": True, "anneal": "cosine", "warmup_steps": 0, "scale_cap": None}
    result = PlanResult(subject, costs, rates, None)
    flops = [layer.forward_flops for layer in costs.layers]
    assert list(subject.paper_costs(costs)) == flops
    plans = [*result.curves(), *result.budgets((0.1, 0.2))]
    table = plain_text(PlanTable(plans, subject.paper_costs(costs))).splitlines()
    cubic = next(line for line in table if re.match(r"cubic +0\.8 ", line))
    assert cubic.endswith(f" {100 * paper_saving(flops, 0.8, spacing='cubic'):.1f} %")
    assert f" {1 / 0.512:.2f}x " in cubic
    budgets = [line for line in table if line.startswith("budget")]
    assert budgets
    assert all(line.endswith(" -") for line in budgets)


def test_a_warm_up_leaves_out_schedules_without_room_for_it(done):
    settings = Settings(model="resnet-8-8", data="digits", batch_size=16, warmup_steps=300)
    costs = Costs.load(done / "costs.json")
    rates = {"scaled": True, "anneal": "cosine", "warmup_steps": 300, "scale_cap": None}
    plans = PlanResult(load_subject(settings), costs, rates, None).curves()
    assert not [p for p in plans if p.spacing == "cubic" and p.schedule.t0 <= 0.6]
    linear = [p.schedule.t0 for p in plans if p.spacing == "linear"]
    assert linear == [0.9, 0.8, 0.7, 0.6, 0.5]


# --- Mistakes ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "fraction"),
    [("25%", 0.25), ("25 %", 0.25), ("0.25", 0.25), ("0", 0.0), (".5", 0.5), ("12.5%", 0.125)],
)
def test_savings_as_people_write_them(text, fraction):
    assert _fraction(text) == fraction


@pytest.mark.parametrize("text", ["25", "100%", "1", "-5%", "a quarter", "", "%", "1e-1"])
def test_savings_that_are_none(text):
    with pytest.raises(argparse.ArgumentTypeError, match="must be at least 0% and below 100%"):
        _fraction(text)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("2h", 7200), ("90min", 5400), ("1h30m", 5400), ("1.5 h", 5400), ("45s", 45), ("1d", 86400)],
)
def test_times_as_people_write_them(text, seconds):
    assert _seconds(text) == seconds


@pytest.mark.parametrize("text", ["2", "two hours", "", "0s", "-2h", "2h!"])
def test_times_that_are_none(text):
    with pytest.raises(argparse.ArgumentTypeError, match="must be"):
        _seconds(text)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--saving", "30"], "argument --saving: must be at least 0% and below 100%, got '30'"),
        (["--time", "soon"], "argument --time: must be like 2h, 90min, 1h30m or 45s, got 'soon'"),
        (["--saving", "20%", "--time", "2h"], "not allowed with argument --saving"),
        (["--spacing", "quartic"], "invalid choice: 'quartic'"),
        (["--spacing", "budget", "--t0", "0.5"], "--spacing budget takes no --t0"),
        (["--spacing", "budget", "--times", "0.5,1"], "--spacing budget takes no --times"),
        (["--times", "0.5,1"], "times holds 2 freeze times, but the model was cut into 9 layers"),
        (["--times", "0.5,0.4"], "times must never decrease"),
        (["--times", "0.5,1", "--t0", "0.5"], "not allowed with argument --times"),
        (["--t0", "1.5"], "t0 must lie in (0, 1], got 1.5"),
        (["--input", "3x8x8"], "--input goes with --model module:function and without --data"),
        (["--spacing", "cubic"], "--spacing goes with --saving, --time, --t0 or --times"),
        (["--max-freezes", "2"], "--max-freezes goes with --saving, --time, --t0 or --times"),
        (["--costs", "OTHER", "--rounds", "3"], "--rounds measures and --costs does not"),
        (["--model", "nets:make", "--input", "3x8x8"], "and without --data: a network on data"),
        (["--costs", "nowhere.json"], "there is no file of costs nowhere.json"),
        (["--costs", "DAMAGED"], "is damaged: line 1"),
        (["--costs", "OTHER"], "was measured with another network"),
        (["--model", "alexnet"], "alexnet"),
        (["--data", "imagenet"], "imagenet"),
        (["--rounds", "0"], "--rounds must lie in 1 to 1000, got 0"),
        (["--max-freezes", "0", "--t0", "0.5"], "max_freezes must be at least 1, got 0"),
        (["--holdout", "1437"], "holdout=1437 leaves 0 of 1437 training images"),
        (["--out", "DAMAGED"], "is a file"),
        (["--out", "FULL"], "is not empty"),
        (["--preset", "nothing"], "unknown preset 'nothing'"),
        (["--device", "cuda:77"], "device 'cuda:77' is not there"),
    ],
)
def test_a_mistake_gets_one_line_and_exit_code_2(
    done, tmp_path, monkeypatch, capsys, words, message
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "DAMAGED").write_text("{")
    (tmp_path / "OTHER").write_text((done / "costs.json").read_text())
    (tmp_path / "FULL").mkdir()
    (tmp_path / "FULL" / "file").touch()
    network = ["--model", "vgg11-8", "--data", "digits", "--batch-size", "8"]
    error = planned(capsys, *network, *words, code=2).err
    assert error.count("\n") == 1, error
    assert message in error
    assert not (tmp_path / "runs").exists()


def test_a_place_that_cannot_be_written(done, tmp_path, monkeypatch, capsys):
    (tmp_path / "file").touch()
    words = [*REUSED, "--costs", done / "costs.json", "--out", tmp_path / "file" / "below"]
    error = planned(capsys, *words, code=2).err
    assert error.count("\n") == 1

    move = Path.replace

    def full(path, target):
        if target.name == "savings.png":
            raise OSError(28, "No space left on device")
        return move(path, target)

    monkeypatch.setattr(Path, "replace", full)
    words = [*REUSED, "--costs", done / "costs.json", "--out", tmp_path / "out"]
    error = planned(capsys, *words, code=2).err
    assert "savings.png: No space left on device" in error
    assert (tmp_path / "out" / "costs.json").exists()  # what was measured is not lost


def no_measuring(*_, **__):
    pytest.fail("measured for nothing")


def test_a_folder_that_cannot_be_had_is_found_out_before_anything_is_measured(
    tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr("freezeout.lab.cli.plan.subject.run_costs", no_measuring)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs").touch()
    assert "runs is a file" in planned(capsys, *SMALL, code=2).err
    below = tmp_path / "runs" / "below"
    assert "cannot make folder" in planned(capsys, *SMALL, "--out", below, code=2).err
    with FolderLock(tmp_path / "out"):
        error = planned(capsys, *SMALL, "--out", tmp_path / "out", code=2).err
    assert "is in use by process" in error
    assert error.count("\n") == 1


def test_a_plan_that_cannot_be_measured_leaves_no_folder(tmp_path, monkeypatch, capsys):
    def fail(*_, **__):
        raise CostError("no step.")

    monkeypatch.setattr("freezeout.lab.cli.plan.subject.run_costs", fail)
    monkeypatch.chdir(tmp_path)
    for out in ((), ("--out", "out")):
        assert "no step." in planned(capsys, *SMALL, *out, code=2).err
    assert list(tmp_path.iterdir()) == []


def test_what_was_measured_is_kept_where_no_plan_can_be_made(tmp_path, capsys, monkeypatch):
    def fail(*_, **__):
        raise ValueError("no such plan.")

    monkeypatch.setattr("freezeout.planning.plan", fail)
    words = [*SMALL, "--out", tmp_path / "out", "--t0", "0.3"]
    error = planned(capsys, *words, code=2).err
    assert f"no such plan. The costs are kept: --costs {tmp_path / 'out'}/costs.json" in error
    Costs.load(tmp_path / "out" / "costs.json")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--warmup-steps", "890"], "must not exceed 810 of 900 steps, where the first layer"),
        (["--warmup-steps", "500", "--t0", "0.5"], "must not exceed 113 of 900 steps"),
    ],
)
def test_a_warm_up_without_room_is_refused_before_anything_is_measured(
    tmp_path, capsys, monkeypatch, words, message
):
    monkeypatch.setattr(
        "freezeout.lab.cli.plan.subject.run_costs", lambda *_, **__: pytest.fail("ran")
    )
    error = planned(capsys, *SMALL, *words, "--out", tmp_path / "out", code=2).err
    assert message in error
    assert not (tmp_path / "out").exists()


def test_schedules_that_freeze_during_the_warm_up_are_left_out_and_said_to_be(
    done, tmp_path, capsys
):
    words = [*REUSED, "--costs", done / "costs.json", "--warmup-steps", "500"]
    out = planned(capsys, *words, "--out", tmp_path / "out").out
    assert "Schedules that would freeze during the warm-up are left out." in out


@pytest.mark.parametrize(
    ("words", "difference"),
    [
        (["--batch-size", "32"], "batch 16 in place of 32"),
        (["--model", "resnet-8-16"], "another network"),
        (["--precision", "bf16"], "float32 in place of bfloat16"),
        (["--optimizer", "adamw"], "SGD in place of AdamW"),
        (["--threads", "2"], "CPU, 1 thread in place of CPU, 2 threads"),
    ],
)
def test_costs_of_another_step_are_refused(done, tmp_path, capsys, words, difference):
    words = [*REUSED, *words, "--costs", done / "costs.json", "--out", tmp_path / "out"]
    error = planned(capsys, *words, code=2).err
    assert f"was measured with {difference}" in error
    assert not (tmp_path / "out").exists()


def test_the_printed_command_gives_the_same_run(done, tmp_path, capsys):
    words = ["--model", "resnet-8-8", "--batch-size", "16", "--threads", "1", "--device", "cpu"]
    words += ["--momentum", "0", "--no-nesterov", "--no-channels-last", "--seed", "3"]
    words += ["--train-size", "500", "--holdout", "100", "--t0", "0.8", "--rounds", "1"]
    out = planned(capsys, *words, "--out", tmp_path / "out").out
    (command,) = [line for line in out.splitlines() if "freezeout train" in line]
    options = make_parser().parse_args(shlex.split(command)[1:])
    given = Settings.from_dict(merged_settings(options))
    asked = Settings.from_dict(merged_settings(make_parser().parse_args(["plan", *words])))
    assert given == replace(asked, t0=given.t0)
    assert options.plan == tmp_path / "out" / "plan.json"


def test_steep_rates_and_single_rounds_are_mentioned(done, tmp_path, capsys):
    words = [*REUSED, "--costs", done / "costs.json", "--out", tmp_path / "out", "--t0", "0.3"]
    out = planned(capsys, *words).out
    assert "note: fewer than 6 rounds give no interval" in out
    assert "note: rates start at up to 37 times the base rate" in out


def test_help_names_every_option(capsys):
    with pytest.raises(SystemExit) as stop:
        main(["plan", "--help"])
    assert stop.value.code == 0
    text = capsys.readouterr().out
    for option in ("--saving", "--time", "--t0", "--model", "--input", "--costs", "--max-freezes"):
        assert option in text


def test_the_written_files_are_plain_json(done):
    values = json.loads((done / "costs.json").read_text())
    assert set(values["layers"][0]) >= {"name", "forward", "backward", "forward_flops"}
    assert RunFolder(done).plan() is None


def test_freeze_times_of_a_settings_file_are_planned(tmp_path, capsys):
    file = tmp_path / "run.toml"
    file.write_text("times = [0.3, 0.5, 0.7, 0.8, 1.0]\n")
    words = [*SMALL, "--config", file, "--out", tmp_path / "out"]
    planned(capsys, *words)
    made = Plan.load(tmp_path / "out" / "plan.json")
    assert made.freeze_times == (0.3, 0.5, 0.7, 0.8, 1.0)
    planned(capsys, *words[:-1], tmp_path / "merged", "--max-freezes", "2")
    assert Plan.load(tmp_path / "merged" / "plan.json").freezes == 2
    error = planned(capsys, *words[:-1], tmp_path / "other", "--t0", "0.8", code=2).err
    assert "--t0 cannot be given beside times = [0.3, 0.5, 0.7, 0.8, 1.0]" in error
