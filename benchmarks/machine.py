"""What a benchmark ran on."""

from __future__ import annotations

import os
import platform
from pathlib import Path
from typing import Any

import torch

import freezeout

__all__ = ["hardware", "load", "versions"]


def hardware(device: str) -> dict[str, Any]:
    """Names of the processor and, where it is used, of the GPU."""
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    found: dict[str, Any] = {
        "cpu": _cpu_name(),
        "cores": usable,
        "threads": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name() if device == "cuda" else None,
    }
    return found


def versions(device: str) -> dict[str, str | None]:
    return {
        "python": platform.python_version(),
        "torch": str(torch.__version__),
        "freezeout": freezeout.__version__,
        "cuda": torch.version.cuda if device == "cuda" else None,
        "cudnn": str(torch.backends.cudnn.version()) if device == "cuda" else None,
        "system": f"{platform.system()} {platform.machine()}",
    }


def load() -> float | None:
    return round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None


def _cpu_name() -> str:
    information = Path("/proc/cpuinfo")
    if information.exists():
        for line in information.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
