"""Make sure that all processes of a run freeze the same layers after the same step.

The lowest rank decides, the others check. They talk through the store of the process group, on the
host. No collective operation is involved, so processes that are out of step get a clear error
instead of hanging in an exchange of gradients, or corrupting one.
"""

from __future__ import annotations

import hashlib
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from datetime import timedelta
from typing import Any

import torch.distributed as dist

from freezeout.errors import DistributedError

__all__ = ["Agreement", "is_joined"]

_EVENTS: Counter[str] = Counter()
"""How often each subject was agreed on in this process; every process of a group counts alike."""

_GAVE_UP = "give up waiting for the others"


def is_joined() -> bool:
    """Return whether there is a process group, even of one process."""
    return dist.is_available() and dist.is_initialized()


class Agreement:
    """Compare decisions about one model across the processes that train it.

    Args:
        names: What the model is made of, the same in all of these processes.

    Attributes:
        timeout: Seconds to wait for the other processes, above 0. Longer than anything that one
            process does alone between two steps, such as an evaluation.
    """

    def __init__(self, names: Iterable[str]) -> None:
        self.timeout = 600.0
        digest = hashlib.blake2b("\n".join(names).encode(), digest_size=8)
        self._subject = digest.hexdigest()

    def check(self, decision: str, ranks: Sequence[int]) -> None:
        """Wait until all processes have come here with the same decision.

        Args:
            decision: What this process is about to do, in words.
            ranks: The processes that train the model, this one among them.

        Raises:
            DistributedError: In every process, if one of them decided otherwise or did not come.
        """
        store = _store() if len(ranks) > 1 else None
        if store is None:
            return
        first, *others = sorted(ranks)
        name = f"freezeout/{self._subject}/{'-'.join(map(str, (first, *others)))}"
        _EVENTS[name] += 1
        event = f"{name}/{_EVENTS[name]}"
        rank = dist.get_rank()
        if rank == first:
            message = self._collect(store, event, decision, first, others)
            try:
                _put(store, f"{event}/verdict", message or "ok")
            except _LostError:
                message = message or _lost(rank, decision)
        else:
            message = self._submit(store, event, decision, first)
        if message:
            raise DistributedError(message)

    def _submit(self, store: Any, event: str, decision: str, first: int) -> str:
        own = f"{event}/{dist.get_rank()}"
        try:
            _put(store, own, decision)
            answer = _get(store, f"{event}/verdict", self.timeout)
            if answer is None:
                _put(store, own, _GAVE_UP)  # if the first still comes, it must not go on alone
                return self._missing(dist.get_rank(), decision, first)
        except _LostError:
            return _lost(dist.get_rank(), decision)
        return "" if answer == "ok" else answer

    def _collect(
        self, store: Any, event: str, decision: str, first: int, others: Sequence[int]
    ) -> str:
        end = time.monotonic() + self.timeout
        for rank in others:
            try:
                other = _get(store, f"{event}/{rank}", max(0.05, end - time.monotonic()))
            except _LostError:
                return _lost(first, decision)
            if other is None:
                return self._missing(first, decision, rank)
            if other != decision:
                return (
                    f"rank {first} is to {decision}, but rank {rank} is to {other}. Nothing was "
                    f"changed. {_WHAT_TO_DO}"
                )
        return ""

    def _missing(self, rank: int, decision: str, other: int) -> str:
        return (
            f"rank {rank} is to {decision}, but rank {other} did not come to this point within "
            f"{self.timeout:g} s. {_WHAT_TO_DO}"
        )


_WHAT_TO_DO = (
    "All processes must freeze after the same optimizer update: give them the same total_steps and "
    "schedule, skip updates on all of them or on none, and freeze on none of them alone."
)


class _LostError(Exception):
    """The store is gone, and with it the process that kept it."""


def _lost(rank: int, decision: str) -> str:
    return (
        f"rank {rank} is to {decision}, but the process that keeps the store of the process group "
        "is gone. Look at what that process said last, and start all of them again."
    )


def _put(store: Any, key: str, value: str) -> None:
    try:
        store.set(key, value)
    except (RuntimeError, dist.DistError) as error:
        raise _LostError from error


def _get(store: Any, key: str, seconds: float) -> str | None:
    """Return what a process put into the store; ``None`` if it did not come in time."""
    begun = time.monotonic()
    try:
        store.wait([key], timedelta(seconds=seconds))
    except (RuntimeError, dist.DistError) as error:  # a timeout's type depends on the store
        if time.monotonic() - begun < seconds / 2:
            raise _LostError from error
        return None
    try:
        value: bytes = store.get(key)
    except (RuntimeError, dist.DistError) as error:
        raise _LostError from error
    return value.decode()


def _store() -> Any:
    """Return the store of the default process group; ``None`` in a PyTorch that hides it."""
    try:
        return dist.distributed_c10d._get_default_store()
    except (AttributeError, ValueError):
        return None
