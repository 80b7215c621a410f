"""Every optimizer keeps the contract of `FreezeOut`, or is refused."""

from __future__ import annotations

import inspect
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F

from freezeout import FreezeOut
from tests.contracts import (
    CASES,
    CONTRACTS,
    REFUSED,
    STEPS,
    Case,
    differing,
    make_batch,
    make_net,
    snapshot,
)


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
