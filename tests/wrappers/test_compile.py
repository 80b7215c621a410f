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

from freezeout import FreezeOut, Freezer, FrozenPrefixWarning, split_layers, unfreeze
from freezeout.wrappers import Region, graphs_of, recompile_trouble, regions
from freezeout.wrappers import dynamo as _dynamo

pytestmark = [  # of torch.compile itself
    pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf"),
    pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning"),
]

BLOCKS = 9
# PyTorch 2.6 has another name for the limit, and none for that of a single call.
NAME = "recompile_limit"
if not hasattr(torch._dynamo.config, NAME):
    NAME = "cache_size_limit"
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


class Chain(nn.ModuleList):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for part in self:
            x = part(x)
        return x


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


class Broken(Net):
    """PyTorch compiles what comes before and after the break as two functions."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        torch._dynamo.graph_break()
        for block in self.blocks:
            x = block(x)
        return self.head(x)


def in_sequence(blocks: int) -> nn.Sequential:
    model = Net(blocks)
    return nn.Sequential(model.stem, *model.blocks, model.head)


@pytest.mark.parametrize(
    "seen",
    [
        "in place",
        *(
            pytest.param(way, marks=pytest.mark.slow)
            for way in ("wrapped", "out of sight", "in pieces", "sequence")
        ),
    ],
)
def test_a_whole_model_takes_one_graph_for_each_freeze_and_never_too_many(seen: str) -> None:
    """Fourteen freezes, with evaluations between: 32 graphs, where PyTorch gives up at 8."""
    kind = {"in pieces": Broken, "sequence": in_sequence}.get(seen, Net)
    model, plain, counter = kind(13), kind(13), CompileCounter()
    run: Any = model
    optimizer = torch.optim.SGD(model.parameters(), lr=0.001)
    steps = 40
    with warnings.catch_warnings():
        warnings.simplefilter("error", FrozenPrefixWarning)
        if seen == "in place":
            model.compile(backend=counter)
        elif seen != "out of sight":
            run = torch.compile(model, backend=counter)
        scheduler = FreezeOut(optimizer, run, steps, t0=0.3, spacing="linear", scaled=False)
        if seen == "out of sight":
            run = torch.compile(model, backend=counter)
        twin = FreezeOut(
            torch.optim.SGD(plain.parameters(), lr=0.001), plain, steps, schedule=scheduler.schedule
        )
        region = regions(model if run is model else run)[0]
        held = []
        for step in range(steps):
            x = torch.randn(3, 4, generator=torch.Generator().manual_seed(step))
            for net in (run, plain):
                net(x).square().sum().backward()
            for made in (scheduler, twin):
                made.optimizer.step()
            same_gradients(model, plain)
            model.eval()
            with torch.no_grad():
                run(x)
            model.train()
            functions = [region.code, *_dynamo.continuations([region.code])]
            assert len(functions) == 1 + (seen == "in pieces")
            held.append(max(map(_dynamo.graphs, functions)))
            assert held[-1] > 0
            scheduler.step()
            twin.step()
    assert scheduler.frozen == 14
    assert max(held) <= LIMIT
    if seen == "in pieces":  # the first of them has nothing new after its one layer froze
        assert 2 * (14 + 1) < counter.frame_count < 4 * (14 + 1)
    else:
        assert counter.frame_count == 2 * (14 + 1)


def test_graphs_of_blocks_are_not_dropped_for_a_model_of_the_same_class() -> None:
    """A chain of chains, whose code they share; the model itself is not compiled."""

    torch.manual_seed(0)
    blocks = [Chain([nn.Linear(6, 6), nn.Tanh()]) for _ in range(6)]
    model, counter = Chain([*blocks, nn.Linear(6, 2)]), CompileCounter()
    for block in blocks:
        block.compile(backend=counter)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    names = [str(i) for i in range(7)]
    scheduler = FreezeOut(optimizer, model, 20, layers=names, t0=0.3, spacing="linear")
    for _ in range(20):
        model(torch.randn(3, 6)).sum().backward()
        optimizer.step()
        optimizer.zero_grad()
        scheduler.step()
    assert scheduler.frozen == 6
    # The first block's input needs no gradient, unlike that of the others; then they are frozen.
    assert counter.frame_count == 3


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
    # Training and evaluation before, between and after three freezes.
    assert counter.frame_count == 2 * (1 + 3) <= LIMIT


@pytest.fixture
def hoarding(monkeypatch: pytest.MonkeyPatch) -> None:
    """A PyTorch that does not let graphs be dropped."""
    monkeypatch.setattr(_dynamo, "_reset_code", lambda: None)


def how_to_allow(graphs: int) -> str:
    if OWN_LIMIT:
        return f"torch.compile(..., recompile_limit={graphs})."
    return f"torch._dynamo.config.{NAME} = {graphs}."


def test_where_graphs_cannot_be_dropped_it_says_what_to_do(hoarding: None) -> None:
    model = Net()
    compiled = torch.compile(model, backend="eager")
    with pytest.warns(FrozenPrefixWarning) as caught:
        FreezeOut(torch.optim.SGD(model.parameters(), lr=0.1), compiled, 100, t0=0.5)
    assert str(caught[0].message) == (
        f"torch.compile keeps {LIMIT} graphs of Net.forward and then runs it uncompiled, but up to "
        "22 are needed, with evaluations between: it gains graphs with every freeze. Compile the "
        "model or its blocks and nothing around them (model.compile(), block.compile()), let "
        "several layers freeze at a time (max_freezes=...), or allow more: "
        f"{how_to_allow(44)}"
    )
    assert caught[0].filename == __file__


@pytest.mark.skipif(not OWN_LIMIT, reason="this PyTorch has one limit for all")
def test_a_custom_limit_is_read() -> None:
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


def test_blocks_without_a_stem_lose_no_graph_that_they_need() -> None:
    torch.manual_seed(0)
    model, counter = nn.Sequential(*(Block() for _ in range(6)), nn.Linear(6, 2)), CompileCounter()
    for block in model[:-1]:
        block.compile(backend=counter)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    scheduler = FreezeOut(optimizer, model, 20, t0=0.3, spacing="linear")
    for _ in range(20):
        model(torch.randn(3, 6)).sum().backward()
        optimizer.step()
        optimizer.zero_grad()
        model.eval()
        with torch.no_grad():
            model(torch.randn(3, 6))
        model.train()
        scheduler.step()
    assert scheduler.frozen == 6
    assert counter.frame_count == 3 + 2  # three in training, two in evaluation: live, frozen


class Breaking(Widening):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.linear(x)
        torch._dynamo.graph_break()
        return torch.tanh(x)


@pytest.mark.parametrize("how", ["the model", "its blocks"])
def test_a_break_within_a_block_is_no_way_to_run_out(how: str) -> None:
    """Its two pieces are functions of their own, whatever was compiled around them."""
    torch.manual_seed(0)
    blocks = [Breaking(a, a + 1) for a in range(4, 9)]
    model = Chain([*blocks, nn.Linear(9, 2)])
    for part in [model] if how == "the model" else blocks:
        part.compile(backend="eager")
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    held = []
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*its instances differ in shape")
        scheduler = FreezeOut(optimizer, model, 20, t0=0.3, spacing="linear")
        warnings.filterwarnings("error", category=FrozenPrefixWarning)
        for _ in range(20):
            model(torch.randn(3, 4)).sum().backward()
            optimizer.step()
            optimizer.zero_grad()
            code = Breaking.forward.__code__
            pieces = [code, *_dynamo.continuations([code])]
            held.append([_dynamo.graphs(piece) for piece in pieces])
            scheduler.step()
    assert scheduler.frozen == 5
    assert all(len(counts) == 2 for counts in held)
    assert all(0 < count <= LIMIT for counts in held for count in counts)


def test_what_else_was_compiled_is_not_spoken_of() -> None:
    other = Net(2)
    compiled = torch.compile(other, backend="eager")
    for size in range(1, 4):
        for layer in (other.stem, other.head):
            layer.weight.requires_grad_(size == 2)
        torch._dynamo.mark_static(x := torch.randn(size, 4))
        compiled(x)
    assert graphs_of(Region(other, other)) > 2
    with warnings.catch_warnings(), torch._dynamo.config.patch({NAME: 4}):
        warnings.simplefilter("error", FrozenPrefixWarning)
        model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 2))
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        FreezeOut(optimizer, model, 10, t0=0.3, spacing="linear").step(9)


def widening(blocks: int, backend: Any) -> nn.Sequential:
    torch.manual_seed(0)
    widths = range(4, 5 + blocks)
    model = nn.Sequential(
        *(Widening(a, b) for a, b in itertools.pairwise(widths)), nn.Linear(widths[-1], 2)
    )
    for block in model[:-1] if backend is not None else ():
        block.compile(backend=backend)
    return model


def test_more_shapes_than_the_limit_are_announced() -> None:
    model = widening(LIMIT // 2 + 1, "eager")
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    words = (
        rf"Widening\.forward .* up to {LIMIT + 2} are needed, with evaluations between: its "
        r"instances differ in shape, so each needs its own. Allow more: "
    )
    with pytest.warns(FrozenPrefixWarning, match=words):
        FreezeOut(optimizer, model, 100, t0=0.5)


def test_graphs_of_different_shapes_make_room_for_each_other() -> None:
    """Each of four shapes needs three graphs and two for evaluations; at most eight at once."""
    counter = CompileCounter()
    model, plain = widening(4, counter), widening(4, None)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    with warnings.catch_warnings():
        warnings.simplefilter("error", FrozenPrefixWarning)
        scheduler = FreezeOut(optimizer, model, 20, t0=0.3, spacing="linear")
        freezer = Freezer(split_layers(plain))
        held = []
        for _ in range(20):
            x = torch.randn(3, 4)
            plain.load_state_dict(model.state_dict())
            for net in (model, plain):
                net(x).square().sum().backward()
            optimizer.step()
            same_gradients(model, plain)
            model.eval()
            with torch.no_grad():
                model(x)
            model.train()
            held.append(_dynamo.graphs(Widening.forward.__code__))
            scheduler.step()
            freezer.set_depth(scheduler.frozen)
    assert scheduler.frozen == 4
    assert max(held) <= LIMIT
    assert held[-1] > 0


@pytest.mark.skipif(not _dynamo.notices_flags(), reason="this PyTorch goes on with its graph")
@torch._dynamo.config.patch({NAME: 4})
def test_a_limit_that_fills_is_noticed_at_the_freeze(hoarding: None) -> None:
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
    unfreeze(model)  # forgets the watch
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
