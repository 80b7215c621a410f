"""Streams whose reader may go away."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import IO

__all__ = ["outlive"]


@contextmanager
def outlive(stream: IO[str]) -> Iterator[None]:
    """Let what writes to a stream in this block fail without harm.

    If the output goes away or is full (a closed pipe, ``| head``), the stream leads nowhere from
    then on, so that neither a run nor Python's exit stumbles over it.
    """
    try:
        yield
    except OSError:
        with suppress(OSError, ValueError):  # no file behind it, as under a test
            target = stream.fileno()
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, target)
            os.close(nowhere)
