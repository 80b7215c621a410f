"""The pass with an example: what it may be, and that it leaves no trace."""

import copy

import pytest
import torch
from torch import nn

from freezeout import SplitError, split_layers
from tests.layers.examples import INPUT, Unused


class TwoInputs(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.b, self.a = nn.Linear(4, 4), nn.Linear(4, 4)

    def forward(self, x, *, y=None):
        return self.b(self.a(x) + (0 if y is None else y))


@pytest.mark.parametrize(
    "example", [INPUT, (INPUT,), [INPUT], {"x": INPUT}, {"x": INPUT, "y": INPUT}]
)
def test_the_example_may_be_a_tensor_a_tuple_or_keyword_arguments(example):
    assert split_layers(TwoInputs(), example=example).names == ("a", "b")


class Fussy(nn.Module):
    """Draws random numbers, counts and replaces buffers, and fails when told to."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Linear(4, 4)
        self.norm = nn.BatchNorm1d(4)
        self.b = nn.Linear(4, 2)
        self.frozen = nn.Linear(4, 4).requires_grad_(False)
        self.register_buffer("count", torch.zeros(()))
        self.register_buffer("cache", torch.zeros(1))
        self.register_buffer("nothing", None)
        self.fail = False

    def forward(self, x):
        self.count.add_(1)
        self.cache = torch.cat([self.cache, torch.rand(1)])
        self.nothing = torch.ones(1)
        x = self.norm(self.a(x)) + self.frozen(x)
        if self.fail:
            raise RuntimeError("on purpose")
        return self.b(x)


def condition(model: nn.Module) -> dict[str, object]:
    state: dict[str, object] = {f"mode of {n}": m.training for n, m in model.named_modules()}
    state |= {f"hooks of {n}": len(m._forward_hooks) for n, m in model.named_modules()}
    state |= {f"pre-hooks of {n}": len(m._forward_pre_hooks) for n, m in model.named_modules()}
    state |= {n: p.detach().clone() for n, p in model.named_parameters()}
    state |= {f"flag of {n}": p.requires_grad for n, p in model.named_parameters()}
    state |= {f"gradient of {n}": copy.deepcopy(p.grad) for n, p in model.named_parameters()}
    state |= {f"buffer {n}": b.clone() for n, b in model.named_buffers()}
    state |= {f"identity of {n}": id(b) for n, b in model.named_buffers()}
    state["numbers"] = torch.random.get_rng_state()
    state["dictionary"] = sorted(model.__dict__)
    state["gradients on"] = torch.is_grad_enabled()
    return state


def assert_same(before: dict[str, object], after: dict[str, object]) -> None:
    assert before.keys() == after.keys()
    for key, value in before.items():
        if isinstance(value, torch.Tensor):
            assert torch.equal(value, after[key]), key  # type: ignore[arg-type]
        else:
            assert value == after[key], key


@pytest.mark.parametrize("fail", [False, True])
@pytest.mark.parametrize("training", [False, True])
def test_the_example_leaves_no_trace(fail, training):
    model = Fussy().train(training)
    model.norm.eval()
    model.b(model.a(INPUT)).sum().backward()
    model.fail = fail
    torch.manual_seed(3)
    before = condition(model)
    if fail:
        with pytest.raises(SplitError, match="on purpose"):
            split_layers(model, example=torch.randn(8, 4, generator=torch.Generator()))
    else:
        layers = split_layers(model, example=torch.randn(8, 4, generator=torch.Generator()))
        assert layers.names == ("a", "b")
    assert_same(before, condition(model))
    model.fail = False
    model(torch.randn(8, 4))
    assert model.count == 1  # the check can see a forward pass
    assert len(model.cache) == 2


def test_the_example_runs_without_gradients_and_in_evaluation_mode():
    seen = []

    class Spy(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(4, 4), nn.Linear(4, 4)

        def forward(self, x):
            y = self.b(self.a(x))
            seen.append((self.training, self.a.training, y.requires_grad))
            return y

    split_layers(Spy().train(), example=INPUT)
    assert seen == [(False, False, False)]


def test_cutting_without_an_example_runs_nothing():
    class NeverRun(Unused):
        def forward(self, x):
            raise AssertionError("ran")

    assert split_layers(NeverRun()).names == ("a", "b")
