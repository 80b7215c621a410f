"""Any model, any optimizer, any batch can be measured."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from freezeout import FrozenPrefixWarning, measure_costs, split_layers
from tests.costs.everything import assert_same, everything
from tests.costs.networks import mlp


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


def test_a_custom_optimizer_with_extra_attributes():
    class Extra(torch.optim.SGD):
        def __init__(self, params, *, lr, seen):
            super().__init__(params, lr=lr)
            self.seen, self.updates = seen, 0

        def step(self, closure=None):
            self.updates += 1
            self.seen.append(self.updates)
            return super().step(closure)

    net, x, seen = mlp(), torch.randn(4, 8), []
    optimizer = Extra(net.parameters(), lr=0.1, seen=seen)
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


def test_custom_layers():
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
