"""Whether a launcher such as ``torchrun`` started this process as one of several."""

from __future__ import annotations

import os

__all__ = ["is_another", "is_launched"]


def is_launched() -> bool:
    """Return whether this process is one of several."""
    size = os.environ.get("WORLD_SIZE", "1")
    return size.isdecimal() and size.lstrip("0") not in ("", "1")


def is_another() -> bool:
    """Return whether it is one of several, and not the first one on its machine."""
    local, size = os.environ.get("LOCAL_RANK", ""), os.environ.get("WORLD_SIZE", "1")
    if not is_launched() or not local.isdecimal() or len(local + size) > _DIGITS:
        return False
    return 0 < int(local) < int(size)


_DIGITS = 20  # of both; Python reads no number of thousands
