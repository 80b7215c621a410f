"""What counts as a step."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from freezeout import FreezeEvent, FreezeOut
from tests.contracts import STEPS, differing, flags, make_batch, make_net, modes, snapshot
from tests.scheduler.steps import LINEAR, group_rates, momentum, set_up, update


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
    with pytest.raises(error, match=r"epoch must be (a whole number of )?at least 0, got"):
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
