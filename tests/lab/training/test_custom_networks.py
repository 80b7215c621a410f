"""A custom network on data: how it is called and cut; one line per mistake."""

import re
import textwrap

import pytest
import torch
from torch import nn

import freezeout
from freezeout.lab import models
from freezeout.lab.cli import main
from freezeout.lab.training import Settings, Trainer, prepare
from freezeout.lab.training.custom import CustomNetwork
from freezeout.layers import split_layers
from freezeout.reference import RateOnly
from freezeout.schedule import Schedule
from freezeout.scheduler import FreezeOut
from tests.lab.training.custom import CUSTOM, NETS, refused, trained


def built(target="nets:make", **offers):
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
        ("def other(): pass", "module nets has no 'make'. Name what makes the model"),
        ("make = 3", "nets:make must be a function that returns the model, got int"),
        ("make = nn.Linear(1, 1)", "is a model already .*, so that every run begins with its own"),
        ("def make(): return 3", "nets:make must return a torch.nn.Module .*, got int"),
        ("def make(): return None, nn.Linear(1, 1)", "Module first in its tuple .*, got None"),
        ("def make(): return ()", "got a tuple of 0"),
        ("def make(): return nn.Linear(1, 1), 'x'", "the example that .* must hold tensors"),
        ("def make(): return nn.Linear", "must return .*, got the class Linear"),
        ("def make(width): pass", "num_classes, in_channels and image_size .*, but needs width"),
        ("def make(num_classes, /): pass", "but needs num_classes. Give defaults, or write"),
        (
            "def make(): raise ValueError('no\\nway')",
            "calling nets:make failed: ValueError: no",
        ),
        ("def make(): exit()", "calling nets:make ended the program"),
        ("import no_such_thing", "importing nets failed: it needs 'no_such_thing'"),
        ("1 / 0", "importing nets failed: ZeroDivisionError"),
    ],
)
def test_what_is_wrong_with_a_function_is_said_in_one_line(write, source, words):
    write(source)
    refused(built, words)


SGD = "torch.optim.SGD(net.parameters(), lr=1.0)"


@pytest.mark.parametrize(
    "parts",
    ["", "None,", "None, None, None", "torch.zeros(5, 2, 6, 8),", "torch.zeros(1, 2, 6, 8), None"],
)
def test_a_function_may_return_what_the_data_say_anyway(write, parts):
    write(f"def make():\n        net = nn.Linear(1, 1).eval()\n        return (net, {parts})")
    net = built()
    assert isinstance(net, nn.Linear)
    assert net.training


@pytest.mark.parametrize(
    ("parts", "words"),
    [
        ("None, torch.sum", "returns a loss, but a run on data takes the cross-entropy"),
        (f"None, None, {SGD}", "returns an optimizer, but a run .* of its settings"),
        (f"torch.zeros(2, 2, 6, 8), None, {SGD}", "returns an optimizer, but"),
        ("torch.zeros(2, 2, 8, 6)", r"\(N, 2, 6, 8\), got the shape \(2, 2, 8, 6\). Return the"),
        ("torch.zeros(2, 6, 8)", r"\(N, 2, 6, 8\), got the shape \(2, 6, 8\)"),
        ("{'x': torch.zeros(2, 2, 6, 8)}", r"\(N, 2, 6, 8\), got dict"),
    ],
)
def test_what_a_run_cannot_use_is_refused(write, parts, words):
    write(f"def make():\n        net = nn.Linear(1, 1)\n        return net, {parts}")
    message = refused(built, words)
    assert "Return the model alone, or train in a custom loop with freezeout.FreezeOut." in message


def test_train_and_plan_refuse_the_same(custom, write, capsys):
    write(
        f"{textwrap.dedent(NETS)}\n"
        "def full(num_classes, in_channels):\n"
        "    net = make(num_classes, in_channels)\n"
        f"    return net, None, None, {SGD}\n"
    )
    lines = []
    for verb in ("train", "plan"):
        words = [verb, "--model", "nets:full", "--data", CUSTOM["data"], "--batch-size", "16"]
        assert main(words) == 2
        lines.append(capsys.readouterr().err)
    assert lines[0] == lines[1]
    assert "nets:full returns an optimizer" in lines[0]


def test_a_command_that_shows_where_it_failed_can_be_run(write, capfd):
    write("def make(num_classes, image_size): raise ValueError('here')")
    message = refused(built, "See where: python -c '")
    code = re.search(r"python -c '(.*)'", message)[1]
    assert code == "import nets; nets.make(num_classes=3, image_size=(6, 8))"


def test_a_missing_module_is_said_in_one_line(write):
    refused(lambda: built("nowhere:make"), "no module named 'nowhere' was found, neither in")


def test_a_model_that_is_not_made_anew_is_refused(write):
    write("net = nn.Linear(1, 1)\ndef make(): return net")
    built()
    refused(built, "returned the same model as before. Make a new one")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            ("width, num_classes)", "width, 5)"),
            r"for each of the 3 classes, \(2, 3\) .* got \(2, 5\)",
        ),
        (("mean((2, 3))", "mean((1, 2, 3))"), "does not run on 2 images of 2x6x8: RuntimeError"),
        (
            ("return self.head", "return 3, self.head"),
            "classes, .* got a tuple of 2. .* logits alone",
        ),
        (("mean((2, 3)))", "mean((2, 3))).long()"), r"got \(2, 3\) in int64"),
        (
            ("Conv2d(in_channels", "Conv2d(3"),
            r"does not run .* \(nets.py, line 15\). Take in_ch",
        ),
        (
            (".mean((2, 3))", ".view(-1, 32)[:, :4]"),
            r"\(nets.py, line 15\).*--no-channels-last",
        ),
    ],
)
def test_a_network_that_does_not_fit_the_data_is_refused_before_anything_is_written(
    custom, write, tmp_path, change, words
):
    assert NETS.count(change[0]) == 1
    write(NETS.replace(*change))
    refused(lambda: trained(tmp_path / "run", custom()), words)
    assert not (tmp_path / "run").exists()


def test_a_network_with_lazy_modules_is_refused(custom, write, tmp_path):
    write("def make(): return nn.Sequential(nn.Flatten(), nn.LazyLinear(4), nn.Linear(4, 3))")
    refused(
        lambda: trained(tmp_path / "run", custom()), "lazy modules, .* Run it once within the fun"
    )


@pytest.mark.filterwarnings("default")  # torch.jit is deprecated
def test_a_scripted_network_is_refused(custom):
    network = CustomNetwork("nets:make", 3)
    scripted = torch.jit.script(nn.Sequential(nn.Flatten(), nn.Linear(4, 3)))
    refused(lambda: network.cut(scripted, torch.zeros(2, 1, 2, 2)), "scripted or traced module")


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("return y, y", "got a tuple of 2"),
        ("return y.detach()", "logits without a gradient, so it cannot learn"),
        ("raise ValueError('only when it learns')", "ValueError: only when it learns"),
    ],
)
def test_what_goes_wrong_only_in_training_mode_is_one_line_too(
    custom, write, tmp_path, body, words
):
    forward = f"""
            y = self.head(self.body(self.stem(images)).mean((2, 3)))
            if self.training: {body}
            return y
    """
    head, _, tail = NETS.partition("            return self.head")
    write(head + forward.lstrip("\n") + tail.partition("\n")[2])
    message = refused(lambda: trained(tmp_path / "run", custom()), words)
    assert message.startswith("what nets:make makes")


def test_being_cut_leaves_the_network_as_it_was(custom, write):
    write(NETS + "\n    def noisy(num_classes, in_channels):\n"
          "        net = make(num_classes, in_channels)\n"
          "        net.body.append(nn.Dropout(0.5))\n        return net\n")  # fmt: skip
    settings, dataset = prepare(custom(model="nets:noisy"))
    trainer = Trainer(settings, dataset)
    generator = torch.get_rng_state()
    torch.manual_seed(0)
    net = built("nets:noisy")
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
