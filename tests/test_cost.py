"""Measured costs: right numbers, nothing left behind, every mistake in one line."""

import copy
import itertools
import json
import math
import os
import random
import subprocess
import sys
import warnings

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.checkpoint import checkpoint
from torch.utils.flop_counter import FlopCounterMode

from costly import Clock, CostlySGD, network, prices, true_seconds
from freezeout import (
    CostError,
    Costs,
    FreezeOut,
    FreezeOutError,
    Freezer,
    FrozenPrefixWarning,
    Schedule,
    SplitError,
    measure_costs,
    plan,
    split_layers,
)
from freezeout._measure import MOST_DEPTHS, _spread
from freezeout.models import build


def mlp(sizes=(8, 16, 12, 16, 4)):
    layers = []
    for a, b in itertools.pairwise(sizes):
        layers += [nn.Linear(a, b), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


class Noisy(nn.Module):
    """BatchNorm, dropout, randomness of three kinds, a counter, and a part kept in evaluation."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(nn.Linear(8, 8), nn.BatchNorm1d(8))
        self.drop = nn.Dropout(0.5)
        self.body = nn.Linear(8, 8)
        self.still = nn.BatchNorm1d(8)
        self.head = nn.Linear(8, 3)
        self.calls = 0

    def forward(self, x):
        self.calls += 1
        scale = random.random() + np.random.random()
        return self.head(self.still(self.body(self.drop(self.stem(x * scale)))))


@pytest.fixture
def virtual(monkeypatch):
    """A clock that only `costly` layers move."""
    clock = Clock()
    monkeypatch.setattr("freezeout._measure.time", clock)
    monkeypatch.setattr(CostlySGD, "clock", clock)
    return clock


def measured(clock, prices, *, seconds=0.0, **options):
    CostlySGD.seconds = seconds
    net = network(clock, prices)
    optimizer = CostlySGD(net.parameters(), lr=0.1)
    return measure_costs(net, torch.ones(2, 4), optimizer=optimizer, **options)


# --- The numbers -------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [2, 3, 5, 6])
def test_the_step_at_every_depth_is_what_it_really_takes(virtual, count):
    price = prices(count)
    costs = measured(virtual, price, seconds=0.001)
    for depth in range(count):
        assert costs.step_seconds(depth) == pytest.approx(true_seconds(price, depth, 0.001))
    assert costs.depths == tuple(range(count))
    # 16 weights of 4 bytes, no momentum
    assert [layer.gradient_bytes for layer in costs.layers] == [64] * count
    assert [layer.state_bytes for layer in costs.layers] == [0] * count


def test_single_layers_get_their_own_forward_backward_and_optimizer(virtual):
    price = prices(5)
    costs = measured(virtual, price, seconds=0.001)
    for i, layer in enumerate(costs.layers):
        assert layer.forward == pytest.approx(price[i].forward)
        assert layer.optimizer == pytest.approx(0.001)
        if i < 4:
            assert layer.frozen_forward == pytest.approx(price[i].frozen)
            # The input gradient that goes with it is the next layer's.
            assert layer.backward == pytest.approx(price[i].weight + price[i + 1].input)
            assert layer.saving == pytest.approx(
                true_seconds(price, i, 0.001) - true_seconds(price, i + 1, 0.001)
            )
    assert costs.layers[4].backward == pytest.approx(price[4].weight)
    assert costs.overhead == pytest.approx(0.0, abs=1e-12)


@pytest.mark.parametrize("count", [12, 40, 100])
def test_depths_between_the_measured_ones_are_close(virtual, count):
    price = prices(count)
    costs = measured(virtual, price, seconds=0.0002)
    whole = true_seconds(price, 0, 0.0002)
    assert len(costs.depths) == MOST_DEPTHS
    for depth in costs.depths:
        assert costs.step_seconds(depth) == pytest.approx(true_seconds(price, depth, 0.0002))
    for depth in range(count):
        error = costs.step_seconds(depth) - true_seconds(price, depth, 0.0002)
        assert abs(error) < 0.01 * whole


def test_the_loss_belongs_to_no_layer(virtual):
    price = prices(3)

    def loss(output):
        virtual.work(0.5)
        return output.sum()

    costs = measured(virtual, price, loss=loss)
    assert costs.overhead == pytest.approx(0.5)
    assert costs.step_seconds(2) == pytest.approx(0.5 + true_seconds(price, 2))


def test_a_machine_that_slows_down_meanwhile_does_not_change_the_saving(virtual):
    price = prices(6)
    virtual.pace = lambda seconds: seconds * (1.0 + 0.3 * virtual.now)
    costs = measured(virtual, price)
    first, *_, last = [row[0] for row in costs.rounds]
    assert last > 1.5 * first  # it really did slow down
    for depth in range(6):
        expected = true_seconds(price, depth) / true_seconds(price, 0)
        assert costs.step_seconds(depth) / costs.step_seconds(0) == pytest.approx(
            expected, abs=0.02
        )


def test_a_few_disturbed_steps_change_little(virtual):
    price = prices(6)
    generator = random.Random(3)
    virtual.pace = lambda seconds: seconds * (8.0 if generator.random() < 0.01 else 1.0)
    costs = measured(virtual, price)
    raw = [t for row in costs.rounds for t in row]
    assert max(raw) > 1.2 * true_seconds(price, 0)  # some were hit
    for depth in range(6):
        expected = true_seconds(price, depth) / true_seconds(price, 0)
        assert costs.step_seconds(depth) / costs.step_seconds(0) == pytest.approx(
            expected, abs=0.05
        )


def test_more_noise_gives_wider_intervals_that_hold_the_truth(virtual):
    price = prices(6)
    truth = plan(measured(virtual, price), 1000, t0=0.5).saving
    widths = []
    for noise in (0.02, 0.1):
        held = 0
        width = 0.0
        for seed in range(6):
            generator = random.Random(seed)
            virtual.pace = lambda s, g=generator, n=noise: s * math.exp(g.gauss(0.0, n))
            low, high = plan(measured(virtual, price), 1000, t0=0.5).interval
            held += low <= truth <= high
            width += high - low
        assert held >= 5  # of 6, with 95 % each
        widths.append(width)
    assert widths[1] > 2 * widths[0]


def test_flops_of_a_multilayer_perceptron_are_those_of_the_formula():
    sizes, batch = (8, 16, 12, 16, 4), 5
    costs = measure_costs(mlp(sizes), torch.randn(batch, 8), rounds=1)
    maps = list(itertools.pairwise(sizes))
    assert [c.forward_flops for c in costs.layers] == [2 * batch * a * b for a, b in maps]
    for depth in range(4):
        for_weights = sum(2 * batch * a * b for a, b in maps[depth:])
        for_inputs = sum(2 * batch * a * b for a, b in maps[depth + 1 :])
        forward = sum(2 * batch * a * b for a, b in maps)
        assert costs.step_flops(depth) == forward + for_weights + for_inputs


@pytest.mark.parametrize("name", ["vgg11-8", "wrn-16-1", "densenet-22-6", "resnet-20-8"])
def test_flops_and_saved_bytes_are_those_of_steps_with_layers_really_frozen(name):
    net = build(name, num_classes=10, in_channels=3, image_size=16)
    layers, x = split_layers(net), torch.randn(4, 3, 16, 16)
    costs = measure_costs(net, x, loss=lambda out: out.sum(), layers=layers, rounds=1)
    freezer = Freezer(layers)
    whole = costs.step_flops(0), costs.saved_bytes(0)
    for depth in range(len(layers)):
        freezer.set_depth(depth)
        held = {}
        own = {t.untyped_storage().data_ptr() for t in (*net.parameters(), *net.buffers())}

        def pack(t, held=held, own=own):
            storage = t.untyped_storage()
            if storage.data_ptr() not in own:
                held[storage.data_ptr()] = storage  # kept alive, so that no address comes twice
            return t

        with FlopCounterMode(display=False) as counter:
            with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
                loss = net(x).sum()
            loss.backward()
        net.zero_grad()
        flops, saved = counter.get_total_flops(), sum(s.nbytes() for s in held.values())
        if depth in costs.depths:
            assert costs.step_flops(depth) == flops
        assert costs.step_flops(depth) == pytest.approx(flops, abs=0.05 * whole[0])
        assert costs.saved_bytes(depth) == pytest.approx(saved, abs=0.03 * whole[1])
    freezer.unfreeze()


@pytest.mark.parametrize("dropout", [0.0, 0.1])
def test_flops_of_attention_count_whatever_kernel_runs(dropout):
    class Attention(nn.Module):
        def __init__(self):
            super().__init__()
            self.project, self.out = nn.Linear(16, 48), nn.Linear(16, 16)

        def forward(self, x):
            q, k, v = self.project(x).view(2, 7, 3, 2, 8).permute(2, 0, 3, 1, 4)
            p = dropout if self.training else 0.0  # another kernel, once frozen
            mixed = F.scaled_dot_product_attention(q, k, v, dropout_p=p)
            return x + self.out(mixed.transpose(1, 2).reshape(2, 7, 16))

    net = nn.Sequential(Attention(), Attention(), nn.Linear(16, 4))
    costs = measure_costs(net, torch.randn(2, 7, 16), rounds=1)
    linear, mixing = 2 * 14 * 16 * (48 + 16), 2 * (2 * 2 * 2 * 7 * 7 * 8)
    head = 2 * 14 * 16 * 4
    assert [c.forward_flops for c in costs.layers] == [linear + mixing] * 2 + [head]
    assert costs.layers[2].backward_flops == head  # the gradient for its weight alone
    assert costs.layers[0].backward_flops == costs.layers[1].backward_flops + (
        2 * 14 * 16 * 48 - head  # freezing the second saves the head's input gradient
    )


def test_state_gradients_and_parameters_are_counted_in_bytes():
    net = mlp()
    optimizer = torch.optim.Adam(net.parameters())
    costs = measure_costs(net, torch.randn(3, 8), optimizer=optimizer, rounds=1)
    sizes = [sum(p.numel() for p in m.parameters()) for m in net if list(m.parameters())]
    assert [c.parameter_bytes for c in costs.layers] == [4 * n for n in sizes]
    assert [c.gradient_bytes for c in costs.layers] == [4 * n for n in sizes]
    # two moments, and a counter of 4 bytes for each of two parameters
    assert [c.state_bytes for c in costs.layers] == [8 * n + 8 for n in sizes]
    assert costs.state_bytes(1) == sum(8 * n + 8 for n in sizes[1:])


def test_a_parameter_that_never_learned_has_no_gradient_to_exchange():
    net = mlp()
    net[2].weight.requires_grad_(False)
    costs = measure_costs(net, torch.randn(3, 8), rounds=1)
    assert costs.layers[1].gradient_bytes == 4 * 12
    assert costs.layers[1].parameter_bytes == 4 * (12 + 16 * 12)


# --- How many steps, how much memory -----------------------------------------------------------


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
    measure_costs(net, torch.randn(2, 4), progress=lambda done, to_do: told.append((done, to_do)))
    most = min(count, MOST_DEPTHS)
    assert Counted.calls == 4 + 2 * most + 6 * (most + 1) <= 60
    assert told == [(i + 1, Counted.calls) for i in range(Counted.calls)]


_PEAK = """
import gc, json, torch
from pathlib import Path
torch.set_num_threads(1)
import freezeout.cost
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
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
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
        timeout=200,
        # Freed memory goes back at once, or what is counted is the allocator's waste.
        env={**os.environ, "MALLOC_MMAP_THRESHOLD_": "65536"},
    )
    return json.loads(ran.stdout)


@pytest.mark.multiprocess
@pytest.mark.parametrize("name", ["weights", "activations"])
def test_the_peak_of_memory_is_that_of_training(peaks, name):
    alone, found = peaks
    train, measure = found[name]
    if name == "weights":  # the peak is really looked at: gradients and momentum come to it
        assert train > alone + 100
    # 64 MB of weights, 75 MB of activations; the margin is for code that is loaded (MiB)
    assert measure <= train + 20


# --- Nothing is left behind --------------------------------------------------------------------


def everything(net, optimizer):
    """All that a measurement must leave alone, in comparable form."""
    return {
        "values": [t.detach().clone() for t in (*net.parameters(), *net.buffers())],
        "ids": [id(t) for t in (*net.parameters(), *net.buffers())],
        "gradients": [(id(p.grad), copy.deepcopy(p.grad)) for p in net.parameters()],
        "flags": [p.requires_grad for p in net.parameters()],
        "modes": [m.training for m in net.modules()],
        "attributes": [sorted(m.__dict__) for m in net.modules()],
        "hooks": [
            (list(m._forward_hooks.values()), list(m._forward_pre_hooks.values()))
            for m in net.modules()
        ],
        "calls": getattr(net, "calls", None),
        "optimizer": None if optimizer is None else copy.deepcopy(optimizer.state_dict()),
        "groups": None if optimizer is None else [id(g) for g in optimizer.param_groups],
        "torch": torch.get_rng_state(),
        "python": random.getstate(),
        "numpy": np.random.get_state(),
    }


def assert_same(a, b):
    assert a.keys() == b.keys()
    for key in a:
        assert _equal(a[key], b[key]), key


def _equal(a, b):
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b) and a.dtype == b.dtype and _signs(a) == _signs(b)
    if isinstance(a, np.ndarray):
        return np.array_equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(_equal(a[k], b[k]) for k in a)
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(map(_equal, a, b))
    return a == b


def _signs(t):
    return torch.signbit(t).tolist() if t.is_floating_point() else None


def a_net_in_the_middle_of_things():
    """Trained for two steps, with gradients, hooks, mixed modes, and a negative zero."""
    torch.manual_seed(1)
    net = Noisy()
    net.still.eval()
    net.body.bias.requires_grad_(False)
    net.head.register_forward_hook(lambda *_: None)
    optimizer = torch.optim.AdamW(net.parameters(), lr=0.1, weight_decay=0.5)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 5)
    x = torch.randn(6, 8)
    for _ in range(2):
        net(x).square().mean().backward()
        optimizer.step()
        scheduler.step()
    with torch.no_grad():
        net.head.weight[0, 0] = -0.0
    return net, optimizer, x


def test_everything_is_as_it_was():
    net, optimizer, x = a_net_in_the_middle_of_things()
    before = everything(net, optimizer)
    steps = []
    optimizer.register_step_post_hook(lambda *_: steps.append(1))
    measure_costs(net, x, optimizer=optimizer, loss=lambda out: out.square().mean(), rounds=2)
    assert_same(everything(net, optimizer), before)
    assert steps == []


def test_everything_is_as_it_was_after_a_failure():
    net, optimizer, x = a_net_in_the_middle_of_things()
    before = everything(net, optimizer)
    calls = []

    def loss(output):
        calls.append(1)
        if len(calls) == 9:
            raise KeyError("gone")
        return output.square().mean()

    with pytest.raises(KeyError, match="gone"):
        measure_costs(net, x, optimizer=optimizer, loss=loss)
    assert_same(everything(net, optimizer), before)


def test_weights_that_become_nan_come_back():
    net, x = mlp(), torch.randn(2, 8)
    before = everything(net, None)
    measure_costs(net, x, loss=lambda out: out.sum() * math.nan, rounds=1)
    assert_same(everything(net, None), before)


def test_without_room_on_the_disk_values_wait_in_memory(monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", full)
    net, optimizer, x = a_net_in_the_middle_of_things()
    before = everything(net, optimizer)
    measure_costs(net, x, optimizer=optimizer, loss=lambda out: out.square().mean(), rounds=1)
    assert_same(everything(net, optimizer), before)


def test_without_a_folder_for_files_values_wait_in_memory(monkeypatch):
    def nowhere(**_):
        raise FileNotFoundError(2, "No usable temporary directory found")

    monkeypatch.setattr("freezeout._snapshot.tempfile.TemporaryDirectory", nowhere)
    net, x = mlp(), torch.randn(2, 8)
    before = everything(net, None)
    measure_costs(net, x, loss=lambda out: out.sum() * math.nan, rounds=1)
    assert_same(everything(net, None), before)


def test_files_are_gone_afterwards(monkeypatch, tmp_path):
    monkeypatch.setattr("freezeout._snapshot.tempfile.tempdir", str(tmp_path))
    seen = []
    net, x = mlp(), torch.randn(2, 8)
    net.register_forward_pre_hook(lambda *_: seen.append(len(list(tmp_path.rglob("*.pt")))))
    measure_costs(net, x, rounds=1)
    assert set(seen) == {9}  # four weights, four biases, the example
    assert list(tmp_path.iterdir()) == []


def test_a_model_that_is_being_frozen_goes_on_as_if_nothing_had_been():
    def trained(with_measurement):
        torch.manual_seed(0)
        net = nn.Sequential(
            nn.Linear(8, 8), nn.BatchNorm1d(8), nn.Linear(8, 8), nn.Dropout(0.2), nn.Linear(8, 2)
        )
        optimizer = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
        scheduler = FreezeOut(optimizer, net, 12, t0=0.5, spacing="linear")
        for step in range(12):
            if with_measurement and step == 7:
                x = torch.ones(4, 8)
                before = everything(net, optimizer)
                assert scheduler.frozen == 1
                measure_costs(net, x, optimizer=optimizer, rounds=1)
                assert_same(everything(net, optimizer), before)
                assert scheduler.frozen == 1
            x = torch.randn(4, 8, generator=torch.Generator().manual_seed(step))
            net(x).square().mean().backward()
            optimizer.step()
            optimizer.zero_grad()
            scheduler.step()
        return net.state_dict(), scheduler.frozen, scheduler.freezer.verified

    (plain, *rest), (measured, *others) = trained(False), trained(True)
    assert rest == others == [2, True]
    for name, value in plain.items():
        assert torch.equal(value, measured[name])


class Marked(torch.Tensor):
    """A subclass, as quantisation libraries have them."""


def odd_models():
    def net():
        return nn.Sequential(nn.Linear(8, 8), nn.BatchNorm1d(8), nn.Linear(8, 3))

    sparse = net()
    sparse.register_buffer("graph", torch.eye(5).to_sparse())
    rows = net()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch calls its CSR layout a beta
        rows.register_buffer("graph", torch.eye(5).to_sparse_csr())
    eighth = net()
    eighth.register_buffer("scale", torch.ones(4).to(torch.float8_e4m3fn))
    marked = net()
    marked[0].weight = nn.Parameter(marked[0].weight.detach().as_subclass(Marked))
    return {"coo": sparse, "csr": rows, "float8": eighth, "subclass": marked}


@pytest.mark.parametrize("kind", ["coo", "csr", "float8", "subclass"])
def test_odd_tensors_do_not_keep_others_from_being_put_back(kind):
    net, x = odd_models()[kind], torch.randn(4, 8)
    mean, count = net[1].running_mean.clone(), int(net[1].num_batches_tracked)
    weights = [p.detach().clone() for p in net.parameters()]
    measure_costs(net, x, rounds=1)
    assert torch.equal(net[1].running_mean, mean)
    assert int(net[1].num_batches_tracked) == count
    assert all(torch.equal(a, b) for a, b in zip(weights, net.parameters(), strict=True))


def test_what_cannot_be_put_back_is_named_and_all_else_is(monkeypatch):
    from freezeout import _snapshot

    real = _snapshot._write

    def stubborn(tensor, value):
        if tuple(tensor.shape) == (12,):
            raise RuntimeError("will not")
        real(tensor, value)

    monkeypatch.setattr(_snapshot, "_write", stubborn)
    net, x = mlp(), torch.randn(2, 8)
    before = everything(net, None)
    with pytest.raises(CostError, match=r"1 tensors could not be put back .* shape \(12,\)"):
        measure_costs(net, x, rounds=1)
    assert_same(everything(net, None), before)


def test_costs_while_layers_are_frozen_are_those_of_the_model_as_it_learns():
    def costs_at(step):
        torch.manual_seed(0)
        net = mlp()
        optimizer = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
        scheduler = FreezeOut(optimizer, net, 100, t0=0.3, spacing="linear")
        scheduler.step(step)
        return measure_costs(net, torch.ones(4, 8), optimizer=optimizer, rounds=1), scheduler

    (fresh, _), (late, scheduler) = costs_at(0), costs_at(99)
    assert scheduler.frozen == 3
    for a, b in zip(fresh.layers, late.layers, strict=True):
        for name in ("gradient_bytes", "state_bytes", "saved_bytes", "forward_flops"):
            assert getattr(a, name) == getattr(b, name) > 0


@pytest.mark.parametrize("reentrant", [False, True])
def test_activation_checkpointing_counts_what_runs_twice_as_backward(reentrant):
    class Checkpointed(nn.Module):
        def __init__(self):
            super().__init__()
            self.body = nn.ModuleList(nn.Linear(8, 8) for _ in range(4))
            self.head = nn.Linear(8, 2)

        def forward(self, x):
            for layer in self.body:
                x = checkpoint(layer, x, use_reentrant=reentrant)
            return self.head(x)

    net, x = Checkpointed(), torch.randn(4, 8, requires_grad=reentrant)
    with FlopCounterMode(display=False) as counter:
        net(x).sum().backward()
    net.zero_grad()
    if reentrant:  # nor could it be trained with layers frozen
        with pytest.raises(FreezeOutError, match="use_reentrant=True"):
            measure_costs(net, x, rounds=1)
        return
    costs = measure_costs(net, x, rounds=1)
    assert costs.step_flops(0) == counter.get_total_flops()
    assert [c.forward_flops for c in costs.layers] == [2 * 4 * 64] * 4 + [2 * 4 * 16]


def test_sparse_gradients_and_the_state_made_of_them_are_counted():
    class Words(nn.Module):
        def __init__(self):
            super().__init__()
            self.embed, self.head = nn.Embedding(9, 4, sparse=True), nn.Linear(4, 2)

        def forward(self, x):
            return self.head(self.embed(x))

    costs = measure_costs(Words(), torch.tensor([[1, 2], [2, 3]]), rounds=1)
    assert costs.layers[0].state_bytes > 0


def test_what_belongs_to_the_loss_and_the_batch_is_put_back():
    criterion = nn.Linear(4, 1)
    net = nn.Sequential(nn.Flatten(), nn.ReLU(inplace=True), nn.Linear(8, 8), nn.Linear(8, 4))
    x = torch.randn(3, 8)
    values = x.clone()
    optimizer = torch.optim.SGD([*net.parameters(), *criterion.parameters()], lr=0.1)
    gradient = torch.ones_like(criterion.weight)
    criterion.weight.grad = gradient

    class Loss(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = criterion

        def forward(self, output):
            return self.inner(output).sum()

    measure_costs(net, x, loss=Loss(), optimizer=optimizer, rounds=1)
    assert torch.equal(x, values)
    assert criterion.weight.grad is gradient
    assert torch.equal(gradient, torch.ones_like(gradient))
    assert criterion.bias.grad is None
    measure_costs(net, x, loss=Loss(), rounds=1)
    assert criterion.bias.grad is None


def test_hooks_that_take_keywords_or_remove_themselves_are_as_before():
    net, x, heard = mlp(), torch.randn(2, 8), []

    def once(module, args, kwargs, output):
        heard.append(1)
        handle.remove()

    handle = net.register_forward_hook(once, with_kwargs=True)
    measure_costs(net, x, rounds=1)
    heard.clear()
    net(x)
    net(x)
    assert heard == [1]


def test_what_a_first_pass_makes_is_taken_away_again():
    class Lazy(nn.Module):
        def __init__(self):
            super().__init__()
            self.body, self.head, self.cache = nn.Linear(8, 8), nn.Linear(8, 2), {}

        def forward(self, x):
            if not hasattr(self, "extra"):
                self.extra = nn.Identity()
                self.register_buffer("seen", torch.ones(1))
            self.cache["x"] = x
            return self.head(self.extra(self.body(x)))

    net = Lazy()
    measure_costs(net, torch.randn(2, 8), rounds=1)
    assert (list(net._modules), list(net._buffers)) == (["body", "head"], [])
    assert net.cache == {}
    net(torch.randn(2, 8))


def test_measuring_works_where_gradients_are_switched_off_around_it():
    net, x = mlp(), torch.randn(2, 8)
    with torch.no_grad():
        assert measure_costs(net, x, rounds=1).step_seconds() > 0
    with torch.inference_mode():
        assert measure_costs(net, x, rounds=1).step_seconds() > 0


def test_an_activation_that_is_passed_through_belongs_to_the_layer_that_made_it(virtual):
    price = prices(4)

    class Passing(nn.Module):
        def __init__(self):
            super().__init__()
            self.layers = network(virtual, price)

        def forward(self, x):
            bias = None
            for layer in self.layers:
                x = layer(x)
                bias = x if bias is None else bias
            return x + bias

    plain = measured(virtual, price)
    net = Passing()
    costs = measure_costs(net, torch.ones(2, 4), rounds=1)
    for a, b in zip(costs.layers, plain.layers, strict=True):
        assert a.backward == pytest.approx(b.backward)


def test_a_model_in_evaluation_mode_is_measured_in_training_and_put_back():
    seen = set()
    net = mlp().eval()
    net.register_forward_pre_hook(lambda module, _: seen.add(module.training))
    measure_costs(net, torch.randn(2, 8), rounds=1)
    assert seen == {True}
    assert not any(m.training for m in net.modules())


def test_parts_kept_in_evaluation_stay_there_while_measuring():
    seen = set()
    net = mlp()
    net[2].eval()
    net[2].register_forward_pre_hook(lambda module, _: seen.add(module.training))
    measure_costs(net, torch.randn(2, 8), rounds=1)
    assert seen == {False}


# --- Any model, any optimizer ------------------------------------------------------------------


@pytest.mark.parametrize(
    "make",
    [
        lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, nesterov=True, weight_decay=1e-2),
        lambda p: torch.optim.AdamW(p, lr=torch.tensor(0.1)),
        lambda p: torch.optim.Adam(p, fused=True),
        lambda p: torch.optim.RMSprop(p),
        lambda p: torch.optim.Rprop(p),
        lambda p: torch.optim.Adagrad(p),
    ],
    ids=["sgd", "tensor rate", "fused", "rmsprop", "rprop", "adagrad"],
)
def test_every_optimizer_can_be_measured_and_is_left_alone(make):
    net, x = mlp(), torch.randn(4, 8)
    optimizer = make(net.parameters())
    before = everything(net, optimizer)
    costs = measure_costs(net, x, optimizer=optimizer, rounds=1)
    assert_same(everything(net, optimizer), before)
    assert costs.step_seconds(0) > 0


def test_an_optimizer_of_ones_own_with_attributes_of_its_own():
    class Own(torch.optim.SGD):
        def __init__(self, params, *, lr, seen):
            super().__init__(params, lr=lr)
            self.seen, self.updates = seen, 0

        def step(self, closure=None):
            self.updates += 1
            self.seen.append(self.updates)
            return super().step(closure)

    net, x, seen = mlp(), torch.randn(4, 8), []
    optimizer = Own(net.parameters(), lr=0.1, seen=seen)
    measure_costs(net, x, optimizer=optimizer, rounds=1)
    assert (optimizer.updates, optimizer.seen, seen) == (0, [], [])


def test_keyword_arguments_and_an_output_with_its_own_loss():
    class Labelled(nn.Module):
        def __init__(self):
            super().__init__()
            self.body, self.head = nn.Linear(8, 8), nn.Linear(8, 3)

        def forward(self, x, labels):
            logits = self.head(self.body(x))
            return {"loss": F.cross_entropy(logits, labels), "logits": logits}

    example = {"x": torch.randn(5, 8), "labels": torch.tensor([0, 1, 2, 0, 1])}
    costs = measure_costs(Labelled(), example, rounds=1)
    assert costs.batch_size == 5
    assert costs.names == ("body", "head")


def test_a_batch_of_several_positional_arguments():
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(4, 4), nn.Linear(4, 2)

        def forward(self, x, y):
            return self.b(self.a(x) + y), y

    costs = measure_costs(Two(), (torch.randn(3, 4), torch.randn(3, 4)), rounds=1)
    assert len(costs) == 2


def test_layers_of_ones_own():
    net = mlp()
    costs = measure_costs(net, torch.randn(2, 8), layers=[["0", "2"], ["4", "6"]], rounds=1)
    assert len(costs) == 2
    cut = split_layers(net)
    assert measure_costs(net, torch.randn(2, 8), layers=cut, rounds=1).names == cut.names


def test_autocast_runs_the_forward_pass_in_lower_precision():
    seen = set()
    net = mlp()
    net[0].register_forward_hook(lambda module, args, output: seen.add(output.dtype))
    measure_costs(net, torch.randn(2, 8), autocast=torch.bfloat16, rounds=1)
    assert seen == {torch.bfloat16}


def test_a_compiled_model_is_measured_compiled():
    net = mlp()
    compiled = torch.compile(net, backend="eager")
    costs = measure_costs(compiled, torch.randn(2, 8), rounds=1)
    assert costs.names == split_layers(net).names
    assert sum(layer.saving for layer in costs.layers[:-1]) == pytest.approx(
        costs.step_seconds(0) - costs.step_seconds(3)
    )


def test_what_keeps_the_backward_pass_alive_is_warned_of_and_measured():
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.embed = nn.Embedding(20, 8)
            self.body = nn.Linear(8, 8)
            self.head = nn.Linear(8, 20, bias=False)
            self.head.weight = self.embed.weight

        def forward(self, x):
            return self.head(self.body(self.embed(x)))

    with pytest.warns(FrozenPrefixWarning, match="still needs a gradient"):
        costs = measure_costs(Tied(), torch.randint(0, 20, (4, 5)), rounds=1)
    assert len(costs) == 2  # the embedding learns with the head


# --- Mistakes ----------------------------------------------------------------------------------


class Exhausted(nn.Module):
    def __init__(self, error):
        super().__init__()
        self.body, self.head, self.error = nn.Linear(8, 8), nn.Linear(8, 2), error

    def forward(self, x):
        raise self.error


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20 GiB"),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"),
        MemoryError(),
    ],
)
def test_out_of_memory_suggests_a_smaller_batch(error):
    net = Exhausted(error)
    with pytest.raises(CostError, match=r"on a batch of 12: .*try a batch of 6\.$"):
        measure_costs(net, torch.randn(12, 8))


def test_a_batch_that_the_model_rejects():
    with pytest.raises(CostError, match=r"Sequential rejects the batch: mat1 and mat2.*loss="):
        measure_costs(mlp(), torch.randn(2, 7))
    with pytest.raises(CostError, match=r"rejects the batch: .*TypeError"):
        measure_costs(mlp(), (torch.randn(2, 8), torch.randn(2)))


@pytest.mark.parametrize("example", [None, {}, (), "batch"])
def test_no_example(example):
    with pytest.raises(ValueError, match="example must hold a batch as in training, got"):
        measure_costs(mlp(), example)


@pytest.mark.parametrize(
    ("loss", "message"),
    [
        (lambda out: out, r"one number .* got a tensor of shape \(2, 4\), requires_grad=True"),
        (lambda out: out.detach().sum(), r"requires_grad=False"),
        (lambda out: 3.0, r"got 3\.0"),
    ],
)
def test_a_loss_that_is_none(loss, message):
    with pytest.raises(CostError, match=message):
        measure_costs(mlp(), torch.randn(2, 8), loss=loss)


def test_nothing_that_could_freeze():
    with pytest.raises(SplitError):
        measure_costs(nn.Linear(4, 4), torch.randn(2, 4))
    net = mlp()
    for module in net[:-1]:
        module.requires_grad_(False)
    with pytest.raises(CostError, match=r"nothing before the last layer \('6'\) can freeze: they"):
        measure_costs(net, torch.randn(2, 8))
    net[-1].requires_grad_(False)
    with pytest.raises(CostError):
        measure_costs(net, torch.randn(2, 8))


@pytest.mark.parametrize(
    ("arguments", "kind", "message"),
    [
        ({"model": "net"}, TypeError, "model must be a torch.nn.Module, got str"),
        ({"loss": 3}, TypeError, "loss must be a callable .* got 3"),
        ({"optimizer": "sgd"}, TypeError, "optimizer must be a torch.optim.Optimizer, got str"),
        ({"autocast": "bfloat16"}, TypeError, "autocast must be a torch.dtype such as"),
        ({"progress": 5}, TypeError, "progress must be a callable"),
        (
            {"model": mlp().to("meta")},
            CostError,
            "on the meta device and have no values",
        ),
        ({"rounds": 0}, ValueError, "rounds must be a whole number of at least 1, got 0"),
        ({"rounds": 1.5}, TypeError, r"rounds must be a whole number of at least 1, got 1\.5"),
        ({"layers": split_layers(mlp())}, ValueError, "layers were cut from another Sequential"),
        (
            {"optimizer": torch.optim.SGD(mlp().parameters(), lr=1)},
            ValueError,
            "the optimizer holds no parameter of the Sequential",
        ),
    ],
)
def test_bad_arguments(arguments, kind, message):
    given = {"model": mlp(), "example": torch.randn(2, 8), **arguments}
    with pytest.raises(kind, match=message):
        measure_costs(given.pop("model"), given.pop("example"), **given)


# --- Costs as a value --------------------------------------------------------------------------


@pytest.fixture(scope="module")
def costs():
    return measure_costs(mlp(), torch.randn(3, 8), rounds=2)


def test_costs_survive_a_file(costs, tmp_path):
    costs.save(tmp_path / "costs.json")
    assert Costs.load(tmp_path / "costs.json") == costs
    assert json.loads((tmp_path / "costs.json").read_text())["batch_size"] == 3


@pytest.mark.parametrize("text", ["", "{}", "[1]", '{"layers": []}', "null", "{nonsense"])
def test_a_damaged_file_is_one_error(tmp_path, text):
    (tmp_path / "costs.json").write_text(text)
    with pytest.raises(CostError):
        Costs.load(tmp_path / "costs.json")


def test_damaged_values_are_one_error(costs):
    good = costs.to_dict()
    for key, value in [
        ("depths", [0, 2]),
        ("depths", [1, 2, 3]),
        ("rounds", []),
        ("rounds", [[1.0]]),
        ("rounds", [[1.0, 1.0, 1.0, -1.0]]),
        ("rounds", [[1.0, 1.0, 1.0, math.nan]]),
        ("layers", good["layers"][:1]),
        ("layers", [{"name": "x"}] * 4),
        ("layers", [{**good["layers"][0], "forward": math.nan}, *good["layers"][1:]]),
        ("layers", [{**good["layers"][0], "backward": "1"}, *good["layers"][1:]]),
        ("layers", [{**good["layers"][0], "saved_bytes": 1.5}, *good["layers"][1:]]),
        ("layers", [{**good["layers"][0], "saved_bytes": -1}, *good["layers"][1:]]),
        ("overhead", None),
        ("rounds", [["1.0"] * 4]),
    ]:
        with pytest.raises(CostError, match="these are no costs"):
            Costs.from_dict({**good, key: value})
    with pytest.raises(CostError, match="these are no costs"):
        Costs.from_dict({k: v for k, v in good.items() if k != "device"})


def test_overhead_is_added_to_every_step(costs):
    more = costs.with_overhead(0.25)
    for depth in range(len(costs)):
        assert more.step_seconds(depth) == pytest.approx(costs.step_seconds(depth) + 0.25)
    assert more.rounds[1][0] == pytest.approx(costs.rounds[1][0] + 0.25)
    assert plan(more, 100, t0=0.5).saving < plan(costs, 100, t0=0.5).saving or (
        plan(costs, 100, t0=0.5).saving <= 0
    )
    for bad in (-0.1, math.inf, math.nan):
        with pytest.raises(ValueError, match="seconds must be finite and at least 0"):
            costs.with_overhead(bad)


def test_accumulation_repeats_all_but_the_optimizer(virtual):
    price = prices(5)
    costs = measured(virtual, price, seconds=0.001)
    four = costs.accumulated(4)
    for depth in range(5):
        expected = 4 * true_seconds(price, depth) + 0.001 * (5 - depth)
        assert four.step_seconds(depth) == pytest.approx(expected)
        assert four.rounds[0][depth] == pytest.approx(expected)
        assert four.step_flops(depth) == 4 * costs.step_flops(depth)
    assert four.saved_bytes() == costs.saved_bytes()
    assert costs.accumulated(1) == costs
    for bad, kind in ((0, ValueError), (-1, ValueError), (1.5, TypeError), (True, TypeError)):
        with pytest.raises(kind, match="micro_batches must be a whole number of at least 1"):
            costs.accumulated(bad)


def test_depths_out_of_range_are_refused(costs):
    for depth in (-1, 4):
        for what in (costs.step_seconds, costs.step_flops, costs.saved_bytes, costs.state_bytes):
            with pytest.raises(ValueError, match=f"depth must lie in 0 to 3, got {depth}"):
                what(depth)


def test_the_table_names_every_layer_and_adds_up(costs):
    lines = str(costs).splitlines()
    assert [line.split()[1] for line in lines[1:-1]] == list(costs.names)
    assert lines[-1].startswith("step: ")
    assert len({len(line.split()) for line in lines[1:-1]}) == 1


def test_rounds_stretched_to_every_depth_keep_what_was_measured(virtual):
    price = prices(20)
    found = measured(virtual, price)
    for row, full in zip(found.rounds, found.round_seconds(), strict=True):
        assert len(full) == 20
        assert [full[d] for d in found.depths] == pytest.approx(list(row))
        assert full == pytest.approx([found.step_seconds(d) for d in range(20)])


# --- Which depths ------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [2, 3, 6, 7, 12, 40, 200])
@pytest.mark.parametrize("shape", ["even", "first", "last", "nothing"])
def test_measured_depths_reach_from_end_to_end_and_divide_the_cost(count, shape):
    weights = {
        "even": [1.0] * count,
        "first": [100.0] + [0.01] * (count - 1),
        "last": [0.01] * (count - 2) + [100.0, 1.0],
        "nothing": [0.0] * count,
    }[shape]
    depths = _spread(weights)
    assert depths == sorted(set(depths))
    assert depths[0] == 0
    assert depths[-1] == count - 1
    assert len(depths) == min(count, MOST_DEPTHS)
    if shape == "even" and count > 20:
        gaps = [b - a for a, b in itertools.pairwise(depths)]
        assert max(gaps) <= 1.5 * (count - 1) / (MOST_DEPTHS - 1)


def test_the_same_cut_as_freezeout_makes():
    net = mlp()
    costs = measure_costs(net, torch.randn(2, 8), rounds=1)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    made = plan(costs, 100, t0=0.5, spacing="linear")
    scheduler = FreezeOut(optimizer, net, made.total_steps, schedule=made.schedule)
    assert scheduler.layers.names == costs.names
    assert scheduler.freeze_steps == made.freeze_steps
    made.check(scheduler.layers)
    assert isinstance(made.schedule, Schedule)


def test_an_optimizer_that_cannot_step():
    net = mlp()
    with pytest.raises(TypeError, match="a step of LBFGS cannot be measured"):
        measure_costs(net, torch.randn(2, 8), optimizer=torch.optim.LBFGS(net.parameters()))

    class Wanting(torch.optim.SGD):
        def step(self, closure):
            raise TypeError("closure")

    with pytest.raises(CostError, match=r"Wanting cannot take a step: .* required positional"):
        measure_costs(net, torch.randn(2, 8), optimizer=Wanting(net.parameters(), lr=0.1))


def test_an_output_without_tensors_or_a_head_that_is_not_last():
    class Odd(nn.Module):
        def __init__(self, answer):
            super().__init__()
            self.answer = answer
            self.body, self.head = nn.Linear(8, 8), nn.Linear(8, 2)

        def forward(self, x):
            return self.answer(self, x)

    with pytest.raises(CostError, match="the model's output is int, in which no tensor"):
        measure_costs(Odd(lambda net, x: 5), torch.randn(2, 8))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FrozenPrefixWarning)
        with pytest.raises(CostError, match=r"layers=split_layers\(model, example=\.\.\.\)"):
            measure_costs(Odd(lambda net, x: net.body(x)), torch.randn(2, 8))


def test_a_scripted_part_is_refused():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        part = torch.jit.script(nn.Linear(4, 4))
    net = nn.Sequential(nn.Linear(8, 4), part, nn.Linear(4, 2))
    with pytest.raises(CostError, match=r"Measure the model before torch\.jit\.script"):
        measure_costs(net, torch.randn(2, 8))


def test_ddp_is_refused_with_what_to_do():
    class Wrapped(nn.parallel.DistributedDataParallel):
        def __init__(self, module):  # without the processes of a real one
            nn.Module.__init__(self)
            self.module = module

    with pytest.raises(CostError, match="Measure it before it is wrapped"):
        measure_costs(Wrapped(mlp()), torch.randn(2, 8))


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
