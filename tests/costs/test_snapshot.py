"""Measuring leaves nothing behind."""

import math
import warnings

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint
from torch.utils.flop_counter import FlopCounterMode

from freezeout import CostError, FreezeOut, FreezeOutError, measure_costs, unfreeze
from tests.costs.costly import network, prices
from tests.costs.everything import a_net_in_the_middle_of_things, assert_same, everything
from tests.costs.networks import measured, mlp


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

    monkeypatch.setattr("freezeout.costs.snapshot.tempfile.TemporaryDirectory", nowhere)
    net, x = mlp(), torch.randn(2, 8)
    before = everything(net, None)
    measure_costs(net, x, loss=lambda out: out.sum() * math.nan, rounds=1)
    assert_same(everything(net, None), before)


def test_files_are_gone_afterwards(monkeypatch, tmp_path):
    monkeypatch.setattr("freezeout.costs.snapshot.tempfile.tempdir", str(tmp_path))
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
    from freezeout.costs import snapshot as _snapshot

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


def test_what_is_frozen_by_hand_after_costs_were_measured_is_the_users():
    torch.manual_seed(0)
    net = mlp()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    FreezeOut(optimizer, net, 100, t0=0.3, spacing="linear").step(99)
    measure_costs(net, torch.ones(4, 8), optimizer=optimizer, rounds=1)
    frozen = [p for p in net.parameters() if not p.requires_grad]
    assert len(frozen) > 2
    frozen[0].requires_grad_(False)
    unfreeze(net)
    assert [p.requires_grad for p in frozen] == [False] + [True] * (len(frozen) - 1)
