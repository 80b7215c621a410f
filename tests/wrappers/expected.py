"""What every run of `parallel_jobs` must come to, however it is split between processes."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from tests.wrappers.small_run import STEPS

sharding = pytest.mark.skipif(
    not hasattr(torch.cpu.Stream, "record_event"),
    reason="this PyTorch's fully_shard needs a GPU",
)

BLOCKS = [6 * 8 + 8 + 16, 8 * 8 + 8 + 16, 8 * 8 + 8 + 16]
HEAD = 8 * 3 + 3
DEPTHS = [0, 0, 1, 1, 1, 2, 2, 3, 3, 3]
"""After each of ten steps."""


def live(depth: int) -> int:
    return sum(BLOCKS[depth:]) + HEAD


EXCHANGED = [live(depth) for depth in [0, *DEPTHS[:-1]]]


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
