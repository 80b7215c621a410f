"""GroupNorm on a CPU, channels-last, where its input needs no gradient: the process lives on."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch

from freezeout import Freezer, split_layers
from tests.freezing.group_norms import NORMS, net


def lives(case: str, *arguments: str) -> bool:
    """Return whether a process gets to the end of a case; fail on an ordinary error in it."""
    ran = subprocess.run(
        [sys.executable, "-m", "tests.freezing.group_norms", case, *arguments],
        capture_output=True,
        text=True,
        check=False,
    )
    assert "Traceback" not in ran.stderr, ran.stderr[-2000:]
    return ran.returncode == 0 and ran.stdout == "lived\n"


@pytest.mark.slow
def test_without_freezeout_this_pytorch_may_die():
    if lives("plain_torch"):
        pytest.skip("this PyTorch has no such fault")


@pytest.mark.slow
@pytest.mark.parametrize(
    "case",
    [
        "run_to_the_weights_of_the_reference",
        "run_behind_what_the_user_froze",
        "run_with_norms_put_in_after_the_freeze",
        "run_what_was_copied_loaded_or_thawed",
        "run_three_dimensions_and_compiled",
        "give_the_gradients_of_a_norm_whose_input_needs_one",
        "leave_second_derivatives_alone",
    ],
)
def test_the_process_lives_and_what_should_learns(case):
    assert lives(case)


@pytest.mark.slow
def test_a_frozen_model_loaded_in_another_process_learns_on(tmp_path):
    model = net(NORMS["module"])
    Freezer(split_layers(model)).set_depth(1)
    torch.save(model, tmp_path / "model.pt")
    assert lives("load_a_frozen_model", str(tmp_path / "model.pt"))
