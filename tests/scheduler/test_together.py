"""`FreezeOut` beside other schedulers, other optimizers and earlier runs."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.optim import lr_scheduler
from torch.utils.data import DataLoader, TensorDataset

from freezeout import FreezeOut, FrozenPrefixWarning, Schedule, split_layers, unfreeze
from tests.contracts import (
    STEPS,
    differing,
    flags,
    make_batch,
    make_net,
    modes,
    plain_cosine,
    snapshot,
    train,
)
from tests.scheduler.steps import LINEAR, group_rates, momentum, set_up, update


@pytest.mark.parametrize(
    "other",
    [
        lambda o: lr_scheduler.OneCycleLR(o, max_lr=0.2, total_steps=STEPS + 1),
        lambda o: lr_scheduler.CosineAnnealingLR(o, T_max=STEPS),
        lambda o: lr_scheduler.LambdaLR(o, plain_cosine),
    ],
    ids=["one-cycle", "cosine", "lambda"],
)
def test_without_rates_another_scheduler_has_its_way(other: Callable[..., Any]) -> None:
    """Equal to freezing by hand in a plain loop."""
    model = make_net()
    optimizer = momentum(model.parameters())
    group = optimizer.param_groups[0]
    beside = other(optimizer)
    scheduler = FreezeOut(optimizer, model, STEPS, schedule=Schedule(t0=0.3, anneal=None))
    assert optimizer.param_groups == [group]
    rates: list[list[float]] = []
    train(
        model,
        optimizer,
        [beside, scheduler],
        after_step=lambda n: rates.append([*group_rates(optimizer), *scheduler.get_last_lr()]),
    )
    assert scheduler.frozen == 3

    twin: Any = make_net()
    plain = momentum(twin.parameters())
    alone = other(plain)
    expected: list[list[float]] = []

    def freeze(n: int) -> None:
        expected.append(group_rates(plain) * 2)
        for i, freeze_step in enumerate(scheduler.freeze_steps[:-1]):
            if n == freeze_step:
                twin.blocks[i].requires_grad_(False).eval()
                twin.blocks[i].train = lambda mode=True: None

    train(twin, plain, [alone], after_step=freeze)
    assert rates == expected
    assert differing(snapshot(model), snapshot(twin)) == []


def test_in_a_chain() -> None:
    model, optimizer, scheduler = set_up(t0=0.3, spacing="linear", anneal=None)
    cosine = lr_scheduler.CosineAnnealingLR(optimizer, T_max=STEPS)
    chain = lr_scheduler.ChainedScheduler([scheduler, cosine])
    train(model, optimizer, [chain], stop=8)
    assert scheduler.frozen == 2
    assert chain.get_last_lr() == pytest.approx([0.1 * plain_cosine(8)])


class Mixed(nn.Module):
    """Matrices for Muon, vectors for AdamW."""

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.layers = nn.ModuleList(nn.Linear(6, 6) for _ in range(3))
        self.head = nn.Linear(6, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for layer in self.layers:
            x = torch.tanh(layer(x))
        return self.head(x)


@pytest.mark.skipif(not hasattr(torch.optim, "Muon"), reason="this torch has no Muon")
def test_two_optimizers_of_one_model() -> None:
    def build(seed: int = 0) -> list[Any]:
        model = Mixed(seed)
        muon = torch.optim.Muon([p for p in model.parameters() if p.ndim == 2], lr=0.05)
        adamw = torch.optim.AdamW([p for p in model.parameters() if p.ndim == 1], lr=0.02)
        first = FreezeOut(muon, model, STEPS, schedule=LINEAR)
        second = FreezeOut(adamw, model, STEPS, together_with=first)
        return [model, muon, adamw, first, second]

    def go(parts: list[Any], start: int, stop: int) -> None:
        model, muon, adamw, first, second = parts
        for n in range(start, stop):
            x, y = make_batch("matrix", n)
            F.cross_entropy(model(x), y).backward()
            for part in (muon, adamw, first, second):
                part.step()
            model.zero_grad()
            depth = first.frozen
            assert depth == second.frozen == first.depth_at(n + 1)
            for i, layer in enumerate(model.layers):
                frozen = i < depth
                assert layer.weight.requires_grad is layer.bias.requires_grad is not frozen
                assert (layer.weight in muon.state) is (layer.bias in adamw.state) is not frozen
                key = (i, frozen)
                if frozen:
                    assert differing(kept.setdefault(key, snapshot(layer)), snapshot(layer)) == []

    kept: dict[Any, Any] = {}
    whole = build()
    go(whole, 0, STEPS)
    assert len(kept) == 3
    parts = build()
    go(parts, 0, 8)
    fresh = build(seed=1)
    for old, new in zip(parts, fresh, strict=True):
        new.load_state_dict(old.state_dict())
    go(fresh, 8, STEPS)
    assert differing(snapshot(whole[0]), snapshot(fresh[0])) == []
    for scheduler in fresh[3:]:
        scheduler.step(0)
    assert all(flags(fresh[0]).values())
    assert all(modes(fresh[0]).values())


@pytest.mark.parametrize("kept", [[2], [1, 2]], ids=["frozen after the cut", "one layer learns"])
def test_all_that_learns_must_not_freeze(kept: list[int]) -> None:
    model = nn.Sequential(*(nn.Linear(4, 4) for _ in range(3)))
    layers = split_layers(model) if len(kept) == 1 else None
    for i in kept:
        model[i].requires_grad_(False)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with pytest.raises(ValueError, match="all layers that learn would freeze: what comes after"):
        FreezeOut(optimizer, model, STEPS, layers=layers)
    assert len(optimizer.param_groups) == 1
    FreezeOut(optimizer, model, STEPS, layers=layers, t0=1.0)  # nothing freezes


def test_a_second_run_on_the_same_model_and_optimizer() -> None:
    model, optimizer, first = set_up(momentum)
    train(model, optimizer, [first])
    assert group_rates(optimizer) == [0.0] * 4
    assert first.frozen == 3
    before = snapshot(model)
    groups = [id(group["params"][0]) for group in optimizer.param_groups]
    with pytest.warns(FrozenPrefixWarning, match="an earlier freeze left frozen learn again") as w:
        second = FreezeOut(optimizer, model, STEPS, schedule=LINEAR)
    assert [warning.filename for warning in w] == [__file__]
    assert [id(group["params"][0]) for group in optimizer.param_groups] == groups
    assert second.frozen == 0
    assert all(flags(model).values())
    assert group_rates(optimizer) == pytest.approx([0.1 / t for t in second.freeze_times])
    train(model, optimizer, [second])
    assert second.frozen == 3
    assert differing(before, snapshot(model)) == list(before)


def test_a_check_pending_from_the_first_run_does_not_disturb_the_second() -> None:
    model, optimizer, first = set_up(schedule=LINEAR, strict=True)
    first.step(STEPS)
    unfreeze(model)
    second = FreezeOut(optimizer, model, STEPS, schedule=LINEAR, strict=True)
    update(model, optimizer)
    second.step()
    assert second.last_epoch == 1
    assert model.blocks[0].conv.weight.grad is not None


def test_the_optimizer_outlives_the_scheduler() -> None:
    model, optimizer, scheduler = set_up(momentum)
    gone = weakref.ref(scheduler)
    rates = group_rates(optimizer)
    del scheduler
    gc.collect()
    assert gone() is None
    before = snapshot(model)
    update(model, optimizer)
    assert "blocks.0.conv.weight" in differing(before, snapshot(model))
    assert group_rates(optimizer) == rates


def test_flags_turned_on_by_hand_do_not_move_a_frozen_weight() -> None:
    model, optimizer, scheduler = set_up(momentum)
    scheduler.step(5)
    before = snapshot(model)
    model.requires_grad_(True)
    with pytest.warns(FrozenPrefixWarning, match="made to require a gradient again"):
        train(model, optimizer, [scheduler], stop=1)
    changed = differing(before, snapshot(model))
    assert not [name for name in changed if name.startswith("blocks.0")]
    assert "blocks.1.conv.weight" in changed
    scheduler.step(0)
    assert all(flags(model).values())


def test_works_in_an_ordinary_loop_over_a_loader() -> None:
    xs, ys = zip(*(make_batch("conv", n) for n in range(3)), strict=True)
    loader = DataLoader(TensorDataset(torch.cat(xs), torch.cat(ys)), batch_size=4)
    model = make_net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    scheduler = FreezeOut(optimizer, model, total_steps=4 * len(loader))
    for _ in range(4):
        model.train()
        for x, y in loader:
            F.cross_entropy(model(x), y).backward()
            optimizer.step()
            optimizer.zero_grad()
            scheduler.step()
        model.eval()
        with torch.no_grad():
            model(xs[0])
    assert scheduler.progress == 1.0
    assert scheduler.frozen == 3
    assert not any(scheduler.get_last_lr())
