"""Random programs between frozen layers: where the plain run works, the captured one is alike."""

from __future__ import annotations

import pytest
import torch

from tests.prefix.dictionary import Dictionary
from tests.prefix.programs import program
from tests.prefix.small import batch, small_twins
from tests.prefix.twins import Twins

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")


def works(both: Twins, n: int) -> bool:
    """Whether autograd accepts the program at all."""
    try:
        both.plain(batch(n)).backward()
    except RuntimeError:
        return False
    return True


def stays_exact(seed: int, served: bool) -> bool:
    both = small_twins(program(seed, 5 + seed % 9), Dictionary() if served else None)
    for step, n in enumerate((1, 2, 1, 2, 1)):
        torch.manual_seed(step)
        if not works(both, n):
            return False
        torch.manual_seed(step)
        inputs = [batch(n), batch(n)]
        given = iter(inputs)
        both.agree(lambda model, given=given: model(next(given)))
        assert torch.equal(*inputs)
    return True


@pytest.mark.parametrize("served", [False, True], ids=["computed", "served"])
def test_random_programs_stay_exact(served: bool) -> None:
    assert sum(stays_exact(seed, served) for seed in range(24)) > 12


def test_views_of_what_active_code_changes_are_there_before_it_does() -> None:
    """Where they are made later, gradients are summed in another order."""
    assert stays_exact(1289, served=False)


@pytest.mark.slow
@pytest.mark.parametrize("served", [False, True], ids=["computed", "served"])
def test_many_random_programs_stay_exact(served: bool) -> None:
    assert sum(stays_exact(seed, served) for seed in range(1000, 2000)) > 550
