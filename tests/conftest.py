"""Settings of the whole test run."""

import os

import pytest
import torch

for helper in ("contracts", "networks", "records", "runs"):
    pytest.register_assert_rewrite(helper)

# Tiny tensors gain nothing from threads, and lose much where two runs share two cores.
torch.set_num_threads(1)
os.environ["OMP_NUM_THREADS"] = "1"  # for the processes that tests start
