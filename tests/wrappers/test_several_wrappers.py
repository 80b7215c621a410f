"""Wrappers in uncommon company: leftovers, second fits, parts, accumulation, lost processes."""

from __future__ import annotations

import importlib.util
from typing import Any

import pytest
import torch.distributed as dist

from freezeout.errors import DistributedError
from freezeout.wrappers import agreement as _agreement
from freezeout.wrappers.agreement import Agreement
from tests.wrappers import wrapper_jobs as jobs
from tests.wrappers.expected import sharding
from tests.wrappers.ranks import Ranks

pytestmark = pytest.mark.multiprocess


@sharding
@pytest.mark.parametrize("second", ["FreezeOut", "a new freezer", "unfreeze"])
def test_a_fit_after_one_that_kept_groups_gathered(pair: Ranks, second: str) -> None:
    for far, learns in pair.run(jobs.two_fits, second):
        assert max(far) < 1e-5
        assert all(learns) is (second != "FreezeOut")


@sharding
@pytest.mark.skipif(
    importlib.util.find_spec("torch.distributed._composable.replicate_with_fsdp") is None,
    reason="this PyTorch has no such replicate",
)
def test_what_is_replicated_has_nothing_to_keep_gathered(pair: Ranks) -> None:
    assert pair.run(jobs.replicated_and_kept) == [2, 2]


def test_a_leftover_wrapper_on_one_rank(pair: Ranks) -> None:
    assert pair.run(jobs.a_leftover_on_one_rank) == [[0.0, 0.0]] * 2


def test_ranks_that_would_send_other_buffers_stop_before_they_do(pair: Ranks) -> None:
    for said, depth in pair.run(jobs.buffers_that_one_rank_would_not_send):
        assert "freeze 1 of 5 layers and send 3 buffers, but rank 1 is to freeze 1 of 5" in said
        assert depth == 0


@pytest.mark.parametrize("view", [False, True])
def test_a_static_graph_accumulates_from_the_step_of_a_freeze(pair: Ranks, view: bool) -> None:
    for far in pair.run(jobs.static_and_accumulating, view):
        assert max(far) < 1e-5


def test_a_part_that_is_frozen_whole_needs_no_new_wrapper(pair: Ranks) -> None:
    for seen in pair.run(jobs.all_of_a_part_frozen):
        assert seen == [(1, 2, True), (3, 2, True), (0, 3, True)]


def test_two_freezers_leave_each_other_s_buffers_alone(pair: Ranks) -> None:
    # Three normalisations of three buffers in each tower.
    for counts in pair.run(jobs.two_freezers_in_one_wrapper):
        assert counts == [18, 15, 12, 9, 0, 9]


def test_a_buffer_that_a_live_layer_shares_is_still_broadcast(pair: Ranks) -> None:
    for first, second in pair.run(jobs.a_buffer_that_frozen_and_live_layers_share):
        assert first == second != 0.0


def test_a_refused_freeze_holds_no_wrapper(pair: Ranks) -> None:
    assert pair.run(jobs.refused_and_let_go) == [False, False]


@pytest.mark.parametrize("rank", [0, 1])
@pytest.mark.parametrize("operation", ["set", "wait"])
def test_a_process_that_is_gone_is_not_taken_for_a_late_one(
    monkeypatch: pytest.MonkeyPatch, rank: int, operation: str
) -> None:
    class Gone:
        def __getattr__(self, name: str) -> Any:
            def act(*args: Any) -> bytes:
                if name == operation:
                    raise dist.DistNetworkError("connection reset by peer")
                return b"freeze"

            return act

    monkeypatch.setattr(_agreement, "_store", Gone)
    monkeypatch.setattr(dist, "get_rank", lambda: rank)
    with pytest.raises(DistributedError, match=f"rank {rank} is to freeze, but the process that"):
        Agreement(["x"]).check("freeze", (0, 1))
