"""Every optimizer of the table keeps the contract of its row."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from _pytest.mark import ParameterSet

from freezeout.freezing import unwrap_optimizer
from tests.compatibility import package_optimizers, patterns, torch_optimizers
from tests.compatibility.optimizer_contracts import CONTRACTS
from tests.compatibility.rows import Row
from tests.compatibility.small_run import what_is_said
from tests.contracts import bits

TABLES = {
    "torch": torch_optimizers.ROWS,
    package_optimizers.PACKAGE: package_optimizers.ROWS,
    "habit": patterns.ROWS,
}
ALL = [(of, row) for of, rows in TABLES.items() for row in rows]


def rows_that(refused: bool) -> list[ParameterSet]:
    """The rows as parameters; those of optimizers that few people take are slow."""
    found = []
    for of, row in ALL:
        if (row.outcome == "refused") is refused:
            rates = "" if len(row.anneals) == 2 else f" anneal={row.anneals[0]}"
            rare = (
                of == package_optimizers.PACKAGE and row.name not in package_optimizers.WELL_KNOWN
            )
            marks = [pytest.mark.slow] if rare else []
            found.append(pytest.param(row, id=f"{of} {row.name}{rates}", marks=marks))
    return found


@pytest.mark.parametrize("row", rows_that(refused=False))
@pytest.mark.parametrize("contract", CONTRACTS, ids=lambda contract: contract.__name__)
def test_optimizer_keeps_the_contract(contract: Callable[[Row], None], row: Row) -> None:
    contract(row)


@pytest.mark.parametrize("row", rows_that(refused=True))
def test_optimizer_is_refused_in_words_before_anything_changes(row: Row) -> None:
    model, optimizer = row.bare()
    groups = list(unwrap_optimizer(optimizer).param_groups)
    before = [bits(p) for p in model.parameters()]
    with what_is_said(), pytest.raises((TypeError, ValueError), match=row.words):
        row.schedule(model, optimizer)
    now = unwrap_optimizer(optimizer).param_groups
    assert all(a is b for a, b in zip(now, groups, strict=True))
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
    for _, row in ALL:
        assert bool(row.words) is (row.outcome != "works"), row.name
