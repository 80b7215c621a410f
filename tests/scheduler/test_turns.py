"""Heads that take turns, and their kin: the last layer that learns in a pass never freezes."""

from __future__ import annotations

import copy
import re
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from freezeout import (
    CheckpointError,
    FreezeOut,
    FrozenPrefixWarning,
    MovementWarning,
    Schedule,
    split_layers,
    unfreeze,
)
from freezeout.reference import RateOnly
from tests.contracts import differing, flags, snapshot

STEPS = 24
LINEAR = Schedule(t0=0.3, spacing="linear")


class Heads(nn.Module):
    """A trunk of two layers and heads of which one runs at a time."""

    def __init__(self, count: int = 2) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.trunk = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 8), nn.Tanh())
        self.heads = nn.ModuleList(nn.Linear(8, 3) for _ in range(count))

    def forward(self, x: torch.Tensor, head: int = -1) -> torch.Tensor:
        return self.heads[head](self.trunk(x))


def _batch(n: int) -> tuple[torch.Tensor, torch.Tensor]:
    g = torch.Generator().manual_seed(n)
    return torch.randn(4, 6, generator=g), torch.randint(0, 3, (4,), generator=g)


Choose = Callable[[int], list[int]]


def _train(
    parts: list[Any],
    choose: Choose,
    *,
    start: int = 0,
    stop: int = STEPS,
    set_to_none: bool = True,
) -> None:
    """One backward pass for each head that `choose` returns for a step, then an update."""
    model, optimizer, scheduler = parts
    for n in range(start, stop):
        for i, head in enumerate(choose(n)):
            x, y = _batch(10 * n + i)
            F.cross_entropy(model(x, head), y).backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=set_to_none)
        scheduler.step()


def _apart(count: int = 2) -> list[Any]:
    """The cut of somebody who does not know that heads belong together; ours would join them."""
    return ["trunk.0", "trunk.2", *(f"heads.{i}" for i in range(count))]


def _build(count: int = 2, **options: Any) -> list[Any]:
    model = Heads(count)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    settings = {"schedule": LINEAR, "layers": _apart(count)} | options
    return [model, optimizer, FreezeOut(optimizer, model, STEPS, **settings)]


KINDS: dict[str, tuple[Choose, int]] = {
    "in turn": (lambda n: [n % 2], 2),
    "in turn, the last first": (lambda n: [(n + 1) % 2], 2),
    "three in turn": (lambda n: [n % 3], 3),
    "the last one seldom": (lambda n: [1 if n % 5 == 4 else 0], 2),
    "the first one seldom": (lambda n: [0 if n % 5 == 4 else 1], 2),
    "in turn within an update": (lambda n: [0, 1], 2),
    "one of them twice within an update": (lambda n: [1, 0, 0], 2),
    "the last one never": (lambda n: [0], 2),
}


@pytest.mark.parametrize("set_to_none", [True, False])
@pytest.mark.parametrize("name", KINDS)
def test_the_first_head_stays_and_it_is_told_by_name(name: str, set_to_none: bool) -> None:
    choose, count = KINDS[name]
    parts = _build(count)
    with pytest.warns(FrozenPrefixWarning, match=r"ended at layer 2 \('heads\.0'\)") as seen:
        _train(parts, choose, set_to_none=set_to_none)
    assert len(seen) == 1
    model, _, scheduler = parts
    assert scheduler.frozen == scheduler.depth_at(STEPS) == 2
    assert scheduler.freeze_steps[2:] == (None,) * count
    assert scheduler.freeze_steps[:2] == LINEAR.freeze_steps(2 + count, STEPS)[:2]
    assert [*scheduler.factors_at(20)[2:]] == [scheduler.factors_at(20)[-1]] * count != [0] * count
    assert scheduler.table().count("never") == count
    assert [flag for name, flag in flags(model).items() if "weight" in name] == [
        *(False, False),
        *[True] * count,
    ]
    message = str(seen[0].message)
    assert "at most 2 of" in message
    pasted = re.search(r"layers=(\[.*\])[;]", message)
    assert pasted is not None
    cut = eval(pasted.group(1))
    assert cut == ["trunk.0", "trunk.2", [f"heads.{i}" for i in range(count)]]
    again = _build(count, layers=cut)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        _train(again, choose, set_to_none=set_to_none)
    assert again[2].frozen == 2


@pytest.mark.parametrize("set_to_none", [True, False])
def test_frozen_layers_hold_still_and_every_head_learns(set_to_none: bool) -> None:
    parts = _build()
    with pytest.warns(FrozenPrefixWarning):
        _train(parts, lambda n: [n % 2], stop=16, set_to_none=set_to_none)
    model, _, scheduler = parts
    assert scheduler.frozen == 2
    trunk, heads = snapshot(model.trunk), snapshot(model.heads)
    _train(parts, lambda n: [n % 2], start=16, stop=18, set_to_none=set_to_none)
    assert differing(trunk, snapshot(model.trunk)) == []
    assert differing(heads, snapshot(model.heads)) == list(heads)


def test_an_objective_of_the_trunk_alone_keeps_the_trunk() -> None:
    """A penalty with a backward pass of its own, every third update."""
    model, optimizer, scheduler = _build(1)

    def run() -> None:
        for n in range(STEPS):
            x, y = _batch(n)
            F.cross_entropy(model(x), y).backward()
            if n % 3 == 2:
                model.trunk[0](x).square().mean().backward()
            optimizer.step()
            optimizer.zero_grad()
            scheduler.step()

    with pytest.warns(FrozenPrefixWarning, match=r"ended at layer 0 \('trunk\.0'\)"):
        run()
    assert scheduler.frozen == 0
    assert all(flags(model).values())


@pytest.mark.parametrize("name", ["in turn", "the first one seldom"])
def test_its_control_sets_the_same_rates(name: str) -> None:
    """Both plan again at the same update, and end in the same weights."""
    ends = []
    for kind in (FreezeOut, RateOnly):
        model = Heads()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
        scheduler: Any = kind(optimizer, model, STEPS, schedule=LINEAR, layers=_apart())
        with pytest.warns(FrozenPrefixWarning, match="ended at layer 2"):
            _train([model, optimizer, scheduler], KINDS[name][0])
        assert scheduler.state_dict()["deepest"] == 2
        assert scheduler.frozen == (2 if kind is FreezeOut else 0)
        ends.append((snapshot(model), scheduler.get_last_lr()))
    assert differing(ends[0][0], ends[1][0]) == []
    assert ends[0][1] == ends[1][1]


class Blocks(nn.Module):
    """Blocks between an embedding and a head; `skip` says which blocks a pass leaves out."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.stem = nn.Linear(6, 8)
        self.blocks = nn.ModuleList(nn.Linear(8, 8) for _ in range(3))
        self.head = nn.Linear(8, 3)

    def forward(self, x: torch.Tensor, skip: tuple[int, ...] = ()) -> torch.Tensor:
        x = self.stem(x)
        for i, block in enumerate(self.blocks):
            x = x if i in skip else x + torch.tanh(block(x))
        return self.head(x)


def _run_blocks(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    scheduler: FreezeOut,
    skip: Callable[[int], tuple[int, ...]] = lambda n: (),
    before_step: Callable[[int], None] = lambda n: None,
) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error", FrozenPrefixWarning)
        for n in range(STEPS):
            x, y = _batch(n)
            F.cross_entropy(model(x, skip(n)), y).backward()
            before_step(n)
            optimizer.step()
            optimizer.zero_grad()
            scheduler.step()


SKIPS: dict[str, Callable[[int], tuple[int, ...]]] = {
    "dropped layers": lambda n: tuple(i for i in range(3) if (n + i) % 3 == 0),
    "dropped last blocks": lambda n: (1, 2) if n % 2 else (2,),
    "a block that never runs": lambda n: (1,),
}


@pytest.mark.parametrize("name", SKIPS)
def test_layers_that_are_skipped_before_the_last_are_no_alarm(name: str) -> None:
    model = Blocks()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    scheduler = FreezeOut(optimizer, model, STEPS, schedule=LINEAR)
    _run_blocks(model, optimizer, scheduler, SKIPS[name])
    assert scheduler.frozen == 4


def test_a_last_layer_that_the_user_froze_is_no_alarm() -> None:
    model = Blocks()
    model.head.requires_grad_(False)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    scheduler = FreezeOut(optimizer, model, STEPS, times=(0.2, 0.4, 1.0, 1.0))
    _run_blocks(model, optimizer, scheduler)
    assert scheduler.frozen == 2


def test_a_last_layer_whose_parameters_were_replaced_is_no_alarm() -> None:
    model = Blocks()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    scheduler = FreezeOut(optimizer, model, STEPS, schedule=LINEAR)
    model.head.weight = nn.Parameter(model.head.weight.detach().clone())
    model.head.bias = nn.Parameter(model.head.bias.detach().clone())
    with pytest.warns(MovementWarning, match="no optimizer holds 'head.weight', 'head.bias'"):
        _run_blocks(model, optimizer, scheduler)
    assert scheduler.frozen == 4


def test_gradients_that_are_gone_before_the_update_is_counted_are_no_alarm() -> None:
    """An optimizer for the trunk, one for the head that clears its own gradients first."""
    model = Blocks()
    head = torch.optim.SGD(model.head.parameters(), lr=0.01)
    others = [p for name, p in model.named_parameters() if not name.startswith("head")]
    optimizer = torch.optim.SGD(others, lr=0.01)
    scheduler = FreezeOut(optimizer, model, STEPS, schedule=LINEAR)

    def step_head(n: int) -> None:
        head.step()
        head.zero_grad()

    _run_blocks(model, optimizer, scheduler, before_step=step_head)
    assert scheduler.frozen == 4


def test_a_pass_that_trains_what_another_optimizer_holds_is_no_alarm() -> None:
    """A critic trains the encoder that it shares with an actor; the actor's heads are behind it."""
    encoder = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 8))
    actor = nn.ModuleDict({"encoder": encoder, "head": nn.Sequential(*Blocks().blocks)})
    actor_optimizer = torch.optim.SGD(actor["head"].parameters(), lr=0.01)
    critic = nn.Sequential(encoder, nn.Linear(8, 1))
    critic_optimizer = torch.optim.SGD(critic.parameters(), lr=0.01)
    scheduler = FreezeOut(actor_optimizer, actor, STEPS, schedule=LINEAR)

    def run() -> None:
        for n in range(STEPS):
            x, _ = _batch(n)
            for loss, optimizer in (
                (critic(x).mean(), critic_optimizer),
                (actor["head"](encoder(x).detach()).mean(), actor_optimizer),
            ):
                loss.backward()
                optimizer.step()
                optimizer.zero_grad()
            scheduler.step()

    with pytest.warns(FrozenPrefixWarning, match="another optimizer") as seen:
        run()
    assert not [w for w in seen if "take turns" in str(w.message)]
    assert scheduler.frozen == 4
    assert all(p.requires_grad for p in encoder.parameters())


def test_a_generator_behind_a_discriminator_is_no_alarm() -> None:
    torch.manual_seed(0)
    generator = nn.Linear(2, 6)
    model = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 1))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    its_own = torch.optim.SGD(generator.parameters(), lr=0.01)
    scheduler = FreezeOut(optimizer, model, STEPS, schedule=LINEAR)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for n in range(STEPS):
            model(generator(torch.ones(4, 2))).mean().backward()
            its_own.step()
            its_own.zero_grad()
            optimizer.zero_grad()
            (
                model(_batch(n)[0]).mean() - model(generator(torch.ones(4, 2)).detach()).mean()
            ).backward()
            optimizer.step()
            optimizer.zero_grad()
            scheduler.step()
    assert scheduler.frozen == 2


class Fails(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
        return x.clone()

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> Any:
        raise FloatingPointError


@pytest.mark.parametrize("count", [1, 2])
def test_after_a_pass_that_fails_the_next_ones_are_watched(count: int) -> None:
    parts = _build(count)
    model = parts[0]
    with pytest.raises(FloatingPointError):
        model.heads[-1](Fails.apply(model.trunk(_batch(0)[0]))).sum().backward()
    model.zero_grad()
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        _train(parts, lambda n: list(range(count)))  # all heads within an update
    assert parts[2].frozen == 2
    assert len(seen) == (count > 1)


@pytest.mark.parametrize("cut", [1, 6, 14, 20])
def test_what_was_seen_is_saved_and_loaded(cut: int) -> None:
    choose, _ = KINDS["the first one seldom"]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FrozenPrefixWarning)
        whole = _build()
        _train(whole, choose)
        parts = _build()
        _train(parts, choose, stop=cut)
        states = [copy.deepcopy(part.state_dict()) for part in parts]
        assert ("deepest" in states[2]) is (cut > 4)
        fresh = _build()
        for part, state in zip(fresh, states, strict=True):
            part.load_state_dict(state)
        assert fresh[2].frozen == parts[2].frozen
        _train(fresh, choose, start=cut)
    assert differing(snapshot(fresh[0]), snapshot(whole[0])) == []
    assert fresh[2].state_dict() == whole[2].state_dict()
    with pytest.raises(CheckpointError, match="deepest="):
        fresh[2].load_state_dict(states[2] | {"deepest": 9})


def test_a_state_without_it_loads_and_copies_are_not_watched() -> None:
    model, optimizer, scheduler = _build()
    state = scheduler.state_dict()
    assert state.keys() == {"last_epoch", "total_steps", "schedule", "layers", "base_lrs"}
    scheduler.load_state_dict(state | {"last_epoch": 20})
    assert scheduler.frozen == 3
    twin = copy.deepcopy(model)
    unfreeze(twin)
    freed = torch.optim.SGD(twin.parameters(), lr=0.1)
    FreezeOut(freed, twin, STEPS, schedule=LINEAR)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        twin(_batch(0)[0], 1).sum().backward()
    assert optimizer is not freed


def test_the_hooks_are_gone_after_the_first_passes_and_where_nothing_freezes() -> None:
    parts = _build(1)
    weight = parts[0].heads[0].weight
    assert weight._post_accumulate_grad_hooks
    for n in range(100):
        assert weight._post_accumulate_grad_hooks
        x, y = _batch(n)
        F.cross_entropy(parts[0](x), y).backward()
    assert not weight._post_accumulate_grad_hooks
    parts = _build(1, schedule=Schedule(t0=1.0))
    assert parts[0].heads[0].weight._post_accumulate_grad_hooks is None


def test_a_pass_of_a_kind_that_comes_late_is_seen_at_its_update() -> None:
    model = Heads()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    scheduler = FreezeOut(optimizer, model, 200, t0=0.7, spacing="linear", layers=_apart())
    with pytest.warns(FrozenPrefixWarning, match="ended at layer 2"):
        _train([model, optimizer, scheduler], lambda n: [0 if n == 120 else 1], stop=200)
    assert scheduler.frozen == 2


@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
def test_a_compiled_model_is_watched_without_more_graphs(backend: str) -> None:
    def graphs(options: dict[str, Any]) -> tuple[int, FreezeOut]:
        torch._dynamo.reset()
        torch._dynamo.utils.counters.clear()
        model = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 8), nn.Linear(8, 3))
        compiled = torch.compile(model, backend=backend)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
        scheduler = FreezeOut(optimizer, compiled, 40, **options)
        for n in range(4):
            compiled(_batch(n)[0]).sum().backward()
            optimizer.step()
            optimizer.zero_grad()
            scheduler.step()
        return torch._dynamo.utils.counters["stats"]["unique_graphs"], scheduler

    idle, _ = graphs({"t0": 1.0})
    watched, scheduler = graphs({"schedule": LINEAR})
    assert watched == idle == 1
    assert scheduler._turns is not None
    assert scheduler._turns._passes == 4


def test_long_cuts_are_not_written_out() -> None:
    model = nn.ModuleDict({"trunk": nn.Sequential(*(nn.Linear(4, 4) for _ in range(30)))})
    model["heads"] = nn.ModuleList(nn.Linear(4, 2) for _ in range(2))
    layers = split_layers(model, layers=["trunk.*", "heads.*"])
    assert len(layers) == 32
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    scheduler = FreezeOut(optimizer, model, STEPS, schedule=LINEAR, layers=layers)
    with pytest.warns(FrozenPrefixWarning) as seen:
        model["heads"][0](model["trunk"](torch.ones(1, 4))).sum().backward()
    cut = "['trunk.0', 'trunk.1', '...', 'trunk.28', 'trunk.29', ['heads.0', 'heads.1']]"
    assert cut.replace("'...'", "...") in str(seen[0].message)
    assert scheduler.depth_at(STEPS) == 30
