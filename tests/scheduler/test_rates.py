"""The rates that `FreezeOut` sets."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn
from torch.optim import lr_scheduler

from freezeout import FreezeOut
from tests.contracts import STEPS, make_net, plain_cosine
from tests.scheduler.steps import LINEAR, group_rates, set_up, update


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
