"""What every measurement needs: a subject that is what it should be, and a clean clock."""

from __future__ import annotations

import torch

__all__ = ["must_be", "wait_for"]


def must_be(condition: bool, what: str) -> None:
    """Stop a measurement that would not measure what it says.

    Raises:
        RuntimeError: If the condition does not hold.
    """
    if not condition:
        raise RuntimeError(f"the measurement is not valid: {what}.")


def wait_for(device: torch.device) -> None:
    """Wait until a device has done all work that it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
