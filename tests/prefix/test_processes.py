"""Captured models in two processes: exact where ranks hit differently, refused where that hangs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch

from tests.prefix import jobs
from tests.wrappers.expected import sharding
from tests.wrappers.ranks import Ranks, joined

pytestmark = pytest.mark.multiprocess


@pytest.fixture(scope="module")
def pair() -> Iterator[Ranks]:
    with joined(2) as ranks:
        yield ranks


def alike(plain: Any, captured: Any) -> None:
    for one, other in zip(plain["losses"], captured["losses"], strict=True):
        assert torch.equal(one, other)
    for one, other in zip(plain["gradients"], captured["gradients"], strict=True):
        for p, q in zip(one, other, strict=True):
            assert (p is None) == (q is None)
            assert p is None or torch.equal(p, q)


def test_distributed_data_parallel_is_exact_where_ranks_hit_differently(pair: Ranks) -> None:
    (plain, captured), (other_plain, other_captured) = pair.run(jobs.ddp)
    alike(plain, captured)
    alike(other_plain, other_captured)
    assert captured["captured"] == other_captured["captured"] > 3
    assert captured["served"] == 0 < other_captured["served"]


@sharding
def test_groups_that_are_kept_gathered_are_captured(pair: Ranks) -> None:
    for plain, captured in pair.run(jobs.fsdp, True):
        alike(plain, captured)
        assert captured["captured"] > 2, captured["plain"]
    assert captured["served"] > 0


@sharding
@pytest.mark.filterwarnings("ignore:fully_shard gathers frozen layers")
def test_groups_that_are_gathered_in_every_pass_are_not(pair: Ranks) -> None:
    for plain, captured in pair.run(jobs.fsdp, False):
        alike(plain, captured)
        assert captured["captured"] == 0
        assert captured["plain"]["frozen layers are gathered in every pass"] > 2
