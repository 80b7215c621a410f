"""The processes that train one network together, seen from one of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
import torch.distributed as dist

from freezeout import errors
from freezeout.errors import DivergenceError, FreezeOutError, RunError

__all__ = ["ALONE", "Processes"]

T = TypeVar("T")


@dataclass(frozen=True)
class Processes:
    """Who this process is among those that train together, and how they talk.

    All talk is on the host, in the default process group, and all methods must be called by every
    process, in the same order. A process by itself talks to nobody and pays nothing.

    Attributes:
        rank: Number of this process, from 0. Rank 0 writes all files and all output.
        size: Number of processes.
        local_rank: Number of this process on its machine, from 0; it takes that GPU.

    Example:
        >>> Processes().gather([1.0, 2.0])
        [[1.0, 2.0]]
    """

    rank: int = 0
    size: int = 1
    local_rank: int = 0

    @property
    def main(self) -> bool:
        """Whether this is the process that writes."""
        return self.rank == 0

    @property
    def part(self) -> tuple[int, int]:
        """Which part of every batch is this process's: number and count."""
        return self.rank, self.size

    def gather(self, values: Sequence[float]) -> list[list[float]]:
        """Return the numbers of all processes, by rank; each must give equally many."""
        if self.size == 1:
            return [list(values)]
        own = torch.tensor(values, dtype=torch.float64)
        found = [torch.empty_like(own) for _ in range(self.size)]
        dist.all_gather(found, own)
        return [row.tolist() for row in found]

    def gather_objects(self, value: T) -> list[T]:
        """Return a value of every process, by rank; it must pickle."""
        if self.size == 1:
            return [value]
        found: list[Any] = [None] * self.size
        dist.all_gather_object(found, value)
        return found

    def any(self, *wishes: bool) -> tuple[bool, ...]:
        """Return for each wish whether any process has it."""
        if self.size == 1 or not wishes:
            return wishes
        return tuple(any(column) for column in zip(*self.gather(wishes), strict=True))

    def meet(self) -> None:
        """Wait until all processes are here."""
        self.gather([0.0])

    def from_main(self, action: Callable[[], T]) -> T:
        """Return what an action gives that rank 0 alone carries out; it must pickle.

        Raises:
            FreezeOutError: In every process, if the action raises one.
        """
        if self.size == 1:
            return action()
        if not self.main:
            answer: list[Any] = [None]
            dist.broadcast_object_list(answer, src=0)
            failure, value = answer[0]
            if failure is not None:
                raise _revived(*failure)
            given: T = value
            return given
        try:
            result = action()
        except FreezeOutError as error:
            dist.broadcast_object_list([((type(error).__name__, str(error)), None)], src=0)
            raise
        dist.broadcast_object_list([(None, result)], src=0)
        return result

    def in_turn(self, action: Callable[[], T]) -> T:
        """Return what an action gives here; the first process of every machine goes first.

        For what the first one leaves on disk for the others, such as data that it fetches.

        Raises:
            FreezeOutError: In every process, if the action raises one in any of them.
        """
        if self.size == 1:
            return action()
        results: list[T] = []
        for turn in (True, False):
            failure: FreezeOutError | None = None
            if (self.local_rank == 0) is turn:
                try:
                    results.append(action())
                except FreezeOutError as error:
                    failure = error
            told = (type(failure).__name__, str(failure)) if failure is not None else None
            found = [other for other in self.gather_objects(told) if other is not None]
            if found:
                raise failure or _revived(*found[0])
        return results[0]


ALONE: Processes = Processes()
"""A process that trains by itself."""


def _revived(kind: str, message: str) -> FreezeOutError:
    found: Any = getattr(errors, kind, RunError)
    made: FreezeOutError = RunError(message) if found is DivergenceError else found(message)
    return made
