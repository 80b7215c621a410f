"""``freezeout plan`` of a custom network on an example, without data."""

import pytest
import torch
from torch import nn

import freezeout
from freezeout import Costs, Plan
from tests.lab.runs import planned


def test_a_custom_network(tmp_path, monkeypatch, capsys):
    (tmp_path / "nets_for_plan.py").write_text(
        "import torch\nfrom torch import nn\n"
        "def make():\n"
        "    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 2))\n"
        "def full():\n"
        "    net = nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 2))\n"
        "    return net, torch.randn(5, 8), torch.sum, torch.optim.Adam(net.parameters())\n"
    )
    monkeypatch.chdir(tmp_path)
    words = ["--model", "nets_for_plan:make", "--input", "3x8x8", "--batch-size", "4"]
    out = planned(capsys, *words, "--rounds", "1").out
    assert "\nnets_for_plan:make, batch 4, fp32  (" in out
    assert "a run of 10,000 steps is assumed" in out
    folder = tmp_path / "runs" / "plan-nets_for_plan-make-1"
    assert Costs.load(folder / "costs.json").batch_size == 4
    words = ["--model", "nets_for_plan:full", "--steps", "50", "--t0", "0.5", "--rounds", "1"]
    out = planned(capsys, *words).out
    made = Plan.load(tmp_path / "runs" / "plan-nets_for_plan-full-1" / "plan.json")
    assert made.total_steps == 50
    assert made.costs.batch_size == 5
    assert sum(layer.state_bytes for layer in made.costs.layers) > 2 * 4 * 90  # Adam's moments
    assert "assumed" not in out
    (usage,) = [line for line in out.splitlines() if "plan.scheduler(" in line]
    net = nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 2))
    scope = {"plan": made, "freezeout": freezeout, "model": net, "batch": torch.ones(5, 8)}
    exec(usage.strip(), {**scope, "optimizer": torch.optim.SGD(net.parameters(), lr=0.1)}, scope)
    assert scope["scheduler"].freeze_steps == made.freeze_steps


def test_what_keeps_the_backward_pass_alive_is_a_note(tmp_path, monkeypatch, capsys):
    (tmp_path / "tied_for_plan.py").write_text(
        "import torch\nfrom torch import nn\n"
        "class Tied(nn.Module):\n"
        "    def __init__(self):\n"
        "        super().__init__()\n"
        "        self.embed, self.body = nn.Embedding(9, 4), nn.Linear(4, 4)\n"
        "        self.head = nn.Linear(4, 9, bias=False)\n"
        "        self.head.weight = self.embed.weight\n"
        "    def forward(self, x):\n"
        "        return self.head(self.body(self.embed(x)))\n"
        "def make():\n"
        "    return Tied(), torch.randint(0, 9, (2, 3))\n"
    )
    monkeypatch.chdir(tmp_path)
    captured = planned(capsys, "--model", "tied_for_plan:make", "--rounds", "1")
    assert "note: layer 0 ('body') is frozen, but its output still needs a gradient" in captured.out
    assert captured.err == ""


@pytest.mark.parametrize("option", ["--epochs", "--holdout", "--train-size"])
def test_what_counts_data_is_refused_where_there_are_none(capsys, option):
    words = ["--model", "nets:make", "--input", "3x8x8", option, "5"]
    error = planned(capsys, *words, code=2).err
    assert f"{option} counts data, and none are given. Add --data, or leave it out" in error


def test_data_that_are_named_in_a_file_count_for_a_custom_network(tmp_path, monkeypatch, capsys):
    (tmp_path / "nets_on_digits.py").write_text(
        "from torch import nn\n"
        "def make(num_classes=3, in_channels=2, image_size=(4, 4)):\n"
        "    pixels = in_channels * image_size[0] * image_size[1]\n"
        "    hidden = nn.Sequential(nn.Flatten(), nn.Linear(pixels, 4), nn.ReLU())\n"
        "    return nn.Sequential(hidden, nn.Linear(4, num_classes))\n"
    )
    monkeypatch.chdir(tmp_path)
    (tmp_path / "s.toml").write_text('model = "nets_on_digits:make"\ndata = "digits"\n')
    words = ["--rounds", "1", "--batch-size", "16"]
    out = planned(capsys, "--config", "s.toml", *words).out
    assert "\nnets_on_digits:make on digits, batch 16, fp32  (" in out
    assert (tmp_path / "runs" / "plan-digits-nets_on_digits-make-1" / "costs.json").exists()
    out = planned(capsys, "--model", "nets_on_digits:make", "--input", "2x4x4", *words).out
    assert "\nnets_on_digits:make, batch 16, fp32  (" in out
    costs = Costs.load(tmp_path / "runs" / "plan-nets_on_digits-make-1" / "costs.json")
    assert costs.layers[0].parameter_bytes == 4 * (2 * 4 * 4 * 4 + 4)


def test_a_custom_network_that_rejects_its_batch(tmp_path, monkeypatch, capsys):
    (tmp_path / "bad_nets_for_plan.py").write_text(
        "import torch\nfrom torch import nn\n"
        "def make():\n    return nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 2))\n"
        "def one():\n    return nn.Linear(3, 3)\n"
        "class Huge(nn.Sequential):\n"
        "    def forward(self, x):\n"
        "        raise RuntimeError('DefaultCPUAllocator: can\\'t allocate memory: you tried')\n"
        "def huge():\n    return Huge(nn.Linear(3, 3), nn.Linear(3, 2)), torch.ones(8, 3)\n"
        "def wrong_target():\n"
        "    target = torch.zeros(5, dtype=torch.long)\n"
        "    loss = lambda out: nn.functional.cross_entropy(out, target)\n"
        "    return make(), torch.ones(4, 3), loss\n"
    )
    monkeypatch.chdir(tmp_path)
    words = ["--model", "bad_nets_for_plan:make", "--input", "7"]
    error = planned(capsys, *words, code=2).err
    assert "Sequential does not run on the example: mat1 and mat2" in error
    assert error.count("\n") == 1
    error = planned(capsys, "--model", "bad_nets_for_plan:one", "--input", "3", code=2).err
    assert error.count("\n") == 1
    assert "at least two" in error or "two layers" in error
    error = planned(capsys, "--model", "bad_nets_for_plan:huge", code=2).err
    assert error.count("\n") == 1
    assert "memory ran out" in error
    assert "smaller batch" in error
    error = planned(capsys, "--model", "bad_nets_for_plan:wrong_target", code=2).err
    assert error.count("\n") == 1
    assert "the loss fails on the model's output: Expected input batch_size (4)" in error
    assert not (tmp_path / "runs").exists()
