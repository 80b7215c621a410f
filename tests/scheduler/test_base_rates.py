"""Rates that somebody changes between two steps: the base rate follows, for good."""

from __future__ import annotations

import copy
import io
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.optim import lr_scheduler

from freezeout import CheckpointError, FreezeOut
from freezeout.reference import RateOnly
from tests.contracts import STEPS, differing, make_net, snapshot, train
from tests.scheduler import steps
from tests.scheduler.steps import LINEAR, go_on, group_rates, momentum, set_up, update

CHANGES: dict[str, Callable[[dict[str, Any]], None]] = {
    "multiplied": lambda g: g.update(lr=g["lr"] * 0.5),
    "the base rate": lambda g: g.update(initial_lr=0.05),
    "both": lambda g: g.update(lr=0.03, initial_lr=0.05),
}


def _tensor_rates(parameters: Any, lr: float = 0.1) -> torch.optim.Adam:
    return torch.optim.Adam(parameters, lr=torch.tensor(lr))


@pytest.mark.parametrize("kind", [FreezeOut, RateOnly])
@pytest.mark.parametrize("name", CHANGES)
def test_a_change_is_followed_for_good(name: str, kind: Any) -> None:
    model = make_net()
    optimizer = momentum(model.parameters())
    scheduler = kind(optimizer, model, STEPS, schedule=LINEAR)
    train(model, optimizer, [scheduler], stop=2)
    for group in optimizer.param_groups[2:]:
        CHANGES[name](group)
    for n in range(2, STEPS):
        train(model, optimizer, [scheduler], start=n, stop=n + 1)
        factors = scheduler.factors_at(n + 1)
        assert group_rates(optimizer)[:2] == [0.1 * f for f in factors[:2]]
        assert group_rates(optimizer)[2:] == pytest.approx([0.05 * f for f in factors[2:]])
        assert scheduler.get_last_lr() == group_rates(optimizer)
    bases = [float(group["initial_lr"]) for group in optimizer.param_groups]
    assert bases == scheduler.base_lrs == [0.1, 0.1, pytest.approx(0.05), pytest.approx(0.05)]


def test_a_change_is_followed_like_the_same_change_in_a_plain_loop() -> None:
    """t0=1 freezes nothing: the plain loop has a cosine, whose base rate is cut."""

    def cut(n: int) -> None:
        if n == 5:
            for group in optimizer.param_groups:
                group["lr"] *= 0.5

    model, optimizer, scheduler = set_up(momentum, t0=1.0)
    train(model, optimizer, [scheduler], after_step=cut)
    twin = make_net()
    plain = momentum(twin.parameters())
    factor = [1.0]
    cosine = lr_scheduler.LambdaLR(plain, lambda n: factor[0] * scheduler.factors_at(n)[0])
    train(twin, plain, [cosine], stop=5)
    factor[0] = 0.5
    plain.param_groups[0]["lr"] *= 0.5
    train(twin, plain, [cosine], start=5)
    for p, q in zip(model.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(p, q)


def test_a_plateau_beside_it_is_followed() -> None:
    for before in (True, False):
        model = make_net()
        optimizer = momentum(model.parameters())
        options: Any = {"patience": 0, "factor": 0.1, "min_lr": [1e-3]}
        if before:
            plateau = lr_scheduler.ReduceLROnPlateau(optimizer, **options)
            assert plateau.min_lrs == [1e-3]
        scheduler = FreezeOut(optimizer, model, STEPS, schedule=LINEAR)
        if not before:
            plateau = lr_scheduler.ReduceLROnPlateau(optimizer, **options | {"min_lr": 1e-3})
        assert plateau.min_lrs == [1e-3] * 4
        for n in range(STEPS):
            update(model, optimizer, n)
            scheduler.step()
            plateau.step(1.0 if n == 4 else -float(n))
            done = 0.1 if n >= 4 else 1.0
            assert group_rates(optimizer)[3] == pytest.approx(
                max(0.1 * done * scheduler.factors_at(n + 1)[3], 0.0)
            )
        assert scheduler.frozen == 3
        assert scheduler.base_lrs == pytest.approx([0.01] * 4)  # also of the one that was frozen


def test_a_tensor_is_followed_and_stays_the_same_tensor() -> None:
    model, optimizer, scheduler = set_up(_tensor_rates)
    tensors = [group["lr"] for group in optimizer.param_groups]
    train(model, optimizer, [scheduler], stop=2)
    optimizer.param_groups[2]["lr"].mul_(0.5)
    optimizer.param_groups[3]["lr"] = 0.5 * float(tensors[3])  # a number in its place
    train(model, optimizer, [scheduler], start=2, stop=4)
    factors = scheduler.factors_at(4)
    expected = [0.1 * factors[0], 0.1 * factors[1], 0.05 * factors[2], 0.05 * factors[3]]
    assert group_rates(optimizer) == pytest.approx(expected, rel=1e-5)
    assert all(g["lr"] is t for g, t in zip(optimizer.param_groups, tensors, strict=True))
    assert isinstance(scheduler.base_lrs[2], torch.Tensor)
    kept = group_rates(optimizer)
    train(model, optimizer, [scheduler], start=4, stop=5)
    assert group_rates(optimizer) != kept
    assert [float(b) for b in scheduler.base_lrs] == pytest.approx([0.1, 0.1, 0.05, 0.05])


@pytest.mark.parametrize("make", [momentum, _tensor_rates])
@pytest.mark.parametrize("kind", [FreezeOut, RateOnly])
def test_it_is_saved_and_loaded(kind: Any, make: Any) -> None:
    def build(seed: int = 0) -> list[Any]:
        model = make_net(seed=seed)
        optimizer = make(model.parameters(), lr=0.1)
        return [model, optimizer, kind(optimizer, model, STEPS, schedule=LINEAR)]

    def cut(n: int) -> None:
        if n == 5:
            for group in whole[1].param_groups:
                group["lr"] = group["lr"] * 0.5

    whole = build()
    train(*whole[:2], [whole[2]], stop=5, after_step=cut)  # and saved before the next step
    saved = io.BytesIO()
    torch.save([part.state_dict() for part in whole], saved)
    train(*whole[:2], [whole[2]], start=5)
    for order in ((0, 1, 2), (2, 1, 0), (1, 2, 0)):
        fresh = build(seed=1)
        saved.seek(0)
        states = torch.load(saved, weights_only=True)
        for i in order:
            fresh[i].load_state_dict(states[i])
        assert [float(b) for b in fresh[2].base_lrs] == [float(b) for b in whole[2].base_lrs]
        train(*fresh[:2], [fresh[2]], start=5)
        assert differing(snapshot(fresh[0]), snapshot(whole[0])) == []
        assert fresh[2].state_dict() == whole[2].state_dict()
    with pytest.raises(CheckpointError, match="base_lrs_now"):
        fresh[2].load_state_dict(states[2] | {"base_lrs_now": [float("nan")] * 4})
    fresh[2].load_state_dict({k: v for k, v in states[2].items() if k != "base_lrs_now"})
    assert [float(b) for b in fresh[2].base_lrs] == pytest.approx([0.1] * 4)


def test_loading_the_optimizer_alone_is_no_change_by_hand() -> None:
    model, optimizer, scheduler = set_up(momentum)
    early = copy.deepcopy(optimizer.state_dict())
    train(model, optimizer, [scheduler], stop=5)
    optimizer.load_state_dict(early)
    assert group_rates(optimizer) != scheduler.get_last_lr()
    train(model, optimizer, [scheduler], start=5, stop=6)
    assert group_rates(optimizer) == [0.1 * f for f in scheduler.factors_at(6)]
    assert scheduler.base_lrs == [0.1] * 4
    optimizer.param_groups[3]["lr"] *= 0.5  # this is one
    train(model, optimizer, [scheduler], start=6, stop=7)
    assert scheduler.base_lrs == [0.1, 0.1, 0.1, pytest.approx(0.05)]


def test_a_rate_of_a_frozen_layer_stays_zero_and_is_told_once() -> None:
    model, optimizer, scheduler = set_up(momentum)
    train(model, optimizer, [scheduler], stop=5)
    assert scheduler.frozen == 1

    def set_it() -> None:
        assert group_rates(optimizer)[0] == 0.0
        optimizer.param_groups[0]["lr"] = 0.1

    with pytest.warns(UserWarning, match="rate of parameter group 0 was set from outside") as seen:
        go_on(model, optimizer, scheduler, start=5, stop=7, before=set_it)
    assert len(seen) == 1
    assert scheduler.base_lrs == [0.1] * 4
    for group in optimizer.param_groups:
        group["lr"] = 0.02  # all alike: a base rate, and what is done stays at zero
    with pytest.warns(UserWarning, match="takes what was set as the base rate"):
        go_on(model, optimizer, scheduler, start=7, stop=8)
    assert group_rates(optimizer) == [0.02 * f for f in scheduler.factors_at(8)]
    assert group_rates(optimizer)[:2] == [0.0, 0.0]


@pytest.mark.parametrize("value", ["0.1", float("nan"), -0.1, torch.ones(2), None])
def test_what_is_no_rate_is_refused(value: Any) -> None:
    model, optimizer, scheduler = set_up(momentum)
    update(model, optimizer)
    optimizer.param_groups[2]["lr"] = value
    with pytest.raises((TypeError, ValueError), match=r'param_groups\[2\]\["lr"\] must '):
        scheduler.step()


def test_rates_set_at_every_update_are_a_schedule_of_somebody_else() -> None:
    """A loop with a schedule of its own: it wins, and the base rates are not lost over it."""
    model, optimizer, scheduler = set_up(momentum)
    rates = iter(range(1, 7))

    def set_all() -> None:
        rate = 0.01 * next(rates)
        for group in optimizer.param_groups:
            group["lr"] = rate

    with pytest.warns(UserWarning, match="set from outside") as seen:
        go_on(model, optimizer, scheduler, stop=6, before=set_all)
    assert [w.filename for w in seen] == [steps.__file__] * 2  # where step() is called
    assert "takes what was set as the base rate" in str(seen[0].message)
    assert "set from outside at 3 updates in a row" in str(seen[1].message)
    assert "anneal=None" in str(seen[1].message)
    assert scheduler.base_lrs == [0.1] * 4
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        update(model, optimizer)
        scheduler.step()
        assert group_rates(optimizer) == [0.1 * f for f in scheduler.factors_at(7)]
        optimizer.param_groups[3]["lr"] *= 0.5  # once again a single change
        update(model, optimizer)
        update(model, optimizer)
        scheduler.step()
    assert scheduler.base_lrs == [0.1, 0.1, 0.1, pytest.approx(0.05)]


def test_changes_once_an_epoch_are_followed_each() -> None:
    model, optimizer, scheduler = set_up(momentum, t0=1.0)
    for epoch in range(4):
        train(model, optimizer, [scheduler], start=3 * epoch, stop=3 * epoch + 3)
        for group in optimizer.param_groups:
            group["lr"] *= 0.5
    assert scheduler.state_dict()["base_lrs_now"] == pytest.approx([0.0125] * 4)


def test_calls_between_change_and_step_do_not_count_it_twice() -> None:
    model, optimizer, scheduler = set_up(momentum)
    train(model, optimizer, [scheduler], stop=2)
    optimizer.param_groups[3]["lr"] *= 0.5
    for _ in range(5):
        assert scheduler.state_dict()["base_lrs_now"][3] == pytest.approx(0.05)
    scheduler.step()
    assert scheduler.base_lrs[3] == pytest.approx(0.05)
    assert group_rates(optimizer)[3] == pytest.approx(0.05 * scheduler.factors_at(2)[3])


EVERY = 3
"""Updates in an epoch."""


def _by_epoch(
    optimizer: Any, set_rate: Callable[[dict[str, Any], float], None]
) -> Callable[[int], None]:
    """The loop of the ImageNet example: before each epoch every group is given a rate."""

    def adjust(n: int) -> None:
        if n % EVERY == 0:
            for group in optimizer.param_groups:
                set_rate(group, 0.5 ** (n // EVERY))

    return adjust


def _run(model: Any, optimizer: Any, scheduler: Any, adjust: Callable[[int], None]) -> None:
    for n in range(STEPS):
        adjust(n)
        update(model, optimizer, n)
        scheduler.step()
        decay = 0.5 ** (n // EVERY)
        expected = [g["asked"] * decay for g in optimizer.param_groups]
        assert [float(base) for base in scheduler.base_lrs] == pytest.approx(expected)
        factors = scheduler._group_factors()
        want = [base * f for base, f in zip(expected, factors, strict=True)]
        assert group_rates(optimizer) == pytest.approx(want)


@pytest.mark.parametrize("make", [momentum, _tensor_rates])
@pytest.mark.parametrize("kind", [FreezeOut, RateOnly])
@pytest.mark.parametrize("settings", [{}, {"scaled": False}, {"t0": 0.8, "warmup_steps": 4}])
def test_rates_given_to_all_layers_alike_are_base_rates(
    settings: Any, kind: Any, make: Any
) -> None:
    """Also where a layer is done, one alone is left, or a rate happens to be the one it had."""
    model = make_net()
    optimizer = make(model.parameters(), lr=0.1)
    optimizer.param_groups[0]["asked"] = 0.1
    scheduler = kind(optimizer, model, STEPS, **{"t0": 0.3} | settings)
    with pytest.warns(UserWarning, match="takes what was set as the base rate") as seen:
        _run(model, optimizer, scheduler, _by_epoch(optimizer, lambda g, d: g.update(lr=0.1 * d)))
    assert len(seen) == 1


@pytest.mark.parametrize("one_rate", [True, False])
def test_groups_of_different_base_rates_are_given_base_rates(one_rate: bool) -> None:
    """All one number, or each its own share of it (``lr_scale``)."""
    model = make_net()
    optimizer = momentum(
        [
            {"params": model.blocks.parameters(), "lr": 0.01, "asked": 0.05 if one_rate else 0.01},
            {"params": model.head.parameters(), "lr": 0.1, "asked": 0.05 if one_rate else 0.1},
        ]
    )
    scheduler = FreezeOut(optimizer, model, STEPS, schedule=LINEAR)
    with pytest.warns(UserWarning, match="takes what was set as the base rate") as seen:
        _run(
            model,
            optimizer,
            scheduler,
            _by_epoch(optimizer, lambda g, d: g.update(lr=g["asked"] * d)),
        )
    assert len(seen) == 1


def test_zero_for_all_pauses_and_the_rate_that_comes_back_is_a_base_rate() -> None:
    model, optimizer, scheduler = set_up(momentum)
    train(model, optimizer, [scheduler], stop=2)
    for group in optimizer.param_groups:
        group["lr"] = 0.0
    train(model, optimizer, [scheduler], start=2, stop=5)
    assert group_rates(optimizer) == scheduler.base_lrs == [0.0] * 4
    for group in optimizer.param_groups:
        group["lr"] = 0.1
    with pytest.warns(UserWarning, match="takes what was set as the base rate"):
        go_on(model, optimizer, scheduler, start=5, stop=6)
    assert scheduler.base_lrs == [0.1] * 4
    assert group_rates(optimizer) == [0.1 * f for f in scheduler.factors_at(6)]
