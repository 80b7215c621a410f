"""A custom network and custom data in runs: trained, resumed, compared."""

import json
import re
import sys
from pathlib import Path

import pytest
import torch

from freezeout.errors import CheckpointError
from freezeout.lab.cli import main
from freezeout.lab.data import Augmentation, canonical_name, default_augmentation
from freezeout.lab.experiments import Experiment, Grid, Pool
from freezeout.lab.training import RunFolder, Settings, Trainer, prepare, read_toml, resume, start
from freezeout.lab.training.toml import toml_bytes
from tests.lab.runs import KillAt, KilledError, assert_same_end
from tests.lab.training.custom import CUSTOM, NETS, WORDS, refused, trained

# --- A whole run -------------------------------------------------------------------------------


def test_train_on_the_command_line(custom, tmp_path, capsys):
    assert main(["train", *WORDS, "--display", "lines"]) == 0
    printed = capsys.readouterr().out
    assert "nets:make on my_data:load, cubic, t0 = 0.5" in printed
    # In the order of execution, not of definition.
    assert re.findall(r"froze layer \d \((\S+)\)", printed) == ["stem.0", "body.0"]
    folder = tmp_path / "runs" / "my_data-load-nets-make-1"
    summary = json.loads((folder / "summary.json").read_text())
    assert (summary["model"], summary["data"]) == ("nets:make", "my_data:load")
    assert (summary["steps"], summary["frozen_layers"], summary["layers"]) == (12, 2, 3)
    saved = read_toml(folder / "settings.toml")
    assert saved["model"] == "nets:make"
    assert (saved["padding"], saved["flip"]) == (0, False)
    # The file can be given back, with all that is in it.
    again = ["--config", str(folder / "settings.toml"), "--out", "again", "--display", "none"]
    assert main(["train", *again]) == 0
    assert_same_end(RunFolder(folder), RunFolder(Path("again")))


def test_the_seed_decides_the_weights_whether_or_not_the_module_was_imported(
    custom, write, tmp_path
):
    # What a module draws as it is imported is drawn only once.
    write(NETS + "\n    torch.rand(7)\n")
    first = trained(tmp_path / "a", custom())
    assert "nets" in sys.modules
    assert_same_end(first, trained(tmp_path / "b", custom()))
    with pytest.raises(AssertionError):
        assert_same_end(first, trained(tmp_path / "c", custom(seed=1)))


def test_a_resumed_run_ends_in_the_same_bits(custom, tmp_path, monkeypatch, capsys):
    whole = trained(tmp_path / "whole", custom())
    cut = RunFolder(tmp_path / "cut")
    with pytest.raises(KilledError):
        start(custom(), cut, [KillAt(8)])
    assert main(["train", "--resume", "cut", "--display", "none"]) == 0
    assert_same_end(whole, cut)
    capsys.readouterr()
    # Elsewhere the functions are not found.
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    for name in ("nets", "my_data"):
        del sys.modules[name]
    assert main(["train", "--resume", "../cut"]) == 2
    error = capsys.readouterr().err
    assert "no module named 'my_data' was found, neither in" in error
    assert "Run freezeout in the folder that holds it." in error
    assert error.count("\n") == 1


def test_a_checkpoint_of_a_network_that_has_changed_is_refused(custom, write, tmp_path):
    run = RunFolder(tmp_path / "run")
    with pytest.raises(KilledError):
        start(custom(), run, [KillAt(8)])
    write(NETS.replace("width=4", "width=5"))
    del sys.modules["nets"]
    with pytest.raises(CheckpointError, match="belongs to another network"):
        resume(run)


def test_a_control_has_the_same_layers_and_ends_in_the_same_weights(custom, tmp_path):
    frozen = trained(tmp_path / "frozen", custom())
    control = trained(tmp_path / "control", custom(freeze=False))
    weights = [torch.load(r.checkpoint, weights_only=True)["model"] for r in (frozen, control)]
    for name, value in weights[0].items():
        assert torch.equal(value, weights[1][name]), name
    layers = [r.read_log()[0]["layers"] for r in (frozen, control)]
    assert layers[0] == layers[1] == ["stem.0", "body.0", "head"]


def test_constant_time_and_a_prediction(custom, tmp_path):
    result = start(custom(const_time=True), RunFolder(tmp_path / "run"))
    assert result.plan is not None
    assert result.plan.costs.layers[-1].name == "head"
    assert result.trainer.settings.steps == result.trainer.step


def test_size_settings_hold_for_custom_data(custom):
    _, dataset = prepare(custom(train_size=20, holdout=10, shrink=2, padding=1, flip=True))
    assert dataset.train_images.shape == (20, 2, 3, 4)
    assert len(dataset.test_images) == 10
    assert dataset.classes == ("0", "1", "2")
    settings, _ = prepare(custom(padding=1))
    assert (settings.padding, settings.flip) == (1, False)


def test_a_plan_of_a_custom_network_on_custom_data(custom, tmp_path, capsys):
    words = ["--model", CUSTOM["model"], "--data", CUSTOM["data"], "--batch-size", "16"]
    assert main(["plan", *words, "--rounds", "1", "--device", "cpu", "--t0", "0.5"]) == 0
    assert "freezeout train --model nets:make --data my_data:load" in capsys.readouterr().out
    assert (tmp_path / "runs" / "plan-my_data-load-nets-make-1" / "plan.json").is_file()


def test_a_plan_has_images_as_small_as_the_run(custom, write, tmp_path, capsys):
    write("def make(image_size): raise ValueError(f'images of {image_size}')")
    (tmp_path / "s.toml").write_text('model = "nets:make"\nshrink = 2\n')
    words = ["plan", "--config", "s.toml", "--data", "my_data:load", "--rounds", "1"]
    assert main(words) == 2
    assert "ValueError: images of (3, 4)" in capsys.readouterr().err
    (tmp_path / "s.toml").write_text('model = "nets:make"\nshrink = 7\n')
    assert main(words) == 2
    assert "shrink=7 leaves nothing of images of 6x8" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.multiprocess
def test_an_experiment_finds_network_and_data_in_its_processes(custom, tmp_path):
    values = {**CUSTOM, "arms": {"turns": True, "baseline": False}, "grid": {"seed": [0]}}
    experiment = Experiment(tmp_path / "out", Grid.from_dict(values, "test"))
    events = []
    assert experiment.run(Pool(1, 1, tmp_path / "logs", events.append))
    assert [e.reason for e in events if e.kind == "failed"] == []
    folder = experiment.folder / "runs" / "nets-make-on-my_data-load"
    arms = sorted(path.name for path in folder.iterdir() if path.is_dir())
    assert arms == ["cubic-0.5"]
    alone = trained(tmp_path / "alone", custom())
    assert_same_end(RunFolder(folder / "cubic-0.5" / "seed-0"), alone)


def test_an_experiment_in_which_nothing_can_be_measured_says_so(custom, tmp_path):
    values = {**CUSTOM, "arms": {"equal_time": True}, "grid": {"seed": [0]}}
    experiment = Experiment(tmp_path / "out", Grid.from_dict(values, "test"))

    class Failing:
        def run(self, teams, *, deadline=None):
            return True

    refused(lambda: experiment.run(Failing()), "no training step could be measured")


def test_the_example_of_the_docs_learns(write, tmp_path):
    page = (Path(__file__).parents[3] / "docs" / "training.md").read_text()
    (code,) = re.findall(r"^```python\n(.*?)^```", page, re.S | re.M)
    write(code, "mine.py")
    changes = {"model": "mine:make_net", "data": "mine:load", "epochs": 2, "lr": 0.05}
    result = start(Settings(**{**CUSTOM, **changes}), RunFolder(tmp_path / "run"), predict=False)
    assert result.trainer.scheduler.layers.names == ("0", "3", "8")
    assert result.trainer.history[-1].test_error < 60  # by guessing 90


# --- Settings ----------------------------------------------------------------------------------


def test_settings_with_custom_names_survive_toml(tmp_path):
    settings = Settings(model="package.nets:Zoo.make", data="package.data:load", shrink=2)
    file = tmp_path / "settings.toml"
    file.write_bytes(toml_bytes(settings.to_dict()))
    assert Settings.from_dict(read_toml(file)) == settings
    assert settings.title == "package.nets:Zoo.make on package.data:load, cubic, t0 = 0.8"


@pytest.mark.parametrize("name", ["model", "data"])
@pytest.mark.parametrize(
    ("value", "words"),
    [
        (":make", "--NAME must name a module and, after a colon, the function"),
        ("nets:", "--NAME must name a module and, after a colon, the function"),
        ("nets:a:b", "Write it as in --NAME package.module:function"),
        ("nets.py:make", "--NAME names a module, not a file, .* --NAME nets:make, in the folder"),
        ("a/nets:make", "Write --NAME a.nets:make"),
    ],
)
def test_settings_refuse_another_form(name, value, words):
    refused(lambda: Settings.from_dict({name: value}), words.replace("NAME", name))
    with pytest.raises(ValueError, match="a module"):
        Settings(**{name: value})


def test_a_dot_in_place_of_the_colon_gets_advice(custom):
    words = "A custom network is named with a colon: 'nets:make'"
    refused(lambda: Trainer(*prepare(custom(model="nets.make"))), words)
    refused(lambda: Settings.from_dict({"data": "my.load"}), "as in mypackage.data:load")


def test_names_of_custom_data():
    assert canonical_name("Package.data:Load") == "Package.data:Load"
    assert default_augmentation("package.data:load") == Augmentation(padding=0, flip=False)
