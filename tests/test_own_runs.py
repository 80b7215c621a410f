"""The user's own network and data in runs: trained, resumed, compared; one line per mistake."""

import json
import re
import sys
import textwrap
from pathlib import Path

import pytest
import torch
from torch import nn

import freezeout
from freezeout import models
from freezeout.cli import main
from freezeout.data import Augmentation, canonical_name, data_shape, default_augmentation, load
from freezeout.errors import CheckpointError, RunError
from freezeout.experiments import Experiment, Grid, Pool
from freezeout.layers import split_layers
from freezeout.reference import RateOnly
from freezeout.schedule import Schedule
from freezeout.scheduler import FreezeOut
from freezeout.training import RunFolder, Settings, start
from freezeout.training.own import OwnNetwork
from freezeout.training.run import prepare, resume
from freezeout.training.toml import read_toml, toml_bytes
from freezeout.training.trainer import Trainer
from runs import KillAt, KilledError, assert_same_end

NETS = """
    class Net(nn.Module):
        def __init__(self, num_classes, in_channels, width=4):
            super().__init__()
            self.head = nn.Linear(width, num_classes)  # defined first, runs last
            self.stem = nn.Sequential(
                nn.Conv2d(in_channels, width, 3), nn.BatchNorm2d(width), nn.ReLU()
            )
            self.body = nn.Sequential(nn.Conv2d(width, width, 3), nn.BatchNorm2d(width), nn.ReLU())

        def forward(self, images):
            return self.head(self.body(self.stem(images)).mean((2, 3)))

    def make(num_classes, in_channels):
        return Net(num_classes, in_channels)
"""

DATA = """
    def load():
        drawn = torch.Generator().manual_seed(1)
        labels = torch.randint(0, 3, (64,), generator=drawn)
        images = torch.randint(0, 80, (64, 2, 6, 8), generator=drawn)
        images[:, 0] += 80 * labels.view(-1, 1, 1)  # something to learn
        images = images.to(torch.uint8)
        return images[:48], labels[:48], images[48:], labels[48:]
"""

OWN = {
    "model": "own_nets:make",
    "data": "own_data:load",
    "batch_size": 16,
    "epochs": 4,
    "t0": 0.5,
    "device": "cpu",
    "threads": 1,
}
"""Twelve steps; three layers, of which two freeze, at steps 2 and 6."""

WORDS = [w for name, value in OWN.items() for w in (f"--{name.replace('_', '-')}", str(value))]


@pytest.fixture
def write(tmp_path, monkeypatch):
    """Writes a module into the current folder, which is in no path."""
    monkeypatch.chdir(tmp_path)
    path, modules = list(sys.path), set(sys.modules)

    def write(source, file="own_nets.py"):
        (tmp_path / file).write_text(
            "import torch\nimport numpy as np\nfrom torch import nn\n" + textwrap.dedent(source)
        )

    yield write
    assert sys.path == path
    for name in set(sys.modules) - modules:
        if str(tmp_path) in str(getattr(sys.modules[name], "__file__", None) or ""):
            del sys.modules[name]


@pytest.fixture
def own(write):
    """Network and data of the user's own, and settings that name them."""
    write(NETS)
    write(DATA, "own_data.py")

    def settings(**changes):
        return Settings(**{**OWN, **changes})

    return settings


def trained(folder, settings):
    run = RunFolder(folder)
    start(settings, run)
    return run


def refused(call, words):
    """The complaint, which is one line with these words in it."""
    with pytest.raises(RunError) as caught:
        call()
    message = str(caught.value)
    assert re.search(words, message), message
    assert "\n" not in message
    return message


# --- A whole run -------------------------------------------------------------------------------


def test_train_on_the_command_line(own, tmp_path, capsys):
    assert main(["train", *WORDS, "--display", "lines"]) == 0
    printed = capsys.readouterr().out
    assert "own_nets:make on own_data:load, cubic, t0 = 0.5" in printed
    # In the order of execution, not of definition.
    assert re.findall(r"froze layer \d \((\S+)\)", printed) == ["stem.0", "body.0"]
    folder = tmp_path / "runs" / "own_data-load-own_nets-make-1"
    summary = json.loads((folder / "summary.json").read_text())
    assert (summary["model"], summary["data"]) == ("own_nets:make", "own_data:load")
    assert (summary["steps"], summary["frozen_layers"], summary["layers"]) == (12, 2, 3)
    saved = read_toml(folder / "settings.toml")
    assert saved["model"] == "own_nets:make"
    assert (saved["padding"], saved["flip"]) == (0, False)
    # The file can be given back, with all that is in it.
    again = ["--config", str(folder / "settings.toml"), "--out", "again", "--display", "none"]
    assert main(["train", *again]) == 0
    assert_same_end(RunFolder(folder), RunFolder(Path("again")))


def test_the_seed_decides_the_weights_whether_or_not_the_module_was_imported(own, write, tmp_path):
    # What a module draws as it is imported is drawn only once.
    write(NETS + "\n    torch.rand(7)\n")
    first = trained(tmp_path / "a", own())
    assert "own_nets" in sys.modules
    assert_same_end(first, trained(tmp_path / "b", own()))
    with pytest.raises(AssertionError):
        assert_same_end(first, trained(tmp_path / "c", own(seed=1)))


def test_a_resumed_run_ends_in_the_same_bits(own, tmp_path, monkeypatch, capsys):
    whole = trained(tmp_path / "whole", own())
    cut = RunFolder(tmp_path / "cut")
    with pytest.raises(KilledError):
        start(own(), cut, [KillAt(8)])
    assert main(["train", "--resume", "cut", "--display", "none"]) == 0
    assert_same_end(whole, cut)
    capsys.readouterr()
    # Elsewhere the functions are not found.
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    for name in ("own_nets", "own_data"):
        del sys.modules[name]
    assert main(["train", "--resume", "../cut"]) == 2
    error = capsys.readouterr().err
    assert "no module named 'own_data' was found, neither in" in error
    assert "Run freezeout in the folder that holds it." in error
    assert error.count("\n") == 1


def test_a_checkpoint_of_a_network_that_has_changed_is_refused(own, write, tmp_path):
    run = RunFolder(tmp_path / "run")
    with pytest.raises(KilledError):
        start(own(), run, [KillAt(8)])
    write(NETS.replace("width=4", "width=5"))
    del sys.modules["own_nets"]
    with pytest.raises(CheckpointError, match="belongs to another network"):
        resume(run)


def test_a_control_has_the_same_layers_and_ends_in_the_same_weights(own, tmp_path):
    frozen = trained(tmp_path / "frozen", own())
    control = trained(tmp_path / "control", own(freeze=False))
    weights = [torch.load(r.checkpoint, weights_only=True)["model"] for r in (frozen, control)]
    for name, value in weights[0].items():
        assert torch.equal(value, weights[1][name]), name
    layers = [r.read_log()[0]["layers"] for r in (frozen, control)]
    assert layers[0] == layers[1] == ["stem.0", "body.0", "head"]


def test_constant_time_and_a_prediction(own, tmp_path):
    result = start(own(const_time=True), RunFolder(tmp_path / "run"))
    assert result.plan is not None
    assert result.plan.costs.layers[-1].name == "head"
    assert result.trainer.settings.steps == result.trainer.step


def test_size_settings_hold_for_own_data(own):
    _, dataset = prepare(own(train_size=20, holdout=10, shrink=2, padding=1, flip=True))
    assert dataset.train_images.shape == (20, 2, 3, 4)
    assert len(dataset.test_images) == 10
    assert dataset.classes == ("0", "1", "2")
    settings, _ = prepare(own(padding=1))
    assert (settings.padding, settings.flip) == (1, False)


def test_a_plan_of_an_own_network_on_own_data(own, tmp_path, capsys):
    words = ["--model", OWN["model"], "--data", OWN["data"], "--batch-size", "16"]
    assert main(["plan", *words, "--rounds", "1", "--device", "cpu", "--t0", "0.5"]) == 0
    assert "freezeout train --model own_nets:make --data own_data:load" in capsys.readouterr().out
    assert (tmp_path / "runs" / "plan-own_data-load-own_nets-make-1" / "plan.json").is_file()


def test_a_plan_has_images_as_small_as_the_run(own, write, tmp_path, capsys):
    write("def make(image_size): raise ValueError(f'images of {image_size}')")
    (tmp_path / "s.toml").write_text('model = "own_nets:make"\nshrink = 2\n')
    words = ["plan", "--config", "s.toml", "--data", "own_data:load", "--rounds", "1"]
    assert main(words) == 2
    assert "ValueError: images of (3, 4)" in capsys.readouterr().err
    (tmp_path / "s.toml").write_text('model = "own_nets:make"\nshrink = 7\n')
    assert main(words) == 2
    assert "shrink=7 leaves nothing of images of 6x8" in capsys.readouterr().err


@pytest.mark.multiprocess
def test_an_experiment_finds_network_and_data_in_its_processes(own, tmp_path):
    values = {**OWN, "arms": {"turns": True, "baseline": False}, "grid": {"seed": [0]}}
    experiment = Experiment(tmp_path / "out", Grid.from_dict(values, "test"))
    events = []
    assert experiment.run(Pool(1, 1, tmp_path / "logs", events.append))
    assert [e.reason for e in events if e.kind == "failed"] == []
    folder = experiment.folder / "runs" / "own_nets-make-on-own_data-load"
    arms = sorted(path.name for path in folder.iterdir() if path.is_dir())
    assert arms == ["cubic-0.5"]
    alone = trained(tmp_path / "alone", own())
    assert_same_end(RunFolder(folder / "cubic-0.5" / "seed-0"), alone)


def test_an_experiment_in_which_nothing_can_be_measured_says_so(own, tmp_path):
    values = {**OWN, "arms": {"equal_time": True}, "grid": {"seed": [0]}}
    experiment = Experiment(tmp_path / "out", Grid.from_dict(values, "test"))

    class Failing:
        def run(self, teams, *, deadline=None):
            return True

    refused(lambda: experiment.run(Failing()), "no training step could be measured")


def test_the_example_of_the_docs_learns(write, tmp_path):
    page = (Path(__file__).parents[1] / "docs" / "training.md").read_text()
    (code,) = re.findall(r"^```python\n(.*?)^```", page, re.S | re.M)
    write(code, "mine.py")
    changes = {"model": "mine:make_net", "data": "mine:load", "epochs": 2, "lr": 0.05}
    result = start(Settings(**{**OWN, **changes}), RunFolder(tmp_path / "run"), predict=False)
    assert result.trainer.scheduler.layers.names == ("0", "3", "8")
    assert result.trainer.history[-1].test_error < 60  # by guessing 90


# --- Settings ----------------------------------------------------------------------------------


def test_settings_with_own_names_survive_toml(tmp_path):
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


def test_a_dot_in_place_of_the_colon_gets_advice(own):
    words = "A network of your own is named with a colon: 'own_nets:make'"
    refused(lambda: Trainer(*prepare(own(model="own_nets.make"))), words)
    refused(lambda: Settings.from_dict({"data": "own.load"}), "as in mypackage.data:load")


def test_names_of_own_data():
    assert canonical_name("Package.data:Load") == "Package.data:Load"
    assert default_augmentation("package.data:load") == Augmentation(padding=0, flip=False)


# --- The network -------------------------------------------------------------------------------


def built(target="own_nets:make", **offers):
    offers = {"num_classes": 3, "in_channels": 2, "image_size": (6, 8), **offers}
    return models.build(target, **offers)


@pytest.mark.parametrize(
    ("takes", "gets"),
    [
        ("", {}),
        ("num_classes", {"num_classes": 3}),
        ("*, image_size, width=1", {"image_size": (6, 8), "width": 1}),
        ("**all", {"num_classes": 3, "in_channels": 2, "image_size": (6, 8)}),
        ("num_classes=7, /", {"num_classes": 7}),
        ("num_classes=7, /, **all", {"num_classes": 7, "in_channels": 2, "image_size": (6, 8)}),
    ],
)
def test_a_function_gets_what_it_takes_by_name(write, takes, gets):
    write(f"""
        def make({takes}):
            got = locals()
            net = nn.Linear(1, 1).eval()
            net.got = {{**got.pop("all", {{}}), **got}}
            return net
    """)
    net = built()
    assert net.got == gets
    assert net.training


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("def other(): pass", "module own_nets has no 'make'. Name what makes the model"),
        ("make = 3", "own_nets:make must be a function that returns the model, got int"),
        ("make = nn.Linear(1, 1)", "is a model already .*, so that every run begins with weights"),
        ("def make(): return 3", "own_nets:make must return a torch.nn.Module, got int"),
        ("def make(): return nn.Linear(1, 1), None", "must return .*, got tuple. Return the model"),
        ("def make(): return nn.Linear", "must return .*, got the class Linear"),
        ("def make(width): pass", "num_classes, in_channels and image_size .*, but needs width"),
        ("def make(num_classes, /): pass", "but needs num_classes. Give defaults, or write"),
        (
            "def make(): raise ValueError('no\\nway')",
            "calling own_nets:make failed: ValueError: no",
        ),
        ("def make(): exit()", "calling own_nets:make ended the program"),
        ("import no_such_thing", "importing own_nets failed: it needs 'no_such_thing'"),
        ("1 / 0", "importing own_nets failed: ZeroDivisionError"),
    ],
)
def test_what_is_wrong_with_a_function_is_said_in_one_line(write, source, words):
    write(source)
    refused(built, words)


def test_a_command_that_shows_where_it_failed_can_be_run(write, capfd):
    write("def make(num_classes, image_size): raise ValueError('here')")
    message = refused(built, "See where: python -c '")
    code = re.search(r"python -c '(.*)'", message)[1]
    assert code == "import own_nets; own_nets.make(num_classes=3, image_size=(6, 8))"


def test_a_missing_module_is_said_in_one_line(write):
    refused(lambda: built("nowhere:make"), "no module named 'nowhere' was found, neither in")


def test_a_model_that_is_not_made_anew_is_refused(write):
    write("net = nn.Linear(1, 1)\ndef make(): return net")
    built()
    refused(built, "returned the very model that it returned before. Make a new one")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            ("width, num_classes)", "width, 5)"),
            r"for each of the 3 classes, \(2, 3\) .* got \(2, 5\)",
        ),
        (("mean((2, 3))", "mean((1, 2, 3))"), "does not run on 2 images of 2x6x8: RuntimeError"),
        (("return self.head", "return 3, self.head"), "classes, .* got tuple. .* logits alone"),
        (("mean((2, 3)))", "mean((2, 3))).long()"), r"got \(2, 3\) in int64"),
        (
            ("Conv2d(in_channels", "Conv2d(3"),
            r"does not run .* \(own_nets.py, line 15\). Take in_ch",
        ),
        (
            (".mean((2, 3))", ".view(-1, 32)[:, :4]"),
            r"\(own_nets.py, line 15\).*--no-channels-last",
        ),
    ],
)
def test_a_network_that_does_not_fit_the_data_is_refused_before_anything_is_written(
    own, write, tmp_path, change, words
):
    assert NETS.count(change[0]) == 1
    write(NETS.replace(*change))
    refused(lambda: trained(tmp_path / "run", own()), words)
    assert not (tmp_path / "run").exists()


def test_a_network_with_lazy_modules_is_refused(own, write, tmp_path):
    write("def make(): return nn.Sequential(nn.Flatten(), nn.LazyLinear(4), nn.Linear(4, 3))")
    refused(lambda: trained(tmp_path / "run", own()), "lazy modules, .* Run it once within the fun")


@pytest.mark.filterwarnings("default")  # torch.jit is deprecated
def test_a_scripted_network_is_refused(own):
    network = OwnNetwork("own_nets:make", 3)
    scripted = torch.jit.script(nn.Sequential(nn.Flatten(), nn.Linear(4, 3)))
    refused(lambda: network.cut(scripted, torch.zeros(2, 1, 2, 2)), "scripted or traced module")


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("return y, y", "got tuple"),
        ("return y.detach()", "logits without a gradient, so it cannot learn"),
        ("raise ValueError('only when it learns')", "ValueError: only when it learns"),
    ],
)
def test_what_goes_wrong_only_in_training_mode_is_one_line_too(own, write, tmp_path, body, words):
    forward = f"""
            y = self.head(self.body(self.stem(images)).mean((2, 3)))
            if self.training: {body}
            return y
    """
    head, _, tail = NETS.partition("            return self.head")
    write(head + forward.lstrip("\n") + tail.partition("\n")[2])
    message = refused(lambda: trained(tmp_path / "run", own()), words)
    assert message.startswith("what own_nets:make makes")


def test_being_cut_leaves_the_network_as_it_was(own, write):
    write(NETS + "\n    def noisy(num_classes, in_channels):\n"
          "        net = make(num_classes, in_channels)\n"
          "        net.body.append(nn.Dropout(0.5))\n        return net\n")  # fmt: skip
    settings, dataset = prepare(own(model="own_nets:noisy"))
    trainer = Trainer(settings, dataset)
    generator = torch.get_rng_state()
    torch.manual_seed(0)
    net = built("own_nets:noisy")
    assert torch.equal(generator, torch.get_rng_state())
    for name, value in net.state_dict().items():
        assert torch.equal(value, trainer.model.state_dict()[name]), name
    assert all(module.training for module in trainer.model.modules())
    freezeout.unfreeze(trainer.model)  # drops the look at the first pass
    assert not trainer.model._forward_hooks


def test_built_in_networks_are_cut_as_they_are_defined():
    settings, dataset = prepare(Settings(model="wrn-10-1", device="cpu", train_size=60))
    trainer = Trainer(settings, dataset)
    assert trainer.scheduler.layers.names == split_layers(trainer.model).names


def test_the_control_takes_layers():
    net = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2), nn.Linear(2, 2))
    layers = split_layers(net, layers=[["0", "1"], "2"])
    optimizers = [torch.optim.SGD(net.parameters(), lr=1.0) for _ in range(2)]
    schedule = Schedule(t0=0.5)
    control = RateOnly(optimizers[0], net, 8, schedule=schedule, layers=layers)
    freezing = FreezeOut(optimizers[1], net, 8, schedule=schedule, layers=layers)
    assert control.layers is layers
    assert control.factors_at(1) == freezing.factors_at(1)
    assert len(RateOnly(optimizers[0], net, 8, schedule=schedule).layers) == 3


# --- The data ----------------------------------------------------------------------------------

IMAGES = "torch.arange(6 * 2 * 3 * 3).view(6, 2, 3, 3).to(torch.uint8)"
LABELS = "torch.tensor([0, 1, 2, 0, 1, 2])"


def loads(write, value, before=""):
    write(
        f"{before}\ndef load():\n    x, y = {IMAGES}, {LABELS}\n    return {value}", "own_data.py"
    )
    return load("own_data:load")


@pytest.mark.parametrize(
    "value",
    [
        "x, y, x[:2], y[:2]",
        "x.numpy(), y.numpy(), x[:2].numpy(), y[:2].numpy()",
        "x, y.to(torch.int32), x[:2].numpy(), y[:2].numpy().astype('uint16')",
        "x, y.to(torch.uint8), x[:2], np.ascontiguousarray(y[:2]).astype('>i4')",
        "np.flip(np.flip(x.numpy())), y, x[:2], np.flip(np.flip(y[:2].numpy()))",
    ],
)
def test_data_may_be_tensors_or_arrays(write, value):
    dataset = loads(write, value)
    expected = torch.arange(6 * 2 * 3 * 3).view(6, 2, 3, 3).to(torch.uint8)
    assert torch.equal(dataset.train_images, expected)
    assert torch.equal(dataset.test_images, expected[:2])
    assert torch.equal(dataset.train_labels, torch.tensor([0, 1, 2, 0, 1, 2]))
    assert torch.equal(dataset.test_labels, torch.tensor([0, 1]))
    assert dataset.train_labels.dtype == dataset.test_labels.dtype == torch.int64
    assert (dataset.name, dataset.classes) == ("own_data:load", ("0", "1", "2"))


def test_read_only_arrays_do(write):
    dataset = loads(write, "x, y, fixed(x[:2]), y[:2]", before=(
        "def fixed(x):\n    x = x.numpy()\n    x.flags.writeable = False\n    return x"
    ))  # fmt: skip
    assert dataset.test_images.shape == (2, 2, 3, 3)


def test_data_may_be_a_dataset(write):
    value = "Dataset('mine', x, y, x[:2], y[:2], ('a', 'b', 'c', 'd'))"
    dataset = loads(write, value, before="from freezeout.data import Dataset")
    assert (dataset.name, dataset.num_classes) == ("mine", 4)
    shape = data_shape("own_data:load")
    assert (shape.channels, shape.image_size) == (2, (3, 3))
    assert (shape.num_classes, shape.train_images) == (4, 6)


def test_data_drawn_at_random_are_the_same_every_time(write):
    state = torch.get_rng_state()
    one = loads(write, "(torch.rand(6, 2, 3, 3) * 255).byte(), y, x, y")
    assert torch.equal(state, torch.get_rng_state())
    torch.rand(3)
    assert torch.equal(one.train_images, load("own_data:load").train_images)


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("x", "must return a freezeout.data.Dataset or a tuple .*, got Tensor"),
        ("x, y", r"a tuple \(train_images, train_labels, test_images, .*, got a tuple of 2"),
        ("None", "got None"),
        ("x / 255, y, x, y", "train_images must be a uint8 tensor, got torch.float32. Give pixels"),
        ("x, y, x.numpy() / 255.0, y", "test_images must be a uint8 tensor, got torch.float64"),
        ("x, y.float(), x, y", "train_labels must be an int64 tensor, got torch.float32"),
        ("x, y > 0, x, y", "train_labels must be an int64 tensor, got torch.bool"),
        ("x, [0, 1, 2, 0, 1, 2], x, y", "train_labels must be a tensor or a NumPy array, got list"),
        ("x, np.array(['a'] * 6), x, y", "train_labels must hold numbers, got an array of <U1"),
        ("x[:, 0], y, x, y", r"train_images must have a shape \(N, C, H, W\) .* got \(6, 3, 3\)"),
        ("x, y[:5], x, y", r"train_labels must have the shape \(6,\), got \(5,\)"),
        ("x, y - 1, x, y", r"train_labels must lie in \[0, 2\], got values from -1 to 1"),
        ("x, y + 99, x, y", "labels go up to 101, but there are only 12 images"),
        ("x[:0], y[:0], x, y", "train_images must have a shape .* without zeros"),
        ("x, y, x[:, :1], y", r"one shape \(C, H, W\), got \(2, 3, 3\) and \(1, 3, 3\)"),
        ("x.new_ones(6, 9, 8, 3), y, x.new_ones(6, 9, 8, 3), y", r"like \(N, H, W, C\). Permute"),
        ("x.new_ones(6, 8, 8, 1), y, x.new_ones(6, 8, 8, 1), y", r"like \(N, H, W, C\). Permute"),
        ("1 / 0", "calling own_data:load failed: ZeroDivisionError: .* own_data.load()"),
    ],
)
def test_what_is_wrong_with_data_is_said_in_one_line(write, value, words):
    refused(lambda: loads(write, value), words)


def test_signals_that_are_one_pixel_wide_are_images(write):
    dataset = loads(write, "x.new_ones(6, 5, 9, 1), y, x.new_ones(6, 5, 9, 1), y")
    assert dataset.image_size == (9, 1)


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("def lod(): pass", "module own_data has no 'load'. Did you mean 'lod'?"),
        ("def load(folder): pass", "called without arguments, but needs folder"),
        ("from freezeout.data import load as digits\nload = digits('digits')", "data set already"),
        ("load = 3", "must be a function that returns the data, got int"),
    ],
)
def test_what_is_wrong_with_a_function_of_data_is_said_in_one_line(write, source, words):
    write(source, "own_data.py")
    refused(lambda: load("own_data:load"), words)
