"""`FreezeOut` in a ``SequentialLR``: it begins at its milestone, and ends at the next."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.optim import lr_scheduler

from freezeout import CheckpointError, FreezeOut
from freezeout.reference import RateOnly
from tests.contracts import STEPS, differing, flags, make_net, snapshot, train
from tests.scheduler.steps import LINEAR, group_rates, momentum

WARM_UPS: dict[str, Callable[[torch.optim.Optimizer], Any]] = {
    "linear": lambda o: lr_scheduler.LinearLR(o, 0.1, 1.0, 4),
    "lambda": lambda o: lr_scheduler.LambdaLR(o, lambda n: (n + 1) / 5),
    "constant": lambda o: lr_scheduler.ConstantLR(o, 0.5, 10),
    "restarts": lambda o: lr_scheduler.CosineAnnealingWarmRestarts(o, 2),
}
KINDS: list[Any] = [FreezeOut, RateOnly]
WARM = 4


def _build(name: str, kind: Any = FreezeOut, *, made_last: bool = False, seed: int = 0) -> Any:
    model = make_net(seed=seed)
    optimizer = momentum(model.parameters())
    if made_last:
        scheduler = kind(optimizer, model, STEPS, schedule=LINEAR)
        warm = WARM_UPS[name](optimizer)
    else:
        warm = WARM_UPS[name](optimizer)
        scheduler = kind(optimizer, model, STEPS, schedule=LINEAR)
    sequence = lr_scheduler.SequentialLR(optimizer, [warm, scheduler], [WARM])
    return model, optimizer, scheduler, sequence


@pytest.mark.parametrize("made_last", [False, True], ids=["warm-up first", "FreezeOut first"])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", WARM_UPS)
def test_a_warm_up_before_it_does_not_count(name: str, kind: Any, made_last: bool) -> None:
    model, optimizer, scheduler, sequence = _build(name, kind, made_last=made_last)
    alone = momentum(make_net().parameters())
    plain = WARM_UPS[name](alone)
    for n in range(WARM):
        assert group_rates(optimizer) == [pytest.approx(alone.param_groups[0]["lr"])] * 4
        assert sequence.get_last_lr() == group_rates(optimizer)
        assert (scheduler.progress, scheduler.frozen) == (0.0, 0)
        train(model, optimizer, [sequence], start=n, stop=n + 1)
        alone.step()
        plain.step()
    for n in range(STEPS):
        assert scheduler.progress == n / STEPS
        assert group_rates(optimizer) == [0.1 * f for f in scheduler.factors_at(n)]
        assert scheduler.frozen == scheduler.depth_at(n)
        train(model, optimizer, [sequence], start=n, stop=n + 1)
    assert scheduler.frozen == scheduler.depth_at(STEPS) == (3 if kind is FreezeOut else 0)


@pytest.mark.parametrize("order", [(0, 1, 2), (1, 2, 0), (2, 1, 0), (2, 0, 1)])
@pytest.mark.parametrize("cut", [2, WARM, WARM + 6])
@pytest.mark.parametrize("name", ["linear", "lambda"])
def test_a_run_resumes_on_both_sides_of_the_milestone(
    name: str, cut: int, order: tuple[int, ...]
) -> None:
    def parts(built: Any) -> list[Any]:
        return [built[0], built[1], built[3]]

    whole = _build(name)
    train(*whole[:2], [whole[3]], stop=WARM + STEPS)
    first = _build(name)
    train(*first[:2], [first[3]], stop=cut)
    states = [copy.deepcopy(part.state_dict()) for part in parts(first)]
    fresh = _build(name, seed=1)
    for i in order:
        parts(fresh)[i].load_state_dict(states[i])
    assert fresh[2].frozen == first[2].frozen
    assert group_rates(fresh[1]) == group_rates(first[1])
    train(*fresh[:2], [fresh[3]], start=cut, stop=WARM + STEPS)
    assert differing(snapshot(fresh[0]), snapshot(whole[0])) == []
    assert fresh[2].frozen == 3


def _followed(seed: int = 0) -> Any:
    """8 of the 12 updates by `FreezeOut`, then a cosine for what still learns."""
    model = make_net(seed=seed)
    optimizer = momentum(model.parameters())
    scheduler = FreezeOut(optimizer, model, STEPS, schedule=LINEAR)
    after = lr_scheduler.CosineAnnealingLR(optimizer, 6)
    sequence = lr_scheduler.SequentialLR(optimizer, [scheduler, after], [8])
    return model, optimizer, scheduler, sequence


def test_another_may_follow_it_and_nothing_freezes_any_more() -> None:
    model, optimizer, scheduler, sequence = _followed()
    assert group_rates(optimizer) == [0.1 * f for f in scheduler.factors_at(0)]
    train(model, optimizer, [sequence], stop=8)
    assert scheduler.frozen == scheduler.depth_at(7) == 2
    assert group_rates(optimizer) == [pytest.approx(0.1)] * 4
    held = snapshot(model.blocks[0])
    learning = snapshot(model.head)
    train(model, optimizer, [sequence], start=8, stop=13)
    assert scheduler.frozen == 2
    assert differing(held, snapshot(model.blocks[0])) == []
    assert differing(learning, snapshot(model.head)) == list(learning)
    assert flags(model)["blocks.2.conv.weight"]


@pytest.mark.parametrize("order", [(0, 1, 2), (1, 2, 0), (2, 1, 0)])
def test_a_run_resumes_after_its_turn(order: tuple[int, ...]) -> None:
    whole = _followed()
    train(*whole[:2], [whole[3]], stop=13)
    first = _followed()
    train(*first[:2], [first[3]], stop=11)
    states = [copy.deepcopy(first[i].state_dict()) for i in (0, 1, 3)]
    fresh = _followed(seed=1)
    for i in order:
        (fresh[0], fresh[1], fresh[3])[i].load_state_dict(states[i])
    assert fresh[2].frozen == 2  # not what 11 updates of it would have frozen
    assert group_rates(fresh[1]) == group_rates(first[1])
    train(*fresh[:2], [fresh[3]], start=11, stop=13)
    assert differing(snapshot(fresh[0]), snapshot(whole[0])) == []


def test_between_two_others() -> None:
    model = make_net()
    optimizer = momentum(model.parameters())
    warm = lr_scheduler.LinearLR(optimizer, 0.1, 1.0, 3)
    scheduler = FreezeOut(optimizer, model, 6, schedule=LINEAR)
    after = lr_scheduler.ConstantLR(optimizer, 0.5, 100)
    sequence = lr_scheduler.SequentialLR(optimizer, [warm, scheduler, after], [3, 8])
    counts = []
    train(
        model,
        optimizer,
        [sequence],
        stop=12,
        after_step=lambda n: counts.append((n, scheduler.last_epoch, scheduler.frozen)),
    )
    assert counts[:4] == [(1, -1, 0), (2, -1, 0), (3, 0, 0), (4, 1, 0)]
    assert counts[6:] == [(7, 4, 2), *((n, 4, 2) for n in range(8, 13))]


@pytest.mark.filterwarnings("ignore:Detected call of:UserWarning")  # torch steps the inner one
def test_a_sequence_in_a_sequence() -> None:
    model = make_net()
    optimizer = momentum(model.parameters())
    warm = lr_scheduler.LinearLR(optimizer, 0.1, 1.0, 3)
    still = lr_scheduler.ConstantLR(optimizer, 0.5, 100)
    scheduler = FreezeOut(optimizer, model, STEPS, schedule=LINEAR)
    inner = lr_scheduler.SequentialLR(optimizer, [warm, still], [2])
    sequence = lr_scheduler.SequentialLR(optimizer, [inner, scheduler], [5])
    train(model, optimizer, [sequence], stop=5)
    assert scheduler.progress == 0.0
    train(model, optimizer, [sequence], stop=8)
    assert (scheduler.last_epoch, scheduler.frozen) == (8, 2)
    assert group_rates(optimizer) == [0.1 * f for f in scheduler.factors_at(8)]


@pytest.mark.filterwarnings("ignore:Detected call of:UserWarning")
def test_first_in_a_sequence_in_a_sequence() -> None:
    model = make_net()
    optimizer = momentum(model.parameters())
    scheduler = FreezeOut(optimizer, model, STEPS, schedule=LINEAR)
    still = lr_scheduler.ConstantLR(optimizer, 0.5, 100)
    other = lr_scheduler.ConstantLR(optimizer, 0.5, 100)
    inner = lr_scheduler.SequentialLR(optimizer, [scheduler, still], [7])
    sequence = lr_scheduler.SequentialLR(optimizer, [inner, other], [9])
    train(model, optimizer, [sequence], stop=5)
    assert (scheduler.last_epoch, scheduler.frozen) == (5, 1)
    assert scheduler.base_lrs == [0.1] * 4
    assert group_rates(optimizer) == [0.1 * f for f in scheduler.factors_at(5)]
    train(model, optimizer, [sequence], start=5, stop=STEPS)
    assert scheduler.frozen == 1
    assert scheduler.state_dict()["last_epoch"] == scheduler.last_epoch == 5


def test_a_change_by_hand_in_the_warm_up_is_not_one_of_its_own() -> None:
    model, optimizer, scheduler, sequence = _build("linear")
    train(model, optimizer, [sequence], stop=2)
    for group in optimizer.param_groups:
        group["lr"] *= 0.5
    train(model, optimizer, [sequence], start=2, stop=5)
    assert group_rates(optimizer) == [0.1 * f for f in scheduler.factors_at(1)]
    for group in optimizer.param_groups:
        group["lr"] *= 0.5
    train(model, optimizer, [sequence], start=5, stop=6)
    assert group_rates(optimizer) == pytest.approx([0.05 * f for f in scheduler.factors_at(2)])


def test_a_rate_that_is_one_tensor_with_its_base_rate_is_taken_apart() -> None:
    """As torch 2.6 leaves them at the construction of a ``SequentialLR``."""
    model = make_net()
    optimizer = torch.optim.Adam(model.parameters(), lr=torch.tensor(0.1))
    scheduler = FreezeOut(optimizer, model, STEPS, schedule=LINEAR)
    for group in optimizer.param_groups:
        group["lr"] = group["initial_lr"]
    scheduler._initial_step()
    train(model, optimizer, [scheduler], stop=2)
    assert [float(group["initial_lr"]) for group in optimizer.param_groups] == [
        pytest.approx(0.1)
    ] * 4
    expected = [0.1 * f for f in scheduler.factors_at(2)]
    assert group_rates(optimizer) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("damage", [{"turn": 3}, {"deepest": 9}, {"base_lrs_now": [0.1]}])
def test_a_damaged_state_is_refused(damage: dict[str, Any]) -> None:
    scheduler = _build("linear")[2]
    before = scheduler.state_dict()
    with pytest.raises(CheckpointError, match=f"damaged: {next(iter(damage))}="):
        scheduler.load_state_dict(before | damage)
    assert scheduler.state_dict() == before
