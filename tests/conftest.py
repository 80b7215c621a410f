"""Settings of the whole test run."""

import os
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, settings

for part in Path(__file__).parent.iterdir():
    if part.stem != "conftest" and not part.name.startswith("_"):
        pytest.register_assert_rewrite(f"{__package__}.{part.stem}")  # helpers assert too


# The same examples every time, and none that fails because the machine is busy.
settings.register_profile(
    "freezeout", derandomize=True, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("freezeout")


def pytest_configure(config):
    if hasattr(config.option, "loadscopereorder"):
        config.option.loadscopereorder = False  # it puts the files with the most tests first


def pytest_collection_modifyitems(items):
    """Puts the longest files first: where workers share them, none is left alone at the end."""
    long = {item.path for item in items if item.get_closest_marker("multiprocess")}
    items.sort(key=lambda item: item.path not in long)


# Tiny tensors gain nothing from threads, and lose much where two runs share two cores.
torch.set_num_threads(1)
os.environ["OMP_NUM_THREADS"] = "1"  # for the processes that tests start
