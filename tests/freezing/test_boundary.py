"""The check that the frozen layers are a prefix."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from freezeout import (
    FreezeEvent,
    Freezer,
    FrozenPrefixWarning,
    PrefixError,
    split_layers,
    unfreeze,
)
from tests.contracts import hooks, make_batch
from tests.freezing.steps import backward, make

# The check of the boundary


class Graph(nn.Module):
    """Layers defined as a, b, c, head but executed in a given order."""

    def __init__(self, order: str) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.a, self.b, self.c = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 4)
        self.head = nn.Linear(4, 2)
        self.order = order

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for name in self.order:
            x = torch.tanh(self.get_submodule(name)(x))
        return self.head(x)


def test_a_true_prefix_passes_in_silence_and_leaves_no_hook() -> None:
    model, freezer = make(strict=True)
    assert freezer.verified
    for depth in (1, 3):
        freezer.set_depth(depth)
        assert not freezer.verified
        assert hooks(model) > 0
        backward(model)
        assert freezer.verified
        assert hooks(model) == 0
    freezer.set_depth(0)
    assert freezer.verified
    assert hooks(model) == 0


def test_what_was_verified_stays_so_until_the_next_freeze() -> None:
    model, freezer = make(1)
    backward(model)
    freezer.set_depth(1)
    assert freezer.verified
    assert hooks(model) == 0
    freezer.set_depth(2)
    assert not freezer.verified
    assert hooks(model) > 0


def test_an_evaluation_first_does_not_fool_it() -> None:
    model = Graph("bac")
    freezer = Freezer(split_layers(model), strict=True)
    freezer.set_depth(1)
    for context in (torch.no_grad(), torch.inference_mode()):
        with context:
            model(torch.ones(2, 4))
        assert not freezer.verified
        assert hooks(model) > 0
    with pytest.raises(PrefixError):
        model(torch.ones(2, 4))


def test_the_culprit_is_named_once_and_training_goes_on() -> None:
    model = Graph("bac")
    freezer = Freezer(split_layers(model))
    freezer.set_depth(1)
    with pytest.warns(FrozenPrefixWarning) as caught:
        model(torch.ones(2, 4)).sum().backward()
    (message,) = [str(w.message) for w in caught]
    assert message.startswith(
        "layer 0 ('a') is frozen, but its output still needs a gradient, because of active "
        "parameters that feed it: 'b."
    )
    assert "(layer 1)" in message
    assert "layers=..." in message
    assert model.a.weight.grad is None
    assert model.b.weight.grad is not None
    assert not freezer.verified
    assert hooks(model) == 0
    freezer.set_depth(0)
    freezer.set_depth(1)
    assert hooks(model) > 0
    model(torch.ones(2, 4))  # says the same thing once only


def test_strict_raises_and_the_pass_after_it_runs() -> None:
    model = Graph("bac")
    freezer = Freezer(split_layers(model), strict=True)
    freezer.set_depth(1)
    with pytest.raises(PrefixError, match=r"layer 0 \('a'\) is frozen"):
        model(torch.ones(2, 4))
    model(torch.ones(2, 4)).sum().backward()
    assert not freezer.verified
    freezer.set_depth(2)  # b comes before a: now all of the prefix comes first
    model(torch.ones(2, 4)).sum().backward()
    assert freezer.verified


def test_it_looks_at_every_frozen_layer_not_only_at_the_last() -> None:
    """Frozen are c and a, in the order of definition; executed first is a, then b, then c."""
    model = Graph("abc")
    freezer = Freezer(split_layers(model, layers=["c", "a", "b", "head"]), strict=True)
    freezer.set_depth(2)
    with pytest.raises(PrefixError, match=r"layer 0 \('c'\).*'b\.(weight|bias)' \(layer 2\)"):
        model(torch.ones(2, 4))


def test_a_layer_that_never_runs_is_not_called_verified_and_leaves_no_hook() -> None:
    model = Graph("bc")
    freezer = Freezer(split_layers(model))
    freezer.set_depth(2)
    model(torch.ones(2, 4))
    assert hooks(model) == 0
    assert not freezer.verified  # nobody saw what layer "a" gives


def test_the_order_of_execution_from_an_example_passes() -> None:
    model = Graph("bac")
    freezer = Freezer(split_layers(model, example=torch.ones(2, 4)), strict=True)
    freezer.set_depth(1)
    model(torch.ones(2, 4))
    assert freezer.verified
    assert not model.b.weight.requires_grad
    assert model.a.weight.requires_grad


def test_an_input_that_requires_a_gradient_is_named() -> None:
    model, _ = make(1)
    x = make_batch("conv", 0)[0].requires_grad_()
    with pytest.warns(FrozenPrefixWarning, match=r"an input of shape \(4, 2, 4, 4\) that itself"):
        model(x)
    model, _ = make(1, strict=True)
    with pytest.raises(PrefixError, match="an input of shape"):
        model(x)


@pytest.mark.parametrize("first", ["discriminator", "generator"])
@pytest.mark.parametrize("parts", [False, True])
def test_the_generator_s_pass_through_a_discriminator_is_passed_over(
    first: str, parts: bool
) -> None:
    """Training goes on as without freezing, and only a pass of real data shows the cut."""
    torch.manual_seed(1)
    generator, model = nn.Linear(3, 4), Graph("abc")
    twin, plain = copy.deepcopy(generator), copy.deepcopy(model)
    freezer = Freezer(split_layers(model), strict=True)
    freezer.set_depth(2)

    def judge(x: torch.Tensor) -> torch.Tensor:
        return Graph.forward(model, x) if parts else model(x)

    noise, real = torch.randn(5, 3), torch.randn(5, 4)
    for turn in range(2):
        if turn or first == "generator":
            judge(generator(noise)).mean().backward()
            assert not freezer.verified or turn
            assert freezer.verified or hooks(model) > 0
        judge(real).mean().backward()
        judge(generator(noise).detach()).mean().backward()
        assert freezer.verified
        assert hooks(model) == 0
    plain(twin(noise)).mean().backward()
    times = 2 if first == "generator" else 1
    torch.testing.assert_close(generator.weight.grad, times * twin.weight.grad)
    assert model.a.weight.grad is model.b.weight.grad is None
    assert model.c.weight.grad is not None


@pytest.mark.parametrize("strict", [False, True])
def test_where_another_module_always_feeds_the_model_it_is_told_in_the_end(strict: bool) -> None:
    before, model = nn.Linear(3, 4), Graph("abc")
    freezer = Freezer(split_layers(model), strict=strict)
    freezer.set_depth(1)
    for _ in range(99):
        model(before(torch.ones(2, 3)))
        assert hooks(model) > 0
    message = (
        r"^layer 0 \('a'\) is frozen, but its output still needs a gradient, because of parameters "
        r"of another module that fed the model in 100 passes in a row\. The backward pass goes on "
        r"through frozen layers, so less is saved\. Gradients are right\. To save it all, put both "
        r"in one model and cut that\.$"
    )
    with (
        pytest.raises(PrefixError, match=message)
        if strict
        else pytest.warns(FrozenPrefixWarning, match=message)
    ):
        model(before(torch.ones(2, 3)))
    assert hooks(model) == 0
    assert not freezer.verified
    model(before(torch.ones(2, 3)))


def test_an_active_layer_in_the_way_is_named_also_where_another_module_feeds_the_model() -> None:
    before, model = nn.Linear(3, 4), Graph("bac")
    freezer = Freezer(split_layers(model), strict=True)
    freezer.set_depth(1)
    with pytest.raises(PrefixError, match=r"active parameters that feed it: 'b\.(weight|bias)'"):
        model(before(torch.ones(2, 3)))
    assert hooks(model) == 0


def test_frozen_parameters_made_to_require_a_gradient_again_are_named() -> None:
    model, _ = make(2, strict=True)
    model.requires_grad_(True)
    with pytest.raises(PrefixError, match=r"require a gradient again: 'blocks\.0\."):
        backward(model)


@pytest.mark.parametrize("wrap", [lambda t: (None, [t]), lambda t: {"y": t}, lambda t: [(t,)]])
def test_outputs_may_be_nested(wrap: Callable[[torch.Tensor], Any]) -> None:
    class Wraps(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = nn.Linear(4, 4)

        def forward(self, x: torch.Tensor) -> Any:
            return wrap(self.inner(x))

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.early, self.first, self.head = nn.Linear(4, 4), Wraps(), nn.Linear(4, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            found = self.first(self.early(x))
            while not isinstance(found, torch.Tensor):
                found = found["y"] if isinstance(found, dict) else found[-1]
            return self.head(found)

    model = Net()
    freezer = Freezer(split_layers(model, layers=["first", "early", "head"]), strict=True)
    freezer.set_depth(1)
    with pytest.raises(PrefixError, match="layer 0 "):
        model(torch.ones(2, 4))
    unfreeze(model)
    freezer = Freezer(split_layers(model, layers=["early", "first", "head"]), strict=True)
    freezer.set_depth(2)
    model(torch.ones(2, 4))
    assert freezer.verified


# Leaks out of sight of the outermost module


class Bypass(nn.Module):
    """Calls a method of its first part, or a list of blocks, that an active weight feeds."""

    class Part(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = nn.Linear(4, 4)

        def encode(self, x: torch.Tensor) -> torch.Tensor:
            out: torch.Tensor = self.inner(x)
            return out

    def __init__(self) -> None:
        super().__init__()
        self.part = self.Part()
        self.blocks = nn.ModuleList(nn.Linear(4, 4) for _ in range(2))
        self.head = nn.Linear(4, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.part.encode(x + self.head.weight.sum())
        for block in self.blocks:
            x = block(x)
        out: torch.Tensor = self.head(x)
        return out


@pytest.mark.parametrize("names", [["part", "blocks", "head"], ["part", ("blocks",), "head"]])
def test_leaks_are_seen_inside_methods_and_lists(names: list[Any]) -> None:
    model = Bypass()
    freezer = Freezer(split_layers(model, layers=names), strict=True)
    freezer.set_depth(1)
    with pytest.raises(PrefixError, match=r"layer 0 \('part'\).*'head.weight' \(layer 2\)"):
        model(torch.ones(2, 4))
    assert not freezer.verified
    assert hooks(model) == 0


def test_outputs_may_be_dataclasses() -> None:
    @dataclasses.dataclass
    class Output:
        logits: torch.Tensor

    class Wrapped(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.ones(4))

        def forward(self, x: torch.Tensor) -> Output:
            return Output(x * self.weight)

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.head = Wrapped(), nn.Linear(4, 4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            out: torch.Tensor = self.head(self.first(x + self.head.bias).logits)
            return out

    model = Net()
    freezer = Freezer(split_layers(model), strict=True)
    freezer.set_depth(1)
    with pytest.raises(PrefixError, match=r"'head\.bias'"):
        model(torch.ones(2, 4))


class UnusedLast(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.aux = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.b(self.a(x))
        return out


def test_a_model_with_nothing_left_to_learn_is_told_what_to_pass() -> None:
    model = UnusedLast()
    freezer = Freezer(split_layers(model))
    freezer.set_depth(1)
    model(torch.ones(2, 4)).sum().backward()  # one layer still learns: nothing to say
    assert freezer.verified
    freezer.set_depth(2)
    with pytest.warns(FrozenPrefixWarning, match=r"all 2 layers .* are frozen.*'aux' did not run"):
        model(torch.ones(2, 4))
    assert hooks(model) == 0
    # With an example the layer that runs last is the last.
    layers = split_layers(model, example=torch.ones(2, 4))
    assert layers.names == ("a", "b")


def test_parts_called_one_by_one_are_watched_for_one_pass() -> None:
    model = Bypass()
    freezer = Freezer(split_layers(model, layers=["part", "blocks", "head"]), strict=True)
    freezer.set_depth(1)
    for _ in range(2):
        model.head(model.blocks[0](model.part.encode(torch.ones(2, 4))))
    assert freezer.verified
    assert hooks(model) == 0


def test_a_listener_that_raises_does_not_leave_the_freeze_unchecked() -> None:
    model = UnusedLast()
    freezer = Freezer(split_layers(model))

    def fails(event: FreezeEvent) -> None:
        raise RuntimeError("mine")

    remove = freezer.add_listener(fails)
    with pytest.raises(RuntimeError, match="mine"):
        freezer.set_depth(1)
    remove()
    assert freezer.depth == 1
    assert not freezer.verified
    model(torch.ones(2, 4)).sum().backward()
    assert freezer.verified


def test_without_the_check_no_module_gets_a_hook():
    net = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 2))
    freezer = Freezer(split_layers(net))
    freezer.check = False
    freezer.set_depth(1)
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in net.modules())
    freezer.unfreeze()
    freezer.check = True
    freezer.set_depth(1)
    assert any(m._forward_hooks for m in net.modules())
