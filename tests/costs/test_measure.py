"""Measured costs are the right numbers."""

import itertools
import math
import random

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from freezeout import Freezer, measure_costs, plan, split_layers
from freezeout.costs.bench import MOST_DEPTHS
from freezeout.lab.models import build
from tests.costs.costly import prices, true_seconds
from tests.costs.networks import measured, mlp


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


@pytest.mark.slow
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
