"""What a benchmark ran on."""

from __future__ import annotations

import datetime
import os
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

import freezeout

__all__ = ["about", "hardware", "load", "now", "place", "versions"]


def about(name: str, device: str, load_before: float | None, **known: Any) -> dict[str, Any]:
    """Return how a file of results begins: which benchmark, when, and on what.

    Args:
        name: The benchmark, as its file is called.
        device: Where it ran: ``"cpu"`` or ``"cuda"``.
        load_before: What `load` said when it began.
        known: Facts of the hardware that are other than this process would say.
    """
    return {
        "benchmark": name,
        "format": 1,
        "date": now(),
        "hardware": {
            **hardware(device),
            **known,
            "load": {"before": load_before, "after": load()},
        },
        "versions": versions(device),
    }


def now() -> str:
    """Return the time, to the second."""
    return datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")


def place(machine: Mapping[str, Any], software: Mapping[str, Any]) -> str:
    """Return in words what `hardware` and `versions` say."""
    where = machine["gpu"] or f"{machine['threads']} thread(s) of {machine['cores']} cores"
    return (
        f"({machine['cpu']}, {where})\n"
        f"torch {software['torch']}, freezeout {software['freezeout']}, "
        f"Python {software['python']}\n"
    )


def hardware(device: str) -> dict[str, Any]:
    """Return the names of the processor and, where it is used, of the GPU."""
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {
        "cpu": _cpu_name(),
        "cores": usable,
        "threads": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name() if device == "cuda" else None,
    }


def versions(device: str) -> dict[str, str | None]:
    """Return the versions of what a benchmark ran with."""
    return {
        "python": platform.python_version(),
        "torch": str(torch.__version__),
        "freezeout": freezeout.__version__,
        "cuda": torch.version.cuda if device == "cuda" else None,
        "cudnn": str(torch.backends.cudnn.version()) if device == "cuda" else None,
        "system": f"{platform.system()} {platform.machine()}",
    }


def load() -> float | None:
    """Return the load average of the last minute, where the system has one."""
    return round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None


def _cpu_name() -> str:
    information = Path("/proc/cpuinfo")
    if information.exists():
        for line in information.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
