"""How much memory a run needs at its peak."""

from __future__ import annotations

import sys
from pathlib import Path

import torch

__all__ = ["MemoryMeter"]

_STATUS = Path("/proc/self/status")
_RESET = Path("/proc/self/clear_refs")


class MemoryMeter:
    """Reads the peak of memory since it was last read.

    On a GPU that is what torch's allocator had handed out at most; on a CPU the largest resident
    set of the whole process, as Linux counts it, with the interpreter and the data in it. Other
    systems tell nothing here.

    Args:
        device: Where the training runs.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device

    def start(self) -> None:
        """Forgets what has been so far."""
        if self._device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self._device)
        elif sys.platform == "linux":
            try:
                _RESET.write_text("5")  # the peak of the resident set starts anew; see proc(5)
            except OSError:
                return  # a locked-down system: the peak is then that of the whole process so far

    def peak(self) -> int | None:
        """Most bytes since `start`; ``None`` where nothing tells."""
        if self._device.type == "cuda":
            return torch.cuda.max_memory_allocated(self._device)
        try:
            for line in _STATUS.read_text(encoding="ascii").splitlines():
                name, _, rest = line.partition(":")
                if name == "VmHWM":
                    return 1024 * int(rest.split()[0])
        except (OSError, ValueError, IndexError):
            return None
        return None
