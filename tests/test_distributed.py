"""DistributedDataParallel while layers freeze: gradients, exchange, buffers, agreement."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import nn

import parallel_jobs as jobs
from freezeout import FreezeOut, Freezer, distributed, split_layers
from freezeout.errors import DistributedError
from parallel_jobs import STEPS
from ranks import Ranks, joined

pytestmark = pytest.mark.multiprocess

BLOCKS = [6 * 8 + 8 + 16, 8 * 8 + 8 + 16, 8 * 8 + 8 + 16]
HEAD = 8 * 3 + 3
DEPTHS = [0, 0, 1, 1, 1, 2, 2, 3, 3, 3]
"""After each of ten steps."""


def live(depth: int) -> int:
    return sum(BLOCKS[depth:]) + HEAD


EXCHANGED = [live(depth) for depth in [0, *DEPTHS[:-1]]]


@pytest.fixture(scope="module")
def pair() -> Iterator[Ranks]:
    with joined(2) as ranks:
        yield ranks


@pytest.fixture(scope="module")
def alone() -> dict[str, Any]:
    return jobs.single()


def check_equal(runs: list[dict[str, Any]], alone: dict[str, Any]) -> None:
    for run in runs:
        assert run["depths"] == alone["depths"] == DEPTHS
        for step in range(STEPS):
            for name, wanted in alone["gradients"][step].items():
                found = run["gradients"][step][name]
                assert (found is None) is (wanted is None), (step, name)
                if wanted is not None:
                    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-6)
            torch.testing.assert_close(
                run["weights"][step], alone["weights"][step], rtol=1e-4, atol=1e-6
            )
    assert torch.equal(runs[0]["weights"][-1], runs[1]["weights"][-1])


@pytest.mark.parametrize(
    ("how", "options"),
    [
        ("wrapper", {}),
        ("not told", {}),
        ("a subclass, not told", {}),
        ("inside another", {}),
        ("wrapper", {"static_graph": True}),
        ("not told", {"gradient_as_bucket_view": True}),
        ("wrapper", {"gradient_as_bucket_view": True, "static_graph": True}),
        ("wrapper", {"find_unused_parameters": True}),
        ("wrapper", {"bucket_cap_mb": 0.0002}),
    ],
)
def test_gradients_are_right_at_every_step_and_the_exchange_shrinks(
    pair: Ranks, alone: dict[str, Any], how: str, options: dict[str, Any]
) -> None:
    runs = pair.run(jobs.run_ddp, how, options)
    check_equal(runs, alone)
    for run in runs:
        assert run["reduced"] == run["said"] == EXCHANGED


def test_a_compiled_wrapper(pair: Ranks, alone: dict[str, Any]) -> None:
    runs = pair.run(jobs.run_ddp, "compiled", {})
    check_equal(runs, alone)
    assert runs[0]["reduced"] == EXCHANGED


def test_accumulation_without_exchange_between(pair: Ranks) -> None:
    runs = pair.run(jobs.run_ddp, "wrapper", {"gradient_as_bucket_view": True}, 3)
    check_equal(runs, jobs.single(micros=3))
    assert runs[0]["reduced"] == EXCHANGED


def test_unfreezing_brings_layers_back_into_the_exchange(pair: Ranks) -> None:
    for run in pair.run(jobs.unwrapped_again):
        assert run["worst"] < 1e-6
        assert run["static"]
        assert run["reduced"] == [live(depth) for depth in (0, 2, 1, 0, 3) for _ in range(2)]


def test_frozen_buffers_are_sent_once_more_and_then_no_longer(pair: Ranks) -> None:
    for run in pair.run(jobs.with_buffers, True):
        assert run["sent"] == [9 - 3 * depth for depth in [0, *DEPTHS[:-1]]] + [9]
        assert all(run["agree"])
        assert run["ignored"] == []


def test_buffers_that_are_each_rank_s_own_stay_so(pair: Ranks) -> None:
    for run in pair.run(jobs.with_buffers, False):
        assert sum(run["sent"]) == 0
        assert run["agree"][:2] == [True, True]
        assert not run["agree"][-1]
        assert run["ignored"] == []


def test_state_that_a_hook_keeps_for_each_bucket_is_dropped(pair: Ranks) -> None:
    runs = pair.run(jobs.power)
    assert torch.equal(runs[0]["weights"], runs[1]["weights"])
    for run in runs:
        # Two steps are sent as they are after each freeze, until buckets have settled.
        assert run["iterations"] == [1, 2, 0, 1, 2, 0, 1, 0, 1, 2]
        assert run["kept"][2] == run["kept"][5] == run["kept"][7] == 0


def test_where_the_reducer_cannot_be_remade_there_is_a_new_wrapper(pair: Ranks) -> None:
    for run in pair.run(jobs.replaced, True):
        assert run["reduced"] == EXCHANGED
        assert all(run["same"])
        assert run["made"] == 4
        assert run["options"] == (True, 1024 * 1024, True)
        assert run["buffers"] == 0
        assert run["attribute"] is False


def test_and_without_a_place_for_it_nothing_freezes(pair: Ranks) -> None:
    for run in pair.run(jobs.replaced, False):
        assert (run["depth"], run["step"]) == (0, 2)
        assert run["error"] == (
            "DistributedDataParallel cannot follow a freeze in place: this PyTorch's "
            "DistributedDataParallel has no _something_newer. Take a new wrapper after each "
            "freeze: scheduler.freezer.follow(model, replace=...) gets it and puts it where the "
            "training loop calls it."
        )


@pytest.mark.skipif(
    torch.__version__ < "2.7" and not torch.cuda.is_available(),
    reason="this PyTorch's mixed_precision needs a GPU",
)
def test_a_wrapper_with_hooks_of_its_own_is_refused(pair: Ranks) -> None:
    for said in pair.run(jobs.refuses_hooks_of_its_own):
        assert len(said) == 2
        for message in said:
            assert "mixed_precision=... (use torch.autocast instead)" in message


def test_ranks_that_disagree_stop_before_anything_changes(pair: Ranks) -> None:
    for run in pair.run(jobs.disagree, False):
        assert run["said"].startswith(
            "rank 0 is to freeze 1 of 5 layers after step 7, but rank 1 is to freeze 2 of 5 layers "
            "after step 7. Nothing was changed."
        )
        assert run["depth"] == 0
        assert run["live"]


def test_a_rank_that_does_not_come_in_time_is_named_and_does_not_freeze_alone(pair: Ranks) -> None:
    for run in pair.run(jobs.disagree, True):
        assert "but rank 1 did not come to this point within 1 s" in run["said"]
        assert run["live"]
        assert run["depth"] == 0


def test_a_rank_that_comes_too_late_does_not_freeze_alone_either(pair: Ranks) -> None:
    first, second = pair.run(jobs.late_first)
    assert "but rank 1 is to give up waiting for the others" in first
    assert "but rank 0 did not come to this point within 0.5 s" in second


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_wrapper_around_a_part_of_the_model(
    pair: Ranks, alone: dict[str, Any], when: str
) -> None:
    runs = pair.run(jobs.in_parts, when)
    for run in runs:
        assert run["depths"] == DEPTHS
        assert run["reduced"] == [elements - HEAD for elements in EXCHANGED]
        assert run["thawed"] == sum(BLOCKS)
        for found, wanted in zip(run["weights"], alone["weights"], strict=True):
            torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("frozen_heap", [False, True])
def test_a_second_wrapper_is_followed_too(
    pair: Ranks, alone: dict[str, Any], frozen_heap: bool
) -> None:
    for run in pair.run(jobs.second_wrapper, frozen_heap):
        assert run["reduced"] == EXCHANGED
        assert run["hidden"] is frozen_heap
        for found, wanted in zip(run["weights"], alone["weights"], strict=True):
            torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-6)


def test_only_the_processes_of_a_wrapper_agree(pair: Ranks) -> None:
    first, second = pair.run(jobs.of_some_ranks)
    assert first == {"depth": 1, "reduced": live(1)}
    assert second == {"depth": 2, "reduced": live(2)}


def test_costs_are_not_measured_under_a_live_wrapper(pair: Ranks) -> None:
    for said in pair.run(jobs.costs_of_a_wrapped_model):
        assert "nor of the model inside while it is wrapped" in said


def test_a_wrapper_made_after_a_resume_is_brought_in_line(pair: Ranks) -> None:
    for run in pair.run(jobs.made_after_a_resume):
        assert run["before"] == live(2)
        assert run["sent"] == [9, 3, 0]
        assert run["after"] == live(0)


def test_follow_takes_only_the_wrapper_of_its_model() -> None:
    freezer = Freezer(split_layers(jobs.plain_net()))
    with pytest.raises(ValueError, match="timeout must be above 0, got 0"):
        freezer.follow(timeout=0)
    freezer.follow(nn.Linear(1, 1))  # no wrapper at all: nothing to follow
    with pytest.raises(TypeError, match="rewrap takes a DistributedDataParallel, got Linear"):
        distributed.rewrap(nn.Linear(1, 1))  # type: ignore[arg-type]
    assert issubclass(DistributedError, RuntimeError) is False


@pytest.mark.gpu
@pytest.mark.parametrize("sharded", [False, True])
def test_on_a_gpu(alone: dict[str, Any], sharded: bool) -> None:
    """NCCL with one process: the reducer follows, gradients are those of the plain run."""
    from torch.distributed.fsdp import fully_shard

    dist.init_process_group("nccl", store=dist.HashStore(), rank=0, world_size=1)
    try:
        model: Any = jobs.plain_net().cuda()
        if sharded:
            for layer in model:
                fully_shard(layer)
            run = fully_shard(model)
        else:
            run = nn.parallel.DistributedDataParallel(model, device_ids=[0])
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
        scheduler = FreezeOut(optimizer, model, STEPS, schedule=jobs.SCHEDULE)
        for step in range(STEPS):
            x, y = (part.cuda() for part in jobs.batch(step))
            nn.functional.cross_entropy(run(x), y).backward()
            optimizer.step()
            optimizer.zero_grad()
            scheduler.step()
            assert scheduler.frozen == DEPTHS[step]
            full = [getattr(p, "full_tensor", lambda p=p: p)().cpu() for p in model.parameters()]
            torch.testing.assert_close(
                jobs.flat(full), alone["weights"][step], rtol=1e-3, atol=1e-4
            )
    finally:
        dist.destroy_process_group()
