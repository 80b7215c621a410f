"""Starting the processes of a data-parallel run, and counting what they exchange."""

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

ROOT = Path(__file__).parents[3]


def launch(script: str, folder: Path, *, processes: int = 2) -> list[dict[str, Any]]:
    """Runs a module of this package in processes that find each other as those of torchrun do.

    Returns:
        What each of them has handed to `report`.
    """
    # As torchrun does: nobody else can take the port before the processes meet there.
    store = dist.TCPStore("localhost", 0, is_master=True, wait_for_workers=False)
    running = [
        subprocess.Popen(
            [sys.executable, "-W", "ignore", "-m", f"{__package__}.{script}", folder],
            env={
                **os.environ,
                "RANK": str(rank),
                "LOCAL_RANK": str(rank),
                "WORLD_SIZE": str(processes),
                "LOCAL_WORLD_SIZE": str(processes),
                "GROUP_RANK": "0",
                "MASTER_ADDR": "localhost",
                "MASTER_PORT": str(store.port),
                "TORCHELASTIC_USE_AGENT_STORE": "True",
                "TORCHELASTIC_RUN_ID": "test",
                "ACCELERATE_USE_CPU": "true",
                "OMP_NUM_THREADS": "1",
                "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]),
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in range(processes)
    ]
    try:
        said = [process.communicate(timeout=600)[0] for process in running]
    finally:
        for process in running:
            process.kill()
    assert [process.returncode for process in running] == [0] * processes, "\n".join(said)
    return [json.loads((folder / f"rank{rank}.json").read_text()) for rank in range(processes)]


def report(folder: Path, whole: nn.Module, again: nn.Module, **found: Any) -> None:
    """Leaves numbers for the test, and the weights after a whole run and a resumed one.

    It is the last thing that a process does: the group is left first, because one that is still
    there when Python ends has threads running, and the process may abort.
    """
    rank = int(os.environ["RANK"])
    torch.save([whole.state_dict(), again.state_dict()], folder / f"rank{rank}.pt")
    (folder / f"rank{rank}.json").write_text(json.dumps(found))
    dist.destroy_process_group()


def check_weights(folder: Path, expected: Mapping[str, torch.Tensor], atol: float) -> None:
    """All processes end alike, whole or resumed, and as one process does, up to rounding."""
    first, *others = (w for file in folder.glob("rank*.pt") for w in torch.load(file))
    assert len(others) == 3
    for name, weight in expected.items():
        assert all(torch.equal(first[name], other[name]) for other in others), name
        torch.testing.assert_close(first[name], weight, rtol=0, atol=atol)


class Exchange:
    """Counts the gradient elements that a wrapper exchanges, step by step.

    Attributes:
        steps: Elements per step.
    """

    def __init__(self) -> None:
        self.steps: list[int] = []
        self._now = 0

    def watch(self, wrapper: nn.Module) -> None:
        assert isinstance(wrapper, DistributedDataParallel)
        wrapper.register_comm_hook(None, self._hook)

    def end_step(self) -> None:
        self.steps.append(self._now)
        self._now = 0

    def _hook(self, state: object, bucket: dist.GradBucket) -> torch.futures.Future[torch.Tensor]:
        self._now += bucket.buffer().numel()
        mean = bucket.buffer().div_(dist.get_world_size())
        return dist.all_reduce(mean, async_op=True).get_future().then(lambda f: f.value()[0])
