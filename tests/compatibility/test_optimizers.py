"""Every optimizer of the table keeps the contract of its row."""

from __future__ import annotations

from collections.abc import Callable, Iterator

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


def rows_that(refused: bool) -> list[tuple[str, Row, bool]]:
    """The rows with a name, and whether few people take the optimizer."""
    found = []
    for of, row in ALL:
        if (row.outcome == "refused") is refused:
            rates = "" if len(row.anneals) == 2 else f" anneal={row.anneals[0]}"
            rare = (
                of == package_optimizers.PACKAGE and row.name not in package_optimizers.WELL_KNOWN
            )
            found.append((f"{of} {row.name}{rates}", row, rare))
    return found


def contracts_of_rows() -> Iterator[ParameterSet]:
    """All contracts with all rows; in the default run the first, with what people take."""
    for contract in CONTRACTS:
        for name, row, rare in rows_that(refused=False):
            marks = [pytest.mark.slow] if rare or contract is not CONTRACTS[0] else []
            yield pytest.param(contract, row, id=f"{contract.__name__}: {name}", marks=marks)


@pytest.mark.parametrize(("contract", "row"), list(contracts_of_rows()))
def test_optimizer_keeps_the_contract(contract: Callable[[Row], None], row: Row) -> None:
    contract(row)


@pytest.mark.parametrize(
    "row", [pytest.param(row, id=name) for name, row, _ in rows_that(refused=True)]
)
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
