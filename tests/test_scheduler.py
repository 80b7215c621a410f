"""`FreezeOut`: contracts for every optimizer, then rates, counting, resuming, refusals."""

from __future__ import annotations

import copy
import gc
import inspect
import itertools
import math
import pickle
import warnings
import weakref
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.optim import lr_scheduler
from torch.utils.data import DataLoader, TensorDataset

from contracts import (
    CASES,
    CONTRACTS,
    REFUSED,
    STEPS,
    Case,
    differing,
    flags,
    make_batch,
    make_net,
    modes,
    plain_cosine,
    snapshot,
    train,
)
from freezeout import (
    CheckpointError,
    FreezeEvent,
    FreezeOut,
    FreezeOutError,
    Freezer,
    FrozenPrefixWarning,
    PrefixError,
    Schedule,
    split_layers,
)

LINEAR = Schedule(t0=0.3, spacing="linear")  # of 12 steps the three blocks freeze at 4, 7 and 10


def set_up(
    optimizer: Callable[..., torch.optim.Optimizer] = torch.optim.SGD, **options: Any
) -> tuple[Any, torch.optim.Optimizer, FreezeOut]:
    model = make_net()
    made = optimizer(model.parameters(), lr=0.1)
    return model, made, FreezeOut(made, model, STEPS, **(options or {"schedule": LINEAR}))


def momentum(parameters: Any, lr: float = 0.1) -> torch.optim.SGD:
    return torch.optim.SGD(parameters, lr=lr, momentum=0.9, weight_decay=0.01)


def update(model: nn.Module, optimizer: torch.optim.Optimizer, n: int = 0) -> None:
    x, y = make_batch("conv", n)
    optimizer.zero_grad()
    F.cross_entropy(model(x), y).backward()
    optimizer.step()


def group_rates(optimizer: torch.optim.Optimizer) -> list[float]:
    return [float(group["lr"]) for group in optimizer.param_groups]


# Every optimizer


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
@pytest.mark.parametrize("contract", CONTRACTS, ids=lambda contract: contract.__name__)
def test_every_optimizer_keeps_the_contract(contract: Callable[[Case], None], case: Case) -> None:
    contract(case)


def test_every_optimizer_of_torch_is_in_the_table_or_refused() -> None:
    known = {
        name
        for name, item in vars(torch.optim).items()
        if inspect.isclass(item)
        and issubclass(item, torch.optim.Optimizer)
        and item is not torch.optim.Optimizer
    }
    assert {case.kind.__name__ for case in CASES} | REFUSED == known
    assert not {case.kind.__name__ for case in CASES} & REFUSED


def test_lbfgs_is_refused_with_a_reason_that_is_true() -> None:
    model = make_net()
    optimizer = torch.optim.LBFGS(model.parameters(), lr=0.1, max_iter=2)
    with pytest.raises(TypeError, match="it moves parameters that have no gradient"):
        FreezeOut(optimizer, model, STEPS)
    assert len(optimizer.param_groups) == 1
    x, y = make_batch("conv", 0)

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        loss = F.cross_entropy(model(x), y)
        loss.backward()
        return loss

    optimizer.step(closure)
    model.blocks[0].conv.requires_grad_(False)
    before = snapshot(model)
    optimizer.step(closure)
    assert "blocks.0.conv.weight" in differing(before, snapshot(model))


# Rates


@pytest.mark.parametrize("scaled", [True, False])
@pytest.mark.parametrize("power", [1, 2, 3])
@pytest.mark.parametrize("t0", [0.5, 0.8, 1.0])
def test_rates_are_those_of_the_paper(t0: float, power: int, scaled: bool) -> None:
    model = make_net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    scheduler = FreezeOut(
        optimizer,
        model,
        1000,
        t0=t0,
        spacing=("linear", "squared", "cubic")[power - 1],
        scaled=scaled,
    )
    for n in (0, 1, 124, 125, 126, 511, 512, 513, 999, 1000):
        scheduler.step(n)
        expected, frozen = [], 0
        for i in range(4):
            t_i = (t0 + (1 - t0) * i / 3) ** power
            frozen += i < 3 and n / 1000 >= t_i - 1e-12 and n < 1000
            alpha = 0.1 / t_i if scaled else 0.1
            active = n / 1000 < t_i - 1e-12
            expected.append(0.5 * alpha * (1 + math.cos(math.pi * n / 1000 / t_i)) if active else 0)
        assert group_rates(optimizer) == pytest.approx(expected, rel=1e-9, abs=1e-15)
        if n < 1000:
            assert scheduler.frozen == frozen
        assert scheduler.get_last_lr() == group_rates(optimizer) == scheduler.get_lr()
    assert scheduler.frozen == (0 if t0 == 1.0 else 3)


def test_cubic_08_freezes_the_first_layer_at_512_of_1000() -> None:
    model = make_net()
    scheduler = FreezeOut(torch.optim.SGD(model.parameters(), lr=0.1), model, 1000)
    assert scheduler.freeze_steps[0] == 512
    assert [scheduler.depth_at(n) for n in (0, 511, 512, 999, 10**9)] == [0, 0, 1, 3, 3]
    assert scheduler.factors_at(511)[0] > 0
    assert scheduler.factors_at(512)[0] == 0


def test_t0_of_one_is_close_to_torchs_own_cosine() -> None:
    model, optimizer, scheduler = set_up(t0=1.0)
    twin = torch.optim.SGD([nn.Parameter(torch.ones(1))], lr=0.1)
    cosine = lr_scheduler.CosineAnnealingLR(twin, T_max=STEPS)
    for n in range(STEPS):
        assert group_rates(optimizer) == pytest.approx([cosine.get_last_lr()[0]] * 4, abs=1e-15)
        update(model, optimizer, n)
        twin.step()
        scheduler.step()
        cosine.step()
    assert group_rates(optimizer) == pytest.approx([0.0] * 4, abs=1e-15)
    assert scheduler.frozen == 0


def test_warm_up_multiplies_the_curve() -> None:
    _, optimizer, scheduler = set_up(t0=1.0, warmup_steps=4)
    for n in range(STEPS):
        scheduler.step(n)
        expected = 0.1 * min(1, (n + 1) / 4) * plain_cosine(n)
        assert group_rates(optimizer) == pytest.approx([expected] * 4, rel=1e-12)


def test_groups_keep_their_own_rate_and_settings() -> None:
    model = make_net()
    weights = [p for p in model.parameters() if p.ndim > 1]
    others = [p for p in model.parameters() if p.ndim == 1]
    optimizer = torch.optim.AdamW(
        [
            {"params": weights, "lr": 0.2, "weight_decay": 0.3, "tag": {"kind": "decay"}},
            {"params": others, "weight_decay": 0.0, "betas": (0.5, 0.6)},
        ],
        lr=0.1,
    )
    scheduler = FreezeOut(optimizer, model, STEPS, t0=0.5, spacing="linear")
    first, second = optimizer.param_groups[:4], optimizer.param_groups[4:]
    assert len(second) == 4
    for i in range(4):
        owned = {id(p) for _, p in scheduler.layers[i].parameters}
        assert {id(p) for g in (first[i], second[i]) for p in g["params"]} == owned
        assert first[i]["lr"] == 0.2 / scheduler.freeze_times[i]
        assert second[i]["lr"] == 0.1 / scheduler.freeze_times[i]
        assert (first[i]["weight_decay"], second[i]["weight_decay"]) == (0.3, 0.0)
        assert (first[i]["betas"], second[i]["betas"]) == ((0.9, 0.999), (0.5, 0.6))
        assert first[i]["tag"] == {"kind": "decay"}
        assert "tag" not in second[i]
    assert first[0]["tag"] is not first[1]["tag"]
    assert [p for g in first for p in g["params"]] == weights


def test_named_parameters_keep_their_names() -> None:
    model = make_net()
    optimizer = torch.optim.SGD(model.named_parameters(), lr=0.1)
    FreezeOut(optimizer, model, STEPS)
    named = dict(model.named_parameters())
    assert len(optimizer.param_groups) == 4
    for group in optimizer.param_groups:
        assert len(group["param_names"]) == len(group["params"])
        for name, p in zip(group["param_names"], group["params"], strict=True):
            assert named[name] is p
    assert optimizer.param_groups[1]["param_names"][0] == "blocks.1.conv.weight"
    assert optimizer.state_dict()["param_groups"][3]["param_names"] == ["head.weight", "head.bias"]


def test_parameters_outside_the_model_learn_with_the_last_layer() -> None:
    model = make_net()
    outside = nn.Parameter(torch.ones(2))
    optimizer = torch.optim.SGD([outside, *model.parameters()], lr=0.1)
    scheduler = FreezeOut(optimizer, model, STEPS, schedule=LINEAR)
    assert optimizer.param_groups[-1]["params"][0] is outside
    scheduler.step(STEPS - 1)
    assert scheduler.frozen == 3
    outside.grad = torch.ones(2)
    optimizer.step()
    assert outside.requires_grad
    assert (outside < 1).all()
    assert outside.grad is not None


def test_a_rate_that_is_a_tensor_is_filled_in_place() -> None:
    model = make_net()
    given = torch.tensor(0.1)
    optimizer = torch.optim.Adam(model.parameters(), lr=given)
    scheduler = FreezeOut(optimizer, model, STEPS, schedule=LINEAR)
    tensors = [group["lr"] for group in optimizer.param_groups]
    assert len({t.data_ptr() for t in (*tensors, given)}) == 5
    last = scheduler.get_last_lr()
    before = [t.item() for t in tensors]
    scheduler.step(5)
    assert all(g["lr"] is t for g, t in zip(optimizer.param_groups, tensors, strict=True))
    assert [t.item() for t in tensors] != before
    assert [float(lr) for lr in last] == before  # what was read does not change behind one's back
    assert [float(lr) for lr in scheduler.get_last_lr()] == [t.item() for t in tensors]
    assert given.item() == pytest.approx(0.1)
    assert [float(b) for b in scheduler.base_lrs] == pytest.approx([0.1] * 4)


# What counts as a step


def test_closures_count_once() -> None:
    model, optimizer, scheduler = set_up()
    x, y = make_batch("conv", 0)
    calls = []

    def closure() -> torch.Tensor:
        calls.append(1)
        optimizer.zero_grad()
        loss = F.cross_entropy(model(x), y)
        loss.backward()
        return loss

    for _ in range(5):
        loss = optimizer.step(closure)
        scheduler.step()
    assert loss is not None
    assert len(calls) == 5
    assert (scheduler.last_epoch, scheduler.frozen) == (5, 1)


@pytest.mark.parametrize("fused", [False, True])
def test_steps_that_a_gradient_scaler_skips_do_not_count(fused: bool) -> None:
    model = make_net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, fused=fused)
    scheduler = FreezeOut(optimizer, model, STEPS, schedule=LINEAR)
    scaler = torch.amp.GradScaler("cpu", init_scale=8.0)
    done = 0
    for n in range(8):
        x, y = make_batch("conv", n)
        optimizer.zero_grad()
        overflows = n in (2, 3)
        loss = F.cross_entropy(model(x), y) * (math.inf if overflows else 1.0)
        scaler.scale(loss).backward()
        before = snapshot(model.head)
        scaler.step(optimizer)
        scaler.update()
        scheduler.step()
        done += not overflows
        assert bool(differing(before, snapshot(model.head))) is not overflows
        assert scheduler.last_epoch == done
        assert scheduler.frozen == (done >= 4)
        assert scheduler.progress == done / STEPS
    assert done == 6


def test_accumulated_gradients_equal_large_batches_and_micro_batches_do_not_count() -> None:
    whole, plain, scheduler = set_up(momentum)
    parts, other, accumulating = set_up(momentum)
    for model in (whole, parts):
        for block in model.blocks:
            block.norm.eval()
            block.drop.p = 0.0
    for n in range(8):
        x, y = make_batch("conv", n)
        F.cross_entropy(whole(x), y).backward()
        plain.step()
        plain.zero_grad()
        scheduler.step()
        for i in range(2):
            half = slice(2 * i, 2 * i + 2)
            (F.cross_entropy(parts(x[half]), y[half]) / 2).backward()
            if i == 1:
                other.step()
                other.zero_grad()
            accumulating.step()
            assert accumulating.last_epoch == n + i
            assert accumulating.frozen == accumulating.depth_at(n + i)
        assert accumulating.get_last_lr() == scheduler.get_last_lr()
    assert accumulating.frozen == 2
    for p, q in zip(whole.parameters(), parts.parameters(), strict=True):
        torch.testing.assert_close(p, q)


def test_stepping_once_per_epoch_catches_up() -> None:
    model, optimizer, scheduler = set_up()
    told: list[FreezeEvent] = []
    scheduler.freezer.add_listener(told.append)
    for epoch in range(3):
        rates = group_rates(optimizer)
        for n in range(4):
            update(model, optimizer, n)
            assert group_rates(optimizer) == rates
        scheduler.step()
        assert scheduler.last_epoch == 4 * (epoch + 1)
    assert [(e.index, e.step) for e in told] == [(0, 4), (1, 8), (2, 12)]


def test_calling_it_again_changes_nothing() -> None:
    model, optimizer, scheduler = set_up()
    for n in range(5):
        update(model, optimizer, n)
        scheduler.step()
    told: list[FreezeEvent] = []
    scheduler.freezer.add_listener(told.append)
    before = (scheduler.state_dict(), group_rates(optimizer), flags(model), modes(model))
    for _ in range(3):
        scheduler.step()
    assert (scheduler.state_dict(), group_rates(optimizer), flags(model), modes(model)) == before
    assert told == []
    update(model, optimizer)
    scheduler.step()
    assert scheduler.last_epoch == 6


def test_jumps_forth_and_back() -> None:
    model, optimizer, scheduler = set_up()
    seen = {}
    told: list[tuple[bool, int, int | None]] = []
    scheduler.freezer.add_listener(lambda e: told.append((e.frozen, e.index, e.step)))
    for n in (0, 8, 3, 11, 4, 0, 8, 3, 11, 4):
        scheduler.step(n)
        now = (scheduler.frozen, group_rates(optimizer), flags(model), modes(model))
        assert seen.setdefault(n, now) == now
        assert scheduler.last_epoch == n
        assert scheduler.frozen == scheduler.depth_at(n)
    assert told[:4] == [(True, 0, 8), (True, 1, 8), (False, 1, 3), (False, 0, 3)]
    update(model, optimizer)
    scheduler.step()
    assert scheduler.last_epoch == 5


@pytest.mark.parametrize(
    ("epoch", "error"), [(-1, ValueError), (1.0, TypeError), (True, TypeError), ("3", TypeError)]
)
def test_a_jump_must_go_to_a_step(epoch: Any, error: type[Exception]) -> None:
    _, optimizer, scheduler = set_up()
    scheduler.step(5)
    before = group_rates(optimizer)
    with pytest.raises(error, match=r"whole number of at least 0, got"):
        scheduler.step(epoch)
    assert scheduler.last_epoch == 5
    assert group_rates(optimizer) == before


def test_going_on_beyond_the_end_warns_once_and_moves_nothing() -> None:
    model, optimizer, scheduler = set_up(momentum)
    scheduler.step(STEPS)
    before = dict(model.named_parameters())
    before = {name: p.detach().clone() for name, p in before.items()}
    update(model, optimizer)
    with pytest.warns(UserWarning, match=r"update 13 is beyond total_steps=12: every rate") as seen:
        scheduler.step()
    assert [w.filename for w in seen] == [__file__]
    update(model, optimizer)
    scheduler.step()
    assert all(torch.equal(p, before[name]) for name, p in model.named_parameters())
    assert scheduler.get_last_lr() == [0.0] * 4
    assert scheduler.frozen == 3


def test_without_rates_the_warning_does_not_speak_of_rates() -> None:
    _, optimizer, scheduler = set_up(anneal=None)
    with pytest.warns(UserWarning, match="no further layer will freeze") as seen:
        scheduler.step(STEPS + 1)
    assert "rate" not in str(seen[0].message)
    assert group_rates(optimizer) == [0.1]


def test_a_loop_that_never_updates_is_warned_once() -> None:
    model, optimizer, scheduler = set_up()
    update(model, optimizer)
    scheduler.step()
    for _ in range(99):
        scheduler.step()
    with pytest.warns(UserWarning, match=r"100 calls of scheduler\.step\(\) saw no update") as seen:
        scheduler.step()
    assert [w.filename for w in seen] == [__file__]
    for _ in range(150):
        scheduler.step()
    assert scheduler.last_epoch == 1


# Beside other schedulers


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
    second = FreezeOut(optimizer, model, STEPS, schedule=LINEAR)
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


# Saving and loading


def test_the_state_is_plain_and_loading_restores_everything() -> None:
    model, optimizer, scheduler = set_up()
    scheduler.step(8)
    state = scheduler.state_dict()
    assert state["last_epoch"] == 8
    kept = copy.deepcopy(state)
    other, its_optimizer, fresh = set_up()
    told: list[FreezeEvent] = []
    fresh.freezer.add_listener(told.append)
    fresh.load_state_dict(state)
    assert state == kept
    assert [(e.frozen, e.index, e.step) for e in told] == [(True, 0, 8), (True, 1, 8)]
    assert fresh.state_dict() == state
    assert fresh.last_epoch == 8
    assert group_rates(its_optimizer) == group_rates(optimizer) == fresh.get_last_lr()
    assert flags(other) == flags(model)
    assert modes(other) == modes(model)
    scheduler.step(2)
    fresh.load_state_dict(scheduler.state_dict())
    assert fresh.frozen == 0
    assert all(flags(other).values())


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
def test_the_order_of_loading_does_not_matter(order: tuple[int, ...]) -> None:
    whole = set_up(momentum)
    train(*whole[:2], [whole[2]])
    parts = set_up(momentum)
    train(*parts[:2], [parts[2]], stop=5)
    states = [copy.deepcopy(part.state_dict()) for part in parts]
    fresh = set_up(momentum)
    train(*fresh[:2], [fresh[2]], stop=9)  # further on than what is loaded
    for i in order:
        fresh[i].load_state_dict(states[i])
    assert fresh[2].frozen == 1
    train(*fresh[:2], [fresh[2]], start=5)
    assert differing(snapshot(fresh[0]), snapshot(whole[0])) == []


OTHERS: dict[str, tuple[dict[str, Any], str]] = {
    "t0": ({"t0": 0.5, "spacing": "linear"}, r"t0=0\.3 there but t0=0\.5 here"),
    "spacing": ({"t0": 0.3}, "spacing='linear' there but spacing='cubic' here"),
    "scaled": ({"t0": 0.3, "spacing": "linear", "scaled": False}, "scaled=True there"),
    "anneal": ({"t0": 0.3, "spacing": "linear", "anneal": "linear"}, "anneal='cosine' there"),
    "warm-up": ({"t0": 0.3, "spacing": "linear", "warmup_steps": 1}, "warmup_steps=0 there"),
    "layers": (
        {"schedule": LINEAR, "layers": ["blocks.0", ("blocks.1", "blocks.2"), "head"]},
        "4 layers there but 3 here",
    ),
}


@pytest.mark.parametrize("name", OTHERS)
def test_a_state_of_other_settings_is_refused_and_nothing_changes(name: str) -> None:
    _, _, scheduler = set_up()
    scheduler.step(8)
    options, message = OTHERS[name]
    model, optimizer, other = set_up(**options)
    _refuses(model, optimizer, other, scheduler.state_dict(), message)


def test_a_state_of_another_length_or_rate_is_refused_and_nothing_changes() -> None:
    model, optimizer, scheduler = set_up()
    state = scheduler.state_dict() | {"last_epoch": 8}
    _refuses(model, optimizer, scheduler, state | {"total_steps": 13}, "total_steps=13 there but")
    for lrs, message in {
        (0.1, 0.1, 0.2, 0.3): r"settings: base_lrs\[2\]=0\.2 there but base_lrs\[2\]=0\.1 here\.",
        (0.1, 0.1, 0.2): r"settings: 3 base_lrs there but 4 here\.",
    }.items():
        _refuses(model, optimizer, scheduler, state | {"base_lrs": [*lrs]}, message)
    _refuses(
        model, optimizer, scheduler, state | {"base_lrs": None}, "no base_lrs there but 4 here"
    )
    renamed = state | {"layers": ["blocks.0", "blocks.one", "blocks.2", "head"]}
    message = r"settings: layers\[1\]='blocks.one' there but layers\[1\]='blocks.1' here\."
    _refuses(model, optimizer, scheduler, renamed, message)
    scheduler.load_state_dict(state)
    assert scheduler.frozen == 2


def test_a_state_of_another_kind_of_scheduler_is_refused_and_nothing_changes() -> None:
    model, optimizer, scheduler = set_up()
    cosine = lr_scheduler.CosineAnnealingLR(torch.optim.SGD(model.parameters(), lr=0.1), T_max=3)
    _refuses(model, optimizer, scheduler, cosine.state_dict(), "not that of a FreezeOut scheduler")
    _refuses(model, optimizer, scheduler, {}, "has no base_lrs, last_epoch, layers")


def _refuses(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    scheduler: FreezeOut,
    state: dict[str, Any],
    message: str,
) -> None:
    def now() -> Any:
        return scheduler.state_dict(), group_rates(optimizer), flags(model), modes(model)

    before = now()
    with pytest.raises(CheckpointError, match=message):
        scheduler.load_state_dict(state)
    assert now() == before
    assert scheduler.last_epoch == 0


# Refusals at construction


def test_wrappers_are_looked_through() -> None:
    model = make_net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    scheduler = FreezeOut(optimizer, torch.compile(model, backend="eager"), STEPS)
    assert scheduler.layers.model is model
    FreezeOut(optimizer, nn.DataParallel(model), STEPS, layers=split_layers(model))


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"total_steps": 90.0}, TypeError, "total_steps must be a whole number"),
        ({"total_steps": 0}, ValueError, "total_steps must be at least 1, got 0"),
        ({"t0": 1.5}, ValueError, r"t0 must lie in \(0, 1\], got 1\.5"),
        ({"spacing": "quartic"}, ValueError, "spacing must be one of"),
        ({"anneal": "cos"}, ValueError, "anneal must be 'cosine'"),
        ({"times": (0.5, 1.0)}, ValueError, "2 freeze times, but the model was cut into 4"),
        ({"warmup_steps": 8}, ValueError, "warmup_steps must not exceed 7"),
        ({"schedule": LINEAR, "t0": 0.5}, TypeError, "got t0 beside it"),
        ({"schedule": LINEAR, "anneal": None}, TypeError, "got anneal beside it"),
        ({"schedule": {"t0": 0.5}}, TypeError, "must be a freezeout.Schedule"),
        ({"optimizer": "SGD"}, TypeError, "optimizer must be a torch.optim.Optimizer, got str"),
        ({"model": "net"}, TypeError, "model must be a torch.nn.Module, got str"),
        ({"layers": split_layers(make_net())}, ValueError, "cut from another ConvNet"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_refusals_leave_everything_as_it_was(
    options: dict[str, Any], error: type[Exception], message: str
) -> None:
    model = make_net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    group = dict(optimizer.param_groups[0])
    earlier = Freezer(split_layers(model))
    earlier.set_depth(1)
    before = flags(model)
    with pytest.raises(error, match=message):
        FreezeOut(**{"optimizer": optimizer, "model": model, "total_steps": STEPS} | options)
    assert optimizer.param_groups == [group]
    assert flags(model) == before
    assert "step" not in vars(optimizer)  # nor wrapped


def test_an_optimizer_of_another_model_is_refused() -> None:
    optimizer = torch.optim.SGD(make_net().parameters(), lr=0.1)
    with pytest.raises(ValueError, match="holds no parameter of the ConvNet given as model"):
        FreezeOut(optimizer, make_net(), STEPS)
    assert len(optimizer.param_groups) == 1


# Tied weights


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.embed = nn.Embedding(5, 4)
        self.middle = nn.Linear(4, 4)
        self.head = nn.Linear(4, 5, bias=False)
        self.head.weight = self.embed.weight

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(torch.tanh(self.middle(self.embed(x))))


def test_tied_embeddings_are_announced_at_construction() -> None:
    model = Tied()
    names = ["embed", "middle", "head"]
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    tokens = torch.tensor([[1, 2]])
    with pytest.warns(FrozenPrefixWarning, match="tied weight 'embed.weight' = 'head.weight'") as w:
        scheduler = FreezeOut(optimizer, model, STEPS, schedule=LINEAR, example=tokens)
    assert [warning.filename for warning in w] == [__file__]
    assert scheduler.layers.names[-1] == names[-1]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FrozenPrefixWarning)  # the check of the boundary repeats it
        for _ in range(STEPS):
            model(tokens).square().sum().backward()
            optimizer.step()
            optimizer.zero_grad()
            scheduler.step()
    assert scheduler.frozen == len(scheduler.layers) - 1
    assert model.embed.weight.requires_grad  # learns with its last user
    FreezeOut(torch.optim.SGD(model.parameters(), lr=0.1), model, STEPS, t0=1.0)  # nothing to say


def test_strict_is_passed_on_and_layers_may_be_named() -> None:
    model = make_net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    names = ["blocks.1", "blocks.0", "blocks.2", "head"]
    scheduler = FreezeOut(optimizer, model, STEPS, schedule=LINEAR, layers=names, strict=True)
    assert scheduler.layers.names == tuple(names)
    scheduler.step(4)
    with pytest.raises(PrefixError, match=r"'blocks\.1'\) is frozen"):
        update(model, optimizer)


# Listeners and words


def test_listeners_hear_of_every_freeze_with_its_step() -> None:
    model, optimizer, scheduler = set_up()
    told: list[FreezeEvent] = []
    remove = scheduler.freezer.add_listener(told.append)
    train(model, optimizer, [scheduler], stop=8)
    assert told == [
        FreezeEvent(True, 0, "blocks.0", 4),
        FreezeEvent(True, 1, "blocks.1", 7),
    ]
    remove()
    train(model, optimizer, [scheduler], start=8)
    assert len(told) == 2
    assert scheduler.frozen == 3


def test_printing_shows_the_plan() -> None:
    scheduler = set_up()[2]
    lines = str(scheduler).splitlines()
    assert lines[0].split() == ["layer", "name", "parameters", "freezes", "at"]
    assert [line.split()[-1] for line in lines[1:]] == ["0.3000", "0.5333", "0.7667", "never"]
    assert scheduler.table() == str(scheduler)


def test_a_group_added_afterwards_is_refused() -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    scheduler = FreezeOut(optimizer, model, 10)
    optimizer.add_param_group({"params": [nn.Parameter(torch.zeros(2))]})
    with pytest.raises(FreezeOutError, match="has 3 parameter groups, but FreezeOut split it into"):
        scheduler.step(1)


def test_it_cannot_be_copied_or_pickled_and_says_what_to_do() -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2))
    scheduler = FreezeOut(torch.optim.SGD(model.parameters(), lr=0.1), model, 10)
    for attempt in (copy.deepcopy, pickle.dumps):
        with pytest.raises(TypeError, match=r"cannot be copied or pickled.*Save state_dict\(\)"):
            attempt(scheduler)


@pytest.mark.parametrize(
    "damage",
    [{"last_epoch": -3}, {"last_epoch": "7"}, {"last_epoch": True}, {"schedule": None}, None],
)
def test_a_damaged_state_is_refused_and_nothing_changes(damage: dict[str, Any] | None) -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2))
    scheduler = FreezeOut(torch.optim.SGD(model.parameters(), lr=0.1), model, 10)
    scheduler.step(8)
    before = scheduler.state_dict(), scheduler.get_last_lr(), scheduler.frozen
    state: Any = 3 if damage is None else {**scheduler.state_dict(), **damage}
    with pytest.raises(CheckpointError):
        scheduler.load_state_dict(state)
    assert (scheduler.state_dict(), scheduler.get_last_lr(), scheduler.frozen) == before


def test_numpy_numbers_are_numbers() -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    scheduler = FreezeOut(
        optimizer, model, np.int64(10), t0=np.float32(0.5), warmup_steps=np.int8(1)
    )
    state = scheduler.state_dict()
    assert type(state["total_steps"]) is int
    assert type(state["schedule"]["t0"]) is float
    assert type(state["schedule"]["warmup_steps"]) is int
    with pytest.raises(TypeError, match=r"times must be a sequence of numbers"):
        FreezeOut(optimizer, model, 10, times=0.5)  # type: ignore[arg-type]
