"""DistributedDataParallel while layers freeze: gradients, exchange, buffers, agreement."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from freezeout import FreezeOut, Freezer, split_layers, wrappers
from freezeout.errors import DistributedError
from freezeout.wrappers import ddp as _reducer
from tests.wrappers import parallel_jobs as jobs
from tests.wrappers import small_run
from tests.wrappers.expected import BLOCKS, DEPTHS, EXCHANGED, HEAD, check_equal, live
from tests.wrappers.ranks import Ranks
from tests.wrappers.small_run import STEPS

pytestmark = pytest.mark.multiprocess


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
    check_equal(runs, small_run.single(micros=3))
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
            "freeze: scheduler.freezer.follow(replace=...) gets it and puts it where the training "
            "loop calls it."
        )


@pytest.mark.skipif(
    torch.version.cuda is not None and not torch.cuda.is_available(),
    reason="mixed_precision of a PyTorch that is built for GPUs needs one",
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
        assert run["unfrozen"] == sum(BLOCKS)
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


def test_arguments_that_cannot_be_meant_are_refused() -> None:
    freezer = Freezer(split_layers(small_run.plain_net()))
    with pytest.raises(ValueError, match="timeout must be above 0 and finite, got 0"):
        freezer.follow(timeout=0)
    with pytest.raises(TypeError, match="rewrap takes a DistributedDataParallel, got Linear"):
        wrappers.rewrap(nn.Linear(1, 1))  # type: ignore[arg-type]


def test_a_wrapper_with_nothing_to_exchange_does_not_wait_for_it_in_a_join(pair: Ranks) -> None:
    """A rank that is out of data stands in for exchanges, and there are none."""
    for run in pair.run(jobs.joined_with_a_frozen_body):
        assert run["batches"] == run["forwards"]
        assert run["after"] == 2.0  # what is averaged next is averaged right


@pytest.mark.slow
def test_ranks_that_are_out_of_data_do_not_come_to_a_freeze(pair: Ranks) -> None:
    first, second = pair.run(jobs.uneven)
    assert first["said"] == ""
    assert "but rank 0 did not come to this point within 1 s" in second["said"]
    assert first["depth"] == second["depth"] == 0


# One process is enough for what a wrapper is made of.


@pytest.fixture
def by_itself() -> Iterator[None]:
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield
    dist.destroy_process_group()


class Other(DistributedDataParallel):
    """Takes what the class it comes from takes, and no more."""

    def __init__(self, module: nn.Module, *args: Any, **kwargs: Any) -> None:
        super().__init__(module, *args, **kwargs)


class Named(DistributedDataParallel):
    """Has a setting of its own, which nobody else knows."""

    def __init__(self, module: nn.Module, name: str = "", **kwargs: Any) -> None:
        super().__init__(module, **kwargs)
        self.name = name


class Fixed(DistributedDataParallel):
    """Knows all of its options itself."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__(module, bucket_cap_mb=1)


def without(name: str) -> Callable[[DistributedDataParallel, pytest.MonkeyPatch], None]:
    def take_away(wrapper: DistributedDataParallel, patch: pytest.MonkeyPatch) -> None:
        patch.delattr(wrapper if name in wrapper.__dict__ else DistributedDataParallel, name)

    return take_away


def another_helper(wrapper: DistributedDataParallel, patch: pytest.MonkeyPatch) -> None:
    patch.setattr(wrapper, "_ddp_init_helper", lambda parameters, reducer_options: None)


def another_reducer(wrapper: DistributedDataParallel, patch: pytest.MonkeyPatch) -> None:
    patch.setattr(wrapper, "reducer", object())


def a_python_reducer(wrapper: DistributedDataParallel, patch: pytest.MonkeyPatch) -> None:
    assert wrapper._use_python_reducer is False
    patch.setattr(wrapper, "_use_python_reducer", True)  # as the compiler's setting would


def an_optimizer_in_backward(wrapper: DistributedDataParallel, patch: pytest.MonkeyPatch) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of what else is imported with it
        from torch.distributed.optim import _apply_optimizer_in_backward

    _apply_optimizer_in_backward(torch.optim.SGD, wrapper.module.parameters(), {"lr": 0.1})


OBSTACLES = [
    *(
        pytest.param(without(name), f"DistributedDataParallel has no {name}", True, id=name)
        for name in (
            *("_build_params_for_reducer", "_build_debug_param_to_name_mapping"),
            *("_ddp_init_helper", "_set_static_graph", "_comm_hooks"),
            *("_assign_modules_buffers", "parameters_to_ignore"),
        )
    ),
    pytest.param(another_helper, "makes its reducer in another way", True, id="signature"),
    pytest.param(another_reducer, "cannot be taken off the parameters", True, id="reducer"),
    pytest.param(a_python_reducer, "optimize_ddp is 'python_reducer'", False, id="python"),
    pytest.param(an_optimizer_in_backward, "runs in the backward pass", False, id="optimizer"),
]


@pytest.mark.usefixtures("by_itself")
@pytest.mark.parametrize(("make", "said", "replaceable"), OBSTACLES)
def test_what_stands_in_the_way_is_said_before_anything_freezes(
    make: Any, said: str, replaceable: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    wrapper = DistributedDataParallel(small_run.plain_net())
    assert _reducer.obstacle(wrapper) is None
    freezer = Freezer(split_layers(wrapper.module))
    make(wrapper, monkeypatch)
    assert said in str(_reducer.obstacle(wrapper))
    with pytest.raises(DistributedError) as refused:
        freezer.set_depth(1)
    assert said in str(refused.value)
    assert ("follow(replace=...)" in str(refused.value)) is replaceable
    assert freezer.depth == 0
    assert all(p.requires_grad for p in wrapper.parameters())
    freezer.follow(replace=lambda new: None)
    if not replaceable:  # a new wrapper would be no better
        with pytest.raises(DistributedError, match="Make it without that"):
            freezer.set_depth(1)
        assert freezer.depth == 0


@pytest.mark.usefixtures("by_itself")
def test_an_exchange_that_is_put_off_is_refused() -> None:
    model = small_run.plain_net()
    late = [(name, p) for name, p in model.named_parameters() if name.startswith("3.")]
    wrapper = DistributedDataParallel(
        model, delay_all_reduce_named_params=late, param_to_hook_all_reduce=model[3].weight
    )
    freezer = Freezer(split_layers(model))
    with pytest.raises(DistributedError, match=r"made with delay_all_reduce_named_params=\.\.\."):
        freezer.set_depth(1)
    assert "delay_all_reduce" in str(_reducer.obstacle(wrapper))
    assert freezer.depth == 0


@pytest.mark.usefixtures("by_itself")
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"bucket_cap_mb": 0.25},
        {"bucket_cap_mb": 3},
        pytest.param(
            {"bucket_cap_mb_list": [0.25, 1.5]},
            marks=pytest.mark.skipif(
                "bucket_cap_mb_list" not in inspect.signature(DistributedDataParallel).parameters,
                reason="this PyTorch's DistributedDataParallel has one cap for all buckets",
            ),
        ),
    ],
)
def test_a_new_wrapper_has_the_buckets_of_the_old_one(options: dict[str, Any]) -> None:
    old = DistributedDataParallel(small_run.plain_net(), **options)
    new = wrappers.rewrap(old)
    for name in ("bucket_bytes_cap", "bucket_bytes_cap_list", "bucket_bytes_cap_default"):
        assert getattr(new, name, None) == getattr(old, name, None)
    assert (new.bucket_bytes_cap == 25 * 1024 * 1024) is (options == {})


@pytest.mark.usefixtures("by_itself")
@pytest.mark.parametrize("kind", [DistributedDataParallel, Other])
def test_a_new_wrapper_is_of_the_class_of_the_old_one(kind: type[DistributedDataParallel]) -> None:
    new = wrappers.rewrap(kind(small_run.plain_net(), gradient_as_bucket_view=True))
    assert type(new) is kind
    assert new.gradient_as_bucket_view


@pytest.mark.usefixtures("by_itself")
@pytest.mark.parametrize(
    ("kind", "why"),
    [(Named, "it has name"), (Fixed, "got an unexpected keyword argument 'device_ids'")],
)
def test_a_class_whose_arguments_are_not_known_is_refused_before_anything_freezes(
    kind: type[DistributedDataParallel], why: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    wrapper = kind(small_run.plain_net())
    message = (
        f"a new {kind.__name__} cannot be made with the arguments of DistributedDataParallel: "
        f"{why}. Make new wrappers yourself, or wrap the model in DistributedDataParallel."
    )
    with pytest.raises(DistributedError) as refused:
        wrappers.rewrap(wrapper)
    assert str(refused.value) == message
    freezer = Freezer(split_layers(wrapper.module))
    freezer.set_depth(1)  # in place it can follow
    assert wrappers.reduced_elements(wrapper) == live(1)
    another_reducer(wrapper, monkeypatch)
    freezer.follow(replace=lambda new: None)
    with pytest.raises(DistributedError) as refused:
        freezer.set_depth(2)
    assert str(refused.value) == message
    assert freezer.depth == 1


@pytest.mark.gpu
@pytest.mark.parametrize("sharded", [False, True])
def test_on_a_gpu(alone: dict[str, Any], sharded: bool) -> None:
    """NCCL with one process: the reducer follows, gradients are those of the plain run."""
    from torch.distributed.fsdp import fully_shard

    dist.init_process_group("nccl", store=dist.HashStore(), rank=0, world_size=1)
    try:
        model: Any = small_run.plain_net().cuda()
        if sharded:
            for layer in model:
                fully_shard(layer)
            run = fully_shard(model)
        else:
            run = DistributedDataParallel(model, device_ids=[0])
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
        scheduler = FreezeOut(optimizer, model, STEPS, schedule=small_run.SCHEDULE)
        for step in range(STEPS):
            x, y = (part.cuda() for part in small_run.batch(step))
            nn.functional.cross_entropy(run(x), y).backward()
            optimizer.step()
            optimizer.zero_grad()
            scheduler.step()
            assert scheduler.frozen == DEPTHS[step]
            full = [getattr(p, "full_tensor", lambda p=p: p)().cpu() for p in model.parameters()]
            torch.testing.assert_close(
                small_run.flat(full), alone["weights"][step], rtol=1e-3, atol=1e-4
            )
    finally:
        dist.destroy_process_group()
