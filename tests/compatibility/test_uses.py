"""Every use of the table, right after a freeze and later: training goes on as without it."""

from __future__ import annotations

import pytest
import torch

from freezeout import FreezeOut
from tests.compatibility.small_run import what_is_said
from tests.compatibility.uses import USES, Use
from tests.contracts import SCHEDULE, STEPS, assert_same, make_batch, make_net, snapshot, train


@pytest.mark.parametrize("use", USES, ids=lambda use: use.name)
@pytest.mark.parametrize("at", [4, 6], ids=["right after a freeze", "later"])
def test_use_of_a_model_that_is_partly_frozen(use: Use, at: int) -> None:
    ends = []
    for used in (False, True):
        model = make_net()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
        with what_is_said() as said:
            scheduler = FreezeOut(optimizer, model, STEPS, schedule=SCHEDULE)
            train(model, optimizer, [scheduler], stop=at)
            assert scheduler.frozen == 1
            before = snapshot(model.blocks[0])
            if used:
                use.do(model, *make_batch("conv", 0))
            assert_same(before, snapshot(model.blocks[0]))
            train(model, optimizer, [scheduler], start=at)
            assert scheduler.freezer.verified
        assert_same(before, snapshot(model.blocks[0]))
        assert said == []
        ends.append(snapshot(model))
    assert_same(*ends)
