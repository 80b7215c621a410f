"""Whether a launcher such as ``torchrun`` started this process as one of several."""

from __future__ import annotations

import os

__all__ = ["is_another", "is_launched"]


def is_launched() -> bool:
    """Return whether this process is one of several."""
    size = os.environ.get("WORLD_SIZE", "1")
    return size.isdecimal() and int(size) > 1


def is_another() -> bool:
    """Return whether it is one of several, and not the first one on its machine."""
    local = os.environ.get("LOCAL_RANK", "")
    return is_launched() and local.isdecimal() and 0 < int(local) < int(os.environ["WORLD_SIZE"])
