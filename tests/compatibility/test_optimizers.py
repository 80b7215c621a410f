"""Every optimizer of the table keeps the contract of its row."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from freezeout.freezing import unwrap_optimizer
from tests.compatibility import package_optimizers, patterns, torch_optimizers
from tests.compatibility.optimizer_contracts import CONTRACTS
from tests.compatibility.rows import Row
from tests.compatibility.small_run import what_is_said
from tests.contracts import bits

ALL = [*torch_optimizers.ROWS, *package_optimizers.ROWS, *patterns.ROWS]
FOLLOWED = [row for row in ALL if row.outcome != "refused"]
REFUSED = [row for row in ALL if row.outcome == "refused"]


@pytest.mark.parametrize("row", FOLLOWED, ids=lambda row: row.name)
@pytest.mark.parametrize("contract", CONTRACTS, ids=lambda contract: contract.__name__)
def test_optimizer_keeps_the_contract(contract: Callable[[Row], None], row: Row) -> None:
    contract(row)


@pytest.mark.parametrize("row", REFUSED, ids=lambda row: row.name)
def test_optimizer_is_refused_in_words_before_anything_changes(row: Row) -> None:
    model, optimizer = row.bare()
    groups = list(unwrap_optimizer(optimizer).param_groups)
    before = [bits(p) for p in model.parameters()]
    with what_is_said(), pytest.raises((TypeError, ValueError, RuntimeError), match=row.words):
        row.schedule(model, optimizer)
    assert all(
        a is b for a, b in zip(unwrap_optimizer(optimizer).param_groups, groups, strict=True)
    )
    assert all(p.requires_grad for p in model.parameters())
    assert all(torch.equal(a, bits(p)) for a, p in zip(before, model.parameters(), strict=True))


def test_every_optimizer_of_torch_has_a_row() -> None:
    assert {
        row.name.partition("-")[0] for row in torch_optimizers.ROWS
    } == torch_optimizers.classes()


def test_every_optimizer_of_the_package_has_a_row() -> None:
    rows = {row.name for row in package_optimizers.ROWS}
    assert rows | package_optimizers.UNTRIED.keys() == package_optimizers.classes()
    assert not rows & package_optimizers.UNTRIED.keys()


def test_every_row_says_what_its_outcome_needs() -> None:
    for row in ALL:
        assert bool(row.words) is (row.outcome != "works"), row.name
