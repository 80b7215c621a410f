"""Each scheduler of the table beside FreezeOut: freezes are on time, rates as the row says."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from freezeout import FreezeOut
from tests.compatibility.other_schedulers import BESIDE, Beside
from tests.compatibility.small_run import what_is_said
from tests.contracts import STEPS, assert_same, make_batch, make_net, snapshot


@pytest.mark.parametrize("beside", BESIDE, ids=lambda beside: beside.name)
def test_scheduler_beside_it(beside: Beside) -> None:
    model = make_net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)

    def make() -> FreezeOut:
        settings = {"t0": 0.3, "spacing": "linear", "anneal": beside.anneal}
        return FreezeOut(optimizer, model, STEPS, scaled=False, **settings)

    with what_is_said(("before `optimizer.step()`",)) as said:
        scheduler, step = beside.build(optimizer, make)
        kept: dict[str, torch.Tensor] = {}
        for n in range(STEPS - 1 + beside.warmup):
            x, y = make_batch("conv", n)
            model.train()
            loss = F.cross_entropy(model(x), y)
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            step(loss.item())
            done = n + 1 - beside.warmup
            due = sum(s is not None and done >= s for s in scheduler.freeze_steps)
            assert scheduler.frozen == max(0, due), f"after {done} updates"
            still = snapshot(model.blocks[: scheduler.frozen])
            assert_same({name: kept.setdefault(name, t) for name, t in still.items()}, still)
    assert scheduler.frozen == 3
    if beside.outcome == "told":
        assert any(beside.words in line for line in said), f"{beside.words!r} is not in {said}"
        return
    assert said == []
    if beside.anneal is not None:
        expected = [0.1 * beside.cut * f for f in scheduler.factors_at(STEPS - 1)]
        assert scheduler.get_last_lr() == pytest.approx(expected)
    elif beside.cut != 1:
        assert optimizer.param_groups[0]["lr"] == pytest.approx(0.1 * beside.cut)
