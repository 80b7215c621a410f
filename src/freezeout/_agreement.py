"""All processes of a training run freeze the same layers after the same step.

Rank 0 decides, the others check. They talk through the store of the process group, on the host: no
collective operation is involved, so that processes that are out of step meet with a clear error
instead of hanging in, or corrupting, an exchange of gradients.
"""

from __future__ import annotations

import datetime
from itertools import count
from typing import Any

import torch.distributed as dist

from freezeout.errors import DistributedError

__all__ = ["Agreement", "is_joined"]

_SERIAL = count()


def is_joined() -> bool:
    """Whether there is a process group, be it of one process."""
    return dist.is_available() and dist.is_initialized()


class Agreement:
    """Compares a decision across processes.

    Every process makes its agreements in the same order, as it makes its models.

    Args:
        timeout: Seconds to wait for the other processes, above 0. Longer than anything that one
            process does alone between two steps, such as an evaluation.
    """

    def __init__(self, timeout: float = 600.0) -> None:
        self.timeout = timeout
        self._name = f"freezeout/{next(_SERIAL)}"
        self._events = 0

    def check(self, decision: str) -> None:
        """Returns once all processes have come here with the same decision.

        Args:
            decision: What this process is about to do, in words.

        Raises:
            DistributedError: In every process, if one of them decided otherwise or did not come.
        """
        store = _store() if dist.get_world_size() > 1 else None
        if store is None:
            return
        self._events += 1
        event = f"{self._name}/{self._events}"
        rank, size = dist.get_rank(), dist.get_world_size()
        verdict = f"{event}/verdict"
        if rank == 0:
            message = self._collect(store, event, decision, size)
            store.set(verdict, message or "ok")
        else:
            store.set(f"{event}/{rank}", decision)
            answer = self._get(store, verdict)
            if answer is None:
                message = (
                    f"rank {rank} is to {decision}, but rank 0 did not come to this point within "
                    f"{self.timeout:g} s. {_WHAT_TO_DO}"
                )
            else:
                message = "" if answer == "ok" else answer
        if message:
            raise DistributedError(message)

    def _collect(self, store: Any, event: str, decision: str, size: int) -> str:
        for rank in range(1, size):
            other = self._get(store, f"{event}/{rank}")
            if other is None:
                return (
                    f"rank 0 is to {decision}, but rank {rank} did not come to this point within "
                    f"{self.timeout:g} s. {_WHAT_TO_DO}"
                )
            if other != decision:
                return (
                    f"rank 0 is to {decision}, but rank {rank} is to {other}. Nothing was changed. "
                    f"{_WHAT_TO_DO}"
                )
        return ""

    def _get(self, store: Any, key: str) -> str | None:
        try:
            store.wait([key], datetime.timedelta(seconds=self.timeout))
        except (RuntimeError, dist.DistError):  # a timeout; its type depends on the store
            return None
        value: bytes = store.get(key)
        return value.decode()


_WHAT_TO_DO = (
    "All processes must freeze after the same optimizer update: give them the same total_steps and "
    "schedule, and skip updates on all of them or on none."
)


def _store() -> Any:
    """The store of the default process group, or ``None`` in a torch that does not give it away."""
    try:
        return dist.distributed_c10d._get_default_store()
    except (AttributeError, ValueError):
        return None
