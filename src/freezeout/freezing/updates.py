"""Which ends of ``optimizer.step`` are the end of an update, and which happen within one."""

from __future__ import annotations

import sys
from types import FrameType

from torch.optim import Optimizer

__all__ = ["within_step"]


def within_step(optimizer: Optimizer) -> bool:
    """Return whether the step that ends now is part of another one of the same optimizer.

    PyTorch runs the hooks of a step for each class that defines ``step``: if a subclass calls
    ``super().step()``, they run twice in one update. To be asked in a hook.

    Args:
        optimizer: The one that the hook was given.
    """
    frame: FrameType | None = sys._getframe(2)  # what PyTorch put around this ``step``
    if frame is None:
        return False
    code, frame = frame.f_code, frame.f_back
    while frame is not None:
        if frame.f_code is code and _steps(frame, optimizer):
            return True
        frame = frame.f_back
    return False


def _steps(frame: FrameType, optimizer: Optimizer) -> bool:
    given = frame.f_locals
    return given.get("self") is optimizer or optimizer in given.get("args", ())[:1]
