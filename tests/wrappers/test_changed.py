"""Models that change after the cut, behind wrappers."""

from __future__ import annotations

import pytest
import torch

from tests.wrappers import changed_jobs as jobs
from tests.wrappers.expected import sharding
from tests.wrappers.ranks import Ranks

pytestmark = pytest.mark.multiprocess


def test_norms_that_were_replaced_leave_the_broadcasts_with_their_layer(pair: Ranks) -> None:
    for run in pair.run(jobs.norms_replaced):
        assert run["verified"]
        assert run["agree"]
        assert not [name for name in run["moved"] if name.startswith("0.")]
        assert [name for name in run["moved"] if name.startswith("1.1.running")]
        assert run["ignored"] == [
            f"0.1.{name}" for name in ("num_batches_tracked", "running_mean", "running_var")
        ]


def test_parts_that_return_something_else_keep_their_flag_in_every_process(pair: Ranks) -> None:
    runs = pair.run(jobs.auxiliary_outputs)
    assert torch.equal(runs[0]["weights"], runs[1]["weights"])
    for run in runs:
        assert run["frozen"] >= 2
        assert run["kept"] == [True, True, True]
        assert run["norms"][0] is False
        assert run["norms"][2] is (run["frozen"] < 4)


@sharding
@pytest.mark.parametrize("frozen_before", [0, 1])
def test_parameters_that_are_sharded_after_the_cut(pair: Ranks, frozen_before: int) -> None:
    for run in pair.run(jobs.sharded_after_the_cut, frozen_before):
        assert run["verified"]
        assert {name[0] for name in run["learning"]} == {"2", "3"}
        assert run["with_gradient"] == run["learning"]
        assert {name[0] for name in run["later"]} == {"1", "2", "3"}
        assert run["in the end"]
