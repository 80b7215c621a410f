"""How many steps measuring takes, and how much memory training does."""

import json
import os
import subprocess
import sys

import pytest
import torch
from torch import nn

from freezeout import measure_costs
from freezeout.costs.bench import MOST_DEPTHS
from freezeout.lab.models import build


class Counted(nn.Sequential):
    calls = 0

    def forward(self, x):
        type(self).calls += 1
        return super().forward(x)


@pytest.mark.parametrize("count", [2, 8, 30])
def test_a_few_dozen_steps_are_run_and_progress_tells_of_each(count):
    net = Counted(*(nn.Linear(4, 4) for _ in range(count)))
    Counted.calls = 0
    told = []
    x = torch.randn(2, 4)
    measure_costs(net, x, rounds=5, progress=lambda done, to_do: told.append((done, to_do)))
    most = min(count, MOST_DEPTHS)
    assert Counted.calls == 4 + 2 * most + 5 * (most + 1) <= 60
    assert told == [(i + 1, Counted.calls) for i in range(Counted.calls)]


_PEAK = """
import gc, json, torch
from pathlib import Path
torch.set_num_threads(1)
import freezeout.costs.costs
from torch import nn
torch.manual_seed(0)
nets = {
    "weights": lambda: nn.Sequential(*(nn.Linear(2000, 2000) for _ in range(4))),
    "activations": lambda: nn.Sequential(*(nn.BatchNorm2d(4) for _ in range(8))),
}
inputs = {"weights": (4, 2000), "activations": (64, 4, 96, 96)}

def train(net, x, optimizer):
    for _ in range(3):
        net(x).mean().backward()
        optimizer.step()
        optimizer.zero_grad()

def measure(net, x, optimizer):
    freezeout.measure_costs(net, x, optimizer=optimizer, rounds=1)

def peak(what, name):
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts again from here
    net, x = nets[name](), torch.randn(*inputs[name])
    what(net, x, torch.optim.SGD(net.parameters(), lr=0.01, momentum=0.9))
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM"))

none = peak(lambda *_: None, "weights")  # the weights alone
print(json.dumps([none, {n: [peak(train, n), peak(measure, n)] for n in nets}]))
"""


@pytest.fixture(scope="module")
def peaks():
    """Of a process with weights alone, and of training and of measuring each network (MiB)."""
    ran = subprocess.run(
        [sys.executable, "-c", _PEAK],
        capture_output=True,
        text=True,
        check=True,
        timeout=600,
        # Freed memory goes back at once, or what is counted is the allocator's waste.
        env={**os.environ, "MALLOC_MMAP_THRESHOLD_": "65536"},
    )
    return json.loads(ran.stdout)


@pytest.mark.slow
@pytest.mark.multiprocess
@pytest.mark.parametrize("name", ["weights", "activations"])
def test_the_peak_of_memory_is_that_of_training(peaks, name):
    alone, found = peaks
    train, measure = found[name]
    if name == "weights":  # the peak is really looked at: gradients and momentum come to it
        assert train > alone + 100
    # 64 MB of weights, 75 MB of activations; the margin is for code that is loaded (MiB)
    assert measure <= train + 20


@pytest.mark.gpu
def test_on_a_gpu_the_peak_is_that_of_training_and_events_tell_the_time():
    net = build("wrn-16-2", num_classes=10, in_channels=3, image_size=32).cuda()
    x = torch.randn(64, 3, 32, 32, device="cuda")
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
    before = [p.detach().clone() for p in net.parameters()]
    torch.cuda.reset_peak_memory_stats()
    costs = measure_costs(net, x, optimizer=optimizer)
    measured_peak = torch.cuda.max_memory_allocated()
    assert all(torch.equal(a, b) for a, b in zip(before, net.parameters(), strict=True))
    torch.cuda.reset_peak_memory_stats()
    for _ in range(3):
        net(x).mean().backward()
        optimizer.step()
        optimizer.zero_grad()
    assert measured_peak <= 1.02 * torch.cuda.max_memory_allocated()
    assert costs.step_seconds(7) < costs.step_seconds(0) < 1.0
    assert torch.cuda.get_device_name() in costs.device
