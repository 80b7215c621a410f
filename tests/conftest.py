"""Settings of the whole test run."""

import os

import pytest
import torch

for helper in ("contracts", "networks", "records", "runs"):
    pytest.register_assert_rewrite(helper)

# Where two workers share the files, the longest come first, so that none is left alone at the end.
LONGEST = (
    *("test_experiments", "test_cli_compare", "test_ray", "test_torchrun", "test_company"),
    *("test_compiled", "test_cost", "test_cli", "test_benchmark_paper_gpu", "test_distributed"),
    *("test_sharded", "test_lightning", "test_own_runs", "test_benchmarks", "test_scheduler"),
    *("test_benchmarks_stacks", "test_comparison", "test_report_page", "test_transformers"),
    *("test_benchmark_prediction", "test_docs", "test_cli_plan", "test_cli_own", "test_layers"),
)


def pytest_configure(config):
    if hasattr(config.option, "loadscopereorder"):
        config.option.loadscopereorder = False  # it puts the files with the most tests first


def pytest_collection_modifyitems(items):
    place = {name: i for i, name in enumerate(LONGEST)}
    items.sort(key=lambda item: place.get(item.path.stem, len(place)))


# Tiny tensors gain nothing from threads, and lose much where two runs share two cores.
torch.set_num_threads(1)
os.environ["OMP_NUM_THREADS"] = "1"  # for the processes that tests start
