"""Settings of the whole test run."""

import os

import torch

# Tiny tensors gain nothing from threads, and lose much where two runs share two cores.
torch.set_num_threads(1)
os.environ["OMP_NUM_THREADS"] = "1"  # for the processes that tests start
