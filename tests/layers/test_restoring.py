"""What a run on the side leaves behind: nothing."""

from __future__ import annotations

from collections import deque

import numpy
import pytest
import torch
from torch import nn

from freezeout import split_layers
from freezeout.layers import put_back, same_bits


class Hidden(nn.Module):
    """Keeps what it has seen, in every way that a plain attribute can."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Linear(8, 16), nn.Linear(16, 16), nn.Linear(16, 2)
        self.h: torch.Tensor | None = None
        self.sum = torch.zeros(16)
        self.rows: list[torch.Tensor] = []
        self.last: deque[torch.Tensor] = deque(maxlen=2)
        self.cache: dict[str, list[int]] = {"sizes": []}
        self.seen: set[int] = set()
        self.graph = torch.eye(2).to_sparse()
        self.passes = 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = self.a(x).relu()
        h = h if self.h is None else h + self.h
        self.h = h.detach()
        self.sum.add_(h.detach().sum(0))
        self.rows.append(x)
        self.last.append(x)
        self.cache["sizes"].append(len(x))
        self.cache.setdefault("more", [])
        self.seen.add(len(x))
        self.passes += 1
        return self.c(self.b(h).relu())


def test_an_example_leaves_no_state_in_plain_attributes() -> None:
    model = Hidden()
    held = model.rows, model.last, model.cache, model.seen, model.sum
    split_layers(model, example=torch.randn(2, 8))
    assert model.h is None
    assert model.passes == 0
    assert model.cache == {"sizes": []}
    assert not model.rows
    assert not model.last
    assert not model.seen
    assert not model.sum.any()
    now = model.rows, model.last, model.cache, model.seen, model.sum
    assert all(a is b for a, b in zip(held, now, strict=True))
    model(torch.randn(3, 8))  # another size of batch, and a pass that counts
    assert model.passes == 1
    assert model.h is not None
    assert model.cache == {"sizes": [3], "more": []}


class HookedAtFirst(nn.Module):
    """Hooks its parts up in the first pass and notes so; uses up a hook of its own in it."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(8, 8), nn.Linear(8, 8)
        self.seen: list[torch.Tensor] = []
        self.once = self.a.register_forward_pre_hook(self._once)

    def _once(self, module: nn.Module, args: tuple[torch.Tensor]) -> None:
        self.once.remove()

    def _note(self, module: nn.Module, args: tuple[torch.Tensor], output: torch.Tensor) -> None:
        self.seen.append(output)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if not getattr(self, "is_hooked", False):
            for part in (self.a, self.b):
                part.register_forward_hook(self._note)
            self.is_hooked = True
        self.seen.clear()
        self.b(self.a(x).relu())
        first, second = self.seen
        return first + second


def test_a_model_that_hooks_itself_up_does_so_once() -> None:
    """As models of transformers do whose hidden states are asked for."""
    model = HookedAtFirst()
    split_layers(model, example=torch.randn(2, 8))
    assert not model.a._forward_hooks
    assert len(model.a._forward_pre_hooks) == 1
    for _ in range(2):
        model(torch.randn(2, 8))
        assert len(model.a._forward_hooks) == len(model.b._forward_hooks) == 1
        assert not model.a._forward_pre_hooks


class Inside(nn.Module):
    """Holds a module with state in a container, and draws from NumPy."""

    def __init__(self) -> None:
        super().__init__()
        self.parts = nn.Sequential(Hidden(), nn.Linear(2, 2))
        self.noise = 0.0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.noise = float(numpy.random.rand())
        return self.parts(x)


@pytest.mark.parametrize("fail", [False, True])
def test_what_is_inside_and_the_numbers_of_numpy_are_put_back(fail: bool) -> None:
    model = Inside()
    numpy.random.seed(0)
    expected = numpy.random.rand()
    numpy.random.seed(0)
    with pytest.raises(ZeroDivisionError) if fail else put_back(model), put_back(model):
        model(torch.randn(2, 8))
        assert model.noise == expected
        if fail:
            raise ZeroDivisionError
    assert model.noise == 0.0
    assert model.parts[0].h is None
    assert numpy.random.rand() == expected


class Builds(nn.Module):
    """Makes its parts in the first pass, when it knows the size of its input."""

    def __init__(self) -> None:
        super().__init__()
        self.inner: nn.Module | None = None
        self.lazy = nn.LazyLinear(4)
        self.is_built = False

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if not self.is_built:
            self.inner, self.is_built = nn.Linear(x.shape[1], 4), True
        return self.lazy(self.inner(x))  # type: ignore[misc]


def test_parts_that_the_pass_builds_stay() -> None:
    model = Builds()
    with put_back(model):
        model(torch.randn(2, 3))
    inner = model.inner
    assert isinstance(inner, nn.Linear)
    assert model(torch.randn(2, 3)).shape == (2, 4)
    assert model.inner is inner
    assert type(model.lazy) is nn.Linear


def test_parameters_are_put_back_where_asked() -> None:
    model = nn.Linear(2, 2)
    weight, value = model.weight, model.weight.detach().clone()
    with put_back(model):
        model.weight.data.add_(1)
    assert not torch.equal(weight, value)
    weight.data.copy_(value)
    with put_back(model, parameters=True):
        model.weight.data.add_(1)
        model.weight = nn.Parameter(torch.ones(2, 2))
        model.bias.data = torch.ones(5)
    assert model.weight is weight
    assert torch.equal(weight, value)
    assert model.bias.shape == (2,)


def test_bits_are_compared() -> None:
    nan = torch.tensor([float("nan"), 1.0])
    assert same_bits(nan, nan.clone())
    assert not same_bits(nan, nan + 1)
    assert not same_bits(torch.zeros(()), -torch.zeros(()))
    assert not same_bits(torch.zeros(2, dtype=torch.cfloat), torch.full((2,), 1j))
