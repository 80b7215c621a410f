"""How much memory a run needs at its peak."""

from __future__ import annotations

import torch

__all__ = ["MemoryMeter"]


class MemoryMeter:
    """Read the peak of memory since `start`.

    On a GPU that is the most that torch's allocator had handed out. On a CPU it is the largest
    resident set of the whole process, with the interpreter and the data in it, among those seen at
    each `note`. No system but Linux can forget an earlier peak, so the peak is looked for where a
    training step has it: after the backward pass, when gradients are there and the pages of the
    activations are not yet returned.

    Args:
        device: Where the training runs.
    """

    def __init__(self, device: torch.device) -> None:
        import psutil  # not above: the command line says in one line that it is missing

        self._device = device
        self._process = psutil.Process()
        self._most = 0

    def start(self) -> None:
        """Forget what was before."""
        self._most = 0
        if self._device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self._device)

    def note(self) -> None:
        """Look at the resident set, in about 10 microseconds; on a GPU there is no need to."""
        if self._device.type != "cuda":
            self._most = max(self._most, self._process.memory_info().rss)

    def peak(self) -> int:
        """Return the most bytes since `start`."""
        if self._device.type == "cuda":
            return torch.cuda.max_memory_allocated(self._device)
        self.note()
        return self._most
