"""The rates that a run starts from: none at all, left by an earlier run, or set by hand since."""

from __future__ import annotations

import gc
import warnings
from typing import Any

import pytest
import torch
from torch import nn
from torch.optim import lr_scheduler

from freezeout import FreezeOut
from freezeout.reference import RateOnly
from tests.contracts import STEPS, differing, make_net, snapshot, train
from tests.scheduler.steps import LINEAR, group_rates, momentum, set_up

pytestmark = pytest.mark.filterwarnings(
    "ignore:parameters that an earlier freeze left frozen learn again"  # what a second phase means
)


class Relative(torch.optim.SGD):
    """Chooses its rates itself, as Adafactor with ``relative_step=True`` does."""

    def __init__(self, parameters: Any, *, key: bool = True) -> None:
        super().__init__(parameters, lr=0.1)
        for group in self.param_groups:
            group["lr"] = None
            if not key:
                del group["lr"]

    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is not None:
                    p.data.add_(p.grad, alpha=-0.05)


@pytest.mark.parametrize("key", [True, False])
@pytest.mark.parametrize("kind", [FreezeOut, RateOnly])
def test_an_optimizer_without_rates_is_refused_in_words(kind: Any, key: bool) -> None:
    model = make_net()
    optimizer = Relative(model.parameters(), key=key)
    group = dict(optimizer.param_groups[0])
    with pytest.raises(TypeError, match=r"group 0 of Relative has no learning rate .*anneal=None"):
        kind(optimizer, model, STEPS)
    assert optimizer.param_groups == [group]
    assert "step" not in vars(optimizer)


@pytest.mark.parametrize("key", [True, False])
def test_an_optimizer_without_rates_can_be_frozen_only(key: bool) -> None:
    model = make_net()
    optimizer = Relative(model.parameters(), key=key)
    group = {k: v for k, v in optimizer.param_groups[0].items() if k != "params"}
    scheduler = FreezeOut(optimizer, model, STEPS, t0=0.3, spacing="linear", anneal=None)
    train(model, optimizer, [scheduler], stop=5)
    held, learning = snapshot(model.blocks[0]), snapshot(model.head)
    train(model, optimizer, [scheduler], start=5)
    assert scheduler.frozen == 3
    assert differing(held, snapshot(model.blocks[0])) == []
    assert differing(learning, snapshot(model.head)) == list(learning)
    assert scheduler.get_last_lr() == scheduler.get_lr() == [None]
    assert {k: v for k, v in optimizer.param_groups[0].items() if k != "params"} == group
    fresh = FreezeOut(optimizer, model, STEPS, t0=0.3, spacing="linear", anneal=None)
    fresh.load_state_dict(scheduler.state_dict())
    assert fresh.frozen == 3
    for group in optimizer.param_groups:
        group["lr"] = 0.1
    assert FreezeOut(optimizer, model, STEPS, scaled=False).get_last_lr() == [0.1] * 4


def test_adafactor_of_transformers() -> None:
    adafactor = pytest.importorskip("transformers.optimization").Adafactor
    model = make_net("matrix")
    optimizer = adafactor(model.parameters())
    with pytest.raises(TypeError, match=r"Adafactor has no learning rate.*relative_step=False"):
        FreezeOut(optimizer, model, STEPS)
    scheduler = FreezeOut(optimizer, model, STEPS, t0=0.3, spacing="linear", anneal=None)
    train(model, optimizer, [scheduler], kind="matrix")
    assert scheduler.frozen == 2


@pytest.mark.parametrize(
    ("rate", "error", "message"),
    [
        ("0.1", TypeError, "must be a number, got '0.1'"),
        (True, TypeError, "must be a number, got True"),
        (float("nan"), ValueError, "must be at least 0 and finite, got nan"),
        (float("inf"), ValueError, "must be at least 0 and finite, got inf"),
        (-0.1, ValueError, "must be at least 0 and finite, got -0.1"),
        (torch.ones(2), TypeError, "must hold one element, got 2"),
        (torch.tensor(-1.0), ValueError, "must be at least 0"),
    ],
)
@pytest.mark.parametrize("key", ["lr", "initial_lr"])
def test_what_is_no_rate_is_refused(
    key: str, rate: Any, error: type[Exception], message: str
) -> None:
    model = make_net()
    optimizer = torch.optim.SGD([{"params": [p]} for p in model.parameters()], lr=0.1)
    optimizer.param_groups[1][key] = rate
    with pytest.raises(error, match=rf'^param_groups\[1\]\["{key}"\] {message}'):
        FreezeOut(optimizer, model, STEPS)
    assert len(optimizer.param_groups) == len(list(model.parameters()))


@pytest.mark.parametrize("rate", [torch.tensor(0.1), torch.tensor([0.1])])
def test_tensors_of_one_element_are_rates(rate: torch.Tensor) -> None:
    model = make_net()
    optimizer = torch.optim.Adam(model.parameters(), lr=rate)
    scheduler = FreezeOut(optimizer, model, STEPS, scaled=False)
    assert [float(lr) for lr in scheduler.get_last_lr()] == [pytest.approx(0.1)] * 4


def test_rates_of_zero_are_told_if_all_are() -> None:
    model = make_net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    with pytest.warns(UserWarning, match="every base rate of SGD is 0") as seen:
        FreezeOut(optimizer, model, STEPS)
    assert [w.filename for w in seen] == [__file__]
    groups = [{"params": [p], "lr": 0.0 if p.ndim == 1 else 0.1} for p in model.parameters()]
    scheduler = FreezeOut(torch.optim.SGD(groups, lr=0.1), model, STEPS, scaled=False)
    assert {*scheduler.get_last_lr()} == {0.0, 0.1}


# A second phase


@pytest.mark.parametrize("stop", [5, STEPS])
@pytest.mark.parametrize("tensors", [False, True])
@pytest.mark.parametrize("kept", [True, False], ids=["first kept", "first dropped"])
def test_a_second_phase_takes_a_rate_that_was_set_by_hand(
    stop: int, tensors: bool, kept: bool
) -> None:
    rate = torch.tensor(0.1) if tensors else 0.1
    model = make_net()
    optimizer = torch.optim.Adam(model.parameters(), lr=rate)
    first = FreezeOut(optimizer, model, STEPS, schedule=LINEAR)
    train(model, optimizer, [first], stop=stop)
    groups = [id(group["params"][0]) for group in optimizer.param_groups]
    if not kept:
        del first
        gc.collect()
    for i, group in enumerate(optimizer.param_groups):
        if i < 3:  # the last is left as it is
            group["lr"] = torch.tensor(0.001) if tensors else 0.001
    second = FreezeOut(optimizer, model, STEPS, scaled=False)
    bases = [float(base) for base in second.base_lrs]
    assert bases == pytest.approx([0.001, 0.001, 0.001, 0.1])
    assert group_rates(optimizer) == bases
    assert [id(group["params"][0]) for group in optimizer.param_groups] == groups
    third = FreezeOut(optimizer, model, STEPS, scaled=False)  # nothing was set since
    assert [float(base) for base in third.base_lrs] == bases


def test_a_second_phase_begins_again_where_nothing_was_set() -> None:
    model, optimizer, first = set_up(momentum)
    train(model, optimizer, [first])
    assert group_rates(optimizer) == [0.0] * 4
    assert FreezeOut(optimizer, model, STEPS, scaled=False).base_lrs == [0.1] * 4


def test_a_second_phase_begins_where_a_plateau_has_come_to() -> None:
    model, optimizer, first = set_up(momentum)
    plateau = lr_scheduler.ReduceLROnPlateau(
        optimizer, patience=0, factor=0.5
    )  # at three updates in a row
    for n in range(4):
        train(model, optimizer, [first], start=n, stop=n + 1)
        plateau.step(1.0)
    train(model, optimizer, [first], start=4)
    second = FreezeOut(optimizer, model, STEPS, scaled=False)
    assert second.base_lrs == pytest.approx([0.0125] * 4)


def test_what_a_scheduler_has_come_down_to_is_no_new_base_rate() -> None:
    model = make_net()
    optimizer = momentum(model.parameters())
    cosine = lr_scheduler.CosineAnnealingLR(optimizer, STEPS)
    train(model, optimizer, [cosine], stop=5)
    scheduler = FreezeOut(optimizer, model, STEPS, scaled=False)
    assert scheduler.base_lrs == [0.1] * 4
    # After FreezeOut a cosine, then a second FreezeOut.
    train(model, optimizer, [lr_scheduler.CosineAnnealingLR(optimizer, STEPS)], stop=5)
    assert FreezeOut(optimizer, model, STEPS, scaled=False).base_lrs == [0.1] * 4


def test_a_rate_set_by_hand_after_another_scheduler_is_taken() -> None:
    model = make_net()
    optimizer = momentum(model.parameters())
    cosine = lr_scheduler.CosineAnnealingLR(optimizer, STEPS)
    train(model, optimizer, [cosine], stop=5)
    optimizer.param_groups[0]["lr"] = 0.02
    scheduler = FreezeOut(optimizer, model, STEPS, scaled=False)
    assert scheduler.base_lrs == [0.02] * 4
    assert cosine.optimizer is optimizer


@pytest.mark.parametrize("rate", [0.02, 0.0])
def test_a_rate_of_unknown_origin_is_told(rate: float) -> None:
    model = make_net()
    optimizer = momentum(model.parameters())
    optimizer.param_groups[0].update(initial_lr=0.1, lr=rate)  # as a loaded state has it
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        scheduler = FreezeOut(optimizer, model, STEPS, scaled=False)
    assert scheduler.base_lrs == [0.1] * 4
    assert len(seen) == (rate > 0)
    if seen:
        assert "rates start from 0.1" in str(seen[0].message)
        assert seen[0].filename == __file__


@pytest.mark.parametrize("kept", [True, False])
def test_the_first_rate_of_a_one_cycle_is_told_for_it_is_no_base_rate(kept: bool) -> None:
    model = make_net()
    optimizer = momentum(model.parameters())
    cycle = lr_scheduler.OneCycleLR(optimizer, max_lr=0.1, total_steps=STEPS)
    if not kept:
        del cycle
        gc.collect()
    with pytest.warns(UserWarning, match=r"left initial_lr=0\.004 there, 25 times below") as seen:
        scheduler = FreezeOut(optimizer, model, STEPS, scaled=False)
    assert [w.filename for w in seen] == [__file__]
    assert scheduler.base_lrs == [pytest.approx(0.004)] * 4
    for group in optimizer.param_groups:
        group["initial_lr"] = 0.1
    assert FreezeOut(optimizer, model, STEPS, scaled=False).base_lrs == [0.1] * 4
    FreezeOut(optimizer, model, STEPS, anneal=None)  # sets none


# Two models


def test_two_models_of_one_optimizer_are_refused_and_nothing_changes() -> None:
    first, second = (nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 2)) for _ in range(2))
    parameters = [*first.parameters(), *second.parameters()]
    for kind, make in ((FreezeOut, torch.optim.Adam), (RateOnly, torch.optim.SGD)):
        optimizer = make(parameters, lr=0.1)
        scheduler: Any = kind(optimizer, first, 4)
        groups = [dict(group) for group in optimizer.param_groups]
        with pytest.raises(ValueError, match=r"another .* by the layers of another model"):
            kind(optimizer, second, 4)
        assert optimizer.param_groups == groups
        both = nn.ModuleList([first, second])
        with pytest.raises(ValueError, match="Put both models into one module"):
            kind(optimizer, both, 4, layers=["0.0", "1.0", ["0.1", "1.1"]])
        kind(optimizer, first, 4)  # of the same model: a new phase
        scheduler = kind(optimizer, first, 4)
        scheduler.step(4)
        assert len(kind(optimizer, second, 4).get_last_lr()) >= 3


def test_a_scheduler_that_nobody_holds_is_not_in_the_way() -> None:
    first, second = (nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 2)) for _ in range(2))
    optimizer = torch.optim.SGD([*first.parameters(), *second.parameters()], lr=0.1)
    holder: list[Any] = [FreezeOut(optimizer, first, 4)]
    holder.append(holder)  # a circle, for the collector
    del holder
    FreezeOut(optimizer, second, 4)


def test_without_rates_two_models_may_share_an_optimizer() -> None:
    first, second = (nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4)) for _ in range(2))
    optimizer = torch.optim.SGD([*first.parameters(), *second.parameters()], lr=0.1)
    a = FreezeOut(optimizer, first, 4, anneal=None)
    b = FreezeOut(optimizer, second, 4, anneal=None, t0=0.5, spacing="linear")
    for _ in range(3):
        second(first(torch.ones(1, 4))).sum().backward()
        optimizer.step()
        optimizer.zero_grad()
        a.step()
        b.step()
    assert (a.frozen, b.frozen) == (1, 1)
