"""What cannot be measured is said in one line."""

import warnings

import pytest
import torch
from torch import nn

from freezeout import CostError, FrozenPrefixWarning, SplitError, measure_costs, split_layers
from tests.costs.networks import mlp


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
        ({"rounds": 0}, ValueError, "rounds must be at least 1, got 0"),
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


def test_an_optimizer_that_cannot_step():
    net = mlp()
    with pytest.raises(TypeError, match="FreezeOut cannot drive LBFGS"):
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
