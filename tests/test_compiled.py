"""Freezing and ``torch.compile``: graphs are counted, warnings come before PyTorch gives up."""

from __future__ import annotations

import copy
import inspect
import itertools
import warnings
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import nn
from torch._dynamo.testing import CompileCounter

from freezeout import FreezeOut, Freezer, FrozenPrefixWarning, split_layers
from freezeout.compiled import Graphs, Region, graphs_of, recompile_trouble, regions

pytestmark = [  # of torch.compile itself
    pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf"),
    pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning"),
]

BLOCKS = 9
# PyTorch 2.6 has another name for the limit, and none for that of a single call.
NAME = "recompile_limit"
if not hasattr(torch._dynamo.config, NAME):
    NAME = "cache_size_limit"
CONFIG = "torch._dynamo.config"
LIMIT = getattr(torch._dynamo.config, NAME)
OWN_LIMIT = "recompile_limit" in inspect.signature(torch.compile).parameters


class Block(nn.Module):
    def __init__(self, width: int = 6) -> None:
        super().__init__()
        self.linear = nn.Linear(width, width)
        self.norm = nn.LayerNorm(width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + torch.tanh(self.norm(self.linear(x)))


class Widening(nn.Module):
    """Blocks of one class that all differ in shape."""

    def __init__(self, n_in: int, n_out: int) -> None:
        super().__init__()
        self.linear = nn.Linear(n_in, n_out)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.tanh(self.linear(x))


class Net(nn.Module):
    def __init__(self, blocks: int = BLOCKS) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.stem = nn.Linear(4, 6)
        self.blocks = nn.ModuleList(Block() for _ in range(blocks))
        self.head = nn.Linear(6, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        for block in self.blocks:
            x = block(x)
        return self.head(x)


@pytest.fixture(autouse=True)
def fresh_compiler() -> Iterator[None]:
    torch.compiler.reset()
    yield
    torch.compiler.reset()


def compile_blocks(model: Net, backend: Any, wrapped: bool) -> None:
    for i, block in enumerate(model.blocks):
        if wrapped:
            model.blocks[i] = torch.compile(block, backend=backend)
        else:
            block.compile(backend=backend)


def same_gradients(model: nn.Module, plain: nn.Module) -> None:
    for ours, theirs in zip(model.parameters(), plain.parameters(), strict=True):
        assert (ours.grad is None) is (theirs.grad is None)
        if theirs.grad is not None:
            torch.testing.assert_close(ours.grad, theirs.grad)
        ours.grad = theirs.grad = None


@pytest.mark.parametrize("wrapped", [False, True])
def test_equal_blocks_take_three_graphs_however_many_freeze(wrapped: bool) -> None:
    model, plain, counter = Net(), Net(), CompileCounter()
    compile_blocks(model, counter, wrapped)
    freezer = Freezer(split_layers(model), strict=True)
    modes = Freezer(split_layers(plain))
    counts = []
    for depth in range(BLOCKS + 2):
        freezer.set_depth(depth)
        modes.set_depth(depth)
        for _ in range(2):
            x = torch.randn(3, 4)
            for net in (model, plain):
                net(x).square().sum().backward()
            same_gradients(model, plain)
        assert freezer.verified  # and that costs no graph
        counts.append(counter.frame_count)
    # All live; behind a frozen one; frozen.
    assert counts == [1, 2, *[3] * BLOCKS]


def test_a_whole_model_takes_one_graph_for_each_freeze() -> None:
    model, plain, counter = Net(6), Net(6), CompileCounter()
    compiled = torch.compile(model, backend=counter)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.001)
    with pytest.warns(FrozenPrefixWarning, match="with evaluations"):
        scheduler = FreezeOut(
            optimizer, compiled, 20, t0=0.3, spacing="linear", scaled=False, anneal=None
        )
    twin = FreezeOut(
        torch.optim.SGD(plain.parameters(), lr=0.001),
        plain,
        20,
        schedule=scheduler.schedule,
    )
    for step in range(20):
        x = torch.randn(3, 4, generator=torch.Generator().manual_seed(step))
        for net in (compiled, plain):
            net(x).square().sum().backward()
        for made in (scheduler, twin):
            made.optimizer.step()
        same_gradients(model, plain)
        scheduler.step()
        twin.step()
        assert counter.frame_count == 1 + len(set(scheduler.freeze_steps[: scheduler.frozen])) - (
            step + 1 in scheduler.freeze_steps
        )
    assert scheduler.frozen == 7


def test_merged_freezes_stay_within_the_limit() -> None:
    model, counter = Net(4), CompileCounter()
    compiled = torch.compile(model, backend=counter)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        scheduler = FreezeOut(optimizer, compiled, 24, t0=0.3, spacing="linear", max_freezes=3)
        for _ in range(24):
            compiled(torch.randn(3, 4)).sum().backward()
            optimizer.step()
            optimizer.zero_grad()
            scheduler.step()
            model.eval()
            with torch.no_grad():
                compiled(torch.randn(3, 4))
            model.train()
    assert scheduler.frozen == 4 + 1
    assert len({*scheduler.freeze_steps}) == 3 + 1
    # Training and evaluation before, between and after three freezes; the last evaluation counts.
    assert counter.frame_count == 2 * (1 + 3) <= LIMIT


def test_too_many_freezes_are_announced_with_what_to_do() -> None:
    model = Net()
    compiled = torch.compile(model, backend="eager")
    with pytest.warns(FrozenPrefixWarning) as caught:
        FreezeOut(torch.optim.SGD(model.parameters(), lr=0.1), compiled, 100, t0=0.5)
    assert str(caught[0].message) == (
        f"torch.compile keeps {LIMIT} graphs of Net.forward and then runs it uncompiled, but "
        "freezing takes up to 22, with evaluations between: it is compiled as a whole, so every "
        "freeze needs another one. Compile each block by itself (block.compile()) where blocks are "
        "alike, let several layers freeze at a time (max_freezes=...), or allow more: "
        f"{'torch.compile(..., recompile_limit=44)' if OWN_LIMIT else f'{CONFIG}.{NAME} = 44'}."
    )
    assert caught[0].filename == __file__


@pytest.mark.skipif(not OWN_LIMIT, reason="this PyTorch has one limit for all")
def test_a_limit_of_one_s_own_is_read() -> None:
    whole = Net()
    given = torch.compile(whole, backend="eager", recompile_limit=44)
    blocks = Net()
    for block in blocks.blocks:
        block.compile(backend="eager", recompile_limit=33)
    assert [region.limit for region in regions(given)] == [44]
    assert {region.limit for region in regions(blocks)} == {33}
    assert regions(Net()) == []
    steps = (*range(10, 10 + BLOCKS + 1), None)
    assert recompile_trouble(split_layers(whole), steps, given) is None
    assert recompile_trouble(split_layers(blocks), steps, blocks) is None


def test_blocks_of_different_shapes_are_announced_too() -> None:
    torch.manual_seed(0)
    widths = [4, 6, 8, 10, 12]
    model = nn.Sequential(
        *(Widening(a, b) for a, b in itertools.pairwise(widths)), nn.Linear(12, 2)
    )
    for block in model[:-1]:
        block.compile(backend="eager")
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with pytest.warns(FrozenPrefixWarning, match=r"Widening\.forward .* its instances differ"):
        FreezeOut(optimizer, model, 100, t0=0.5)


@torch._dynamo.config.patch({NAME: 4})
def test_a_limit_that_fills_is_noticed_at_the_freeze() -> None:
    """The model was compiled after the scheduler was made, so that nothing could be foreseen."""
    model = Net(4)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    scheduler = FreezeOut(optimizer, model, 40, t0=0.3, spacing="linear")
    compiled = torch.compile(model, backend="eager")
    caught: list[tuple[int, int]] = []
    for step in range(40):
        compiled(torch.randn(3, 4)).sum().backward()
        optimizer.step()
        optimizer.zero_grad()
        made = graphs_of(Region(model, model))
        with warnings.catch_warnings(record=True) as seen:
            warnings.simplefilter("always")
            scheduler.step()
        caught += [(step, made) for w in seen if "Net.forward" in str(w.message)]
    assert [made for _, made in caught] == [4]  # once, and just before the fallback
    assert Graphs(split_layers(model)).crowded(model) is not None


@torch._dynamo.config.patch({NAME: 4})
def test_a_compiled_function_around_the_model_is_noticed_too() -> None:
    model = Net(6)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    scheduler = FreezeOut(optimizer, model, 20, t0=0.3, spacing="linear")

    @torch.compile(backend="eager")
    def loss(x: torch.Tensor) -> torch.Tensor:
        return model(x).sum()

    told = []
    for _ in range(20):
        loss(torch.randn(3, 4)).backward()
        optimizer.step()
        optimizer.zero_grad()
        with warnings.catch_warnings(record=True) as seen:
            warnings.simplefilter("always")
            scheduler.step()
        told += [scheduler.frozen for w in seen if "loss and then runs it" in str(w.message)]
    assert told == [4]  # four graphs are made, and the fifth would be one too many


def test_nothing_is_said_where_nothing_freezes() -> None:
    model = Net()
    compiled = torch.compile(model, backend="eager")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        FreezeOut(torch.optim.SGD(model.parameters(), lr=0.1), compiled, 100, t0=1.0)


def test_a_copy_of_a_watched_model_has_its_own_call() -> None:
    model = Net(2)
    compile_blocks(model, "eager", wrapped=False)
    freezer = Freezer(split_layers(model))
    freezer.set_depth(2)
    twin = copy.deepcopy(model)
    x = torch.randn(3, 4)
    torch.testing.assert_close(twin(x), model(x))
    assert freezer.verified
    freezer.set_depth(1)
    Freezer(split_layers(model))  # forgets the watch of the first
    call = model.blocks[0].__dict__["_compiled_call_impl"]
    assert "Outside" not in type(call).__name__


def test_a_leak_out_of_a_compiled_block_is_seen() -> None:
    model = Net(3)
    compile_blocks(model, "eager", wrapped=False)
    layers = split_layers(model, layers=["blocks.1", "stem", "blocks.0", "blocks.2", "head"])
    freezer = Freezer(layers)
    freezer.set_depth(1)
    with pytest.warns(FrozenPrefixWarning, match=r"layer 0 \('blocks.1'\) is frozen, but its"):
        model(torch.randn(3, 4))
    assert not freezer.verified


@pytest.mark.slow
def test_with_the_default_backend() -> None:
    """Inductor: gradients right after every freeze, whole and by blocks."""
    for whole in (False, True):
        torch.compiler.reset()
        model, plain = Net(3), Net(3)
        run: Any = torch.compile(model) if whole else model
        if not whole:
            for block in model.blocks:
                block.compile()
        freezer, modes = Freezer(split_layers(model)), Freezer(split_layers(plain))
        for depth in (0, 1, 2, 4, 1):
            freezer.set_depth(depth)
            modes.set_depth(depth)
            x = torch.randn(3, 4)
            for net in (run, plain):
                net(x).square().sum().backward()
            same_gradients(model, plain)
