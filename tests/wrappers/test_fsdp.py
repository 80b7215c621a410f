"""FSDP2, ZeroRedundancyOptimizer and distributed checkpoints while layers freeze."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from tests.wrappers import sharded_jobs as jobs
from tests.wrappers import small_run
from tests.wrappers.expected import DEPTHS, EXCHANGED, check_equal, live, sharding
from tests.wrappers.ranks import Ranks

pytestmark = pytest.mark.multiprocess

PADDING = 8 + 1
"""The head has three rows; two processes share four."""


@sharding
@pytest.mark.parametrize("keep", [False, True])
@pytest.mark.parametrize("per_layer", [True, False])
def test_fully_shard(pair: Ranks, alone: dict[str, Any], keep: bool, per_layer: bool) -> None:
    runs = pair.run(jobs.fsdp, keep, per_layer)
    check_equal(runs, alone)
    for run in runs:
        assert run["reduced"] == [elements + PADDING for elements in EXCHANGED]
        assert run["unfrozen"] == live(0) + PADDING
        assert all(run["flags"])
        assert set(run["state"]) == set(small_run.plain_net().state_dict())
        if not per_layer:
            assert len(set(run["gathers"])) == 1
        elif keep:  # from the second step on only live groups: forward and backward
            assert [run["gathers"][step] for step in (5, 7, 9)] == [6, 4, 2]
            assert run["held"][-1] > 0
        else:  # frozen ones too, in every forward pass
            assert [run["gathers"][step] for step in (5, 7, 9)] == [8, 7, 6]
            assert run["held"][-1] == 0


@sharding
@pytest.mark.parametrize("after_forward", [True, False])
@pytest.mark.parametrize("after_backward", [True, False])
def test_what_was_kept_gathered_goes_back_to_how_it_was_set(
    pair: Ranks, after_forward: bool, after_backward: bool
) -> None:
    # The first step gathers all four layers once, a later one those that were left scattered.
    later = (8 if after_forward else 4) if after_backward else 4 if after_forward else 0
    for run in pair.run(jobs.thawed_as_it_was, after_forward, after_backward):
        assert run["before"][1:] == run["after"][1:] == [later] * 2
        assert run["frozen"][1:] == [later // 2] * 2


@sharding
def test_what_feeds_a_frozen_group_is_named_as_the_optimizer_knows_it(pair: Ranks) -> None:
    for said in pair.run(jobs.out_of_order):
        assert "because of active parameters that feed it: '0." in said
        assert "(layer 1)" in said


@sharding
@pytest.mark.parametrize("first", [False, True])
def test_a_thaw_in_mixed_precision(pair: Ranks, first: bool) -> None:
    runs = pair.run(jobs.thaw_in_bf16, first)
    model = small_run.plain_net()
    x, y = small_run.batch(0)
    torch.nn.functional.cross_entropy(model(x), y).backward()
    for run in runs:
        for name, p in model.named_parameters():
            assert run[name].dtype == torch.float32
            torch.testing.assert_close(run[name], p.grad, rtol=0.1, atol=0.02)


def test_ranks_that_disagree_are_stopped_here_too(pair: Ranks) -> None:
    for said in pair.run(jobs.fsdp_disagree):
        assert said.startswith("DistributedError: rank 0 is to freeze 1 of 4 layers, but rank 1")


def test_costs_are_those_of_a_model_that_is_not_sharded(pair: Ranks) -> None:
    for said in pair.run(jobs.costs_of_a_sharded_model):
        assert said.startswith("costs of a model under fully_shard cannot be measured.")


@pytest.mark.parametrize("bucket_view", [False, True])
def test_zero_redundancy_optimizer(pair: Ranks, bucket_view: bool) -> None:
    first, second = pair.run(jobs.zero, bucket_view)
    assert torch.equal(first["weights"], second["weights"])
    assert first["weights"].isfinite().all()
    sizes = [2 + 2, 2 + 2, 2 + 2, 2]  # parameters of each layer
    for step, depth in enumerate(DEPTHS):
        assert first["held"][step] + second["held"][step] == sum(sizes[depth:])
    for run in (first, second):
        assert run["frozen"]
        assert all(run["rates"])
    assert first["saved"] == 2


def test_zero_redundancy_optimizer_refusals(pair: Ranks) -> None:
    for used, overlapping in pair.run(jobs.zero_refusals):
        assert used == (
            "FreezeOutError: ZeroRedundancyOptimizer has state already, and would lose it when its "
            "parameter groups are split by layer. Make FreezeOut before the first step, then load."
        )
        assert overlapping.startswith("FreezeOutError: FreezeOut cannot drive ZeroRedundancyOpt")


@pytest.mark.parametrize("shard", [False, pytest.param(True, marks=sharding)])
def test_distributed_checkpoint(pair: Ranks, tmp_path: Path, shard: bool) -> None:
    for run in pair.run(jobs.dcp_run, str(tmp_path), shard):
        assert run["frozen"] == (3, 3)
        assert run["entries"][0] == run["entries"][1] == 10
        assert run["same"]
        assert run["files"] > 1
