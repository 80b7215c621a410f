"""Exact counts of what a training step sends to other processes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import torch.distributed as dist
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel
from torch.utils._python_dispatch import TorchDispatchMode

__all__ = ["Sent", "count_sent", "reduced_by_hook"]


@dataclass(frozen=True)
class Sent:
    """What one process hands to collective operations in a step.

    Attributes:
        reduced: Elements given to all-reduce and reduce-scatter.
        broadcast: Elements broadcast: with DistributedDataParallel, buffers.
        gathers: All-gather operations.
        gathered: Elements they return.
    """

    reduced: int
    broadcast: int
    gathers: int
    gathered: int

    def as_dict(self) -> dict[str, int]:
        """Return the counts for a file."""
        return asdict(self)


class _Watch(TorchDispatchMode):
    """See every collective operation, also those that C++ code starts."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.calls: dict[str, int] = {}
        self.elements: dict[str, int] = {}

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        if func.namespace == "c10d":
            name = func.overloadpacket.__name__
            self.calls[name] = self.calls.get(name, 0) + 1
            given = args[1] if name.startswith("_reduce_scatter") else args[0]
            self.elements[name] = self.elements.get(name, 0) + _elements(given)
        return func(*args, **(kwargs or {}))


def _elements(given: Any) -> int:
    if isinstance(given, Tensor):
        return given.numel()
    return sum(_elements(one) for one in given) if isinstance(given, (list, tuple)) else 0


def count_sent(step: Callable[[], object]) -> Sent:
    """Take one step and count what it sends."""
    with _Watch() as seen:
        step()

    def total(counts: dict[str, int], word: str) -> int:
        return sum(count for name, count in counts.items() if word in name)

    return Sent(
        reduced=total(seen.elements, "allreduce") + total(seen.elements, "reduce_scatter"),
        broadcast=total(seen.elements, "broadcast"),
        gathers=total(seen.calls, "allgather"),
        gathered=total(seen.elements, "allgather"),
    )


def reduced_by_hook(wrapper: DistributedDataParallel, step: Callable[[], object]) -> int:
    """Count the gradient elements that a wrapper exchanges in a step, by a communication hook.

    The hook stays, so this is the last thing to do with a wrapper.
    """
    seen = 0

    def hook(state: object, bucket: Any) -> Any:
        nonlocal seen
        buffer = bucket.buffer()
        seen += buffer.numel()
        work = dist.all_reduce(buffer.div_(dist.get_world_size()), async_op=True)
        return work.get_future().then(_first)

    hook.__annotations__.clear()  # PyTorch reads them, and knows no postponed ones
    wrapper.register_comm_hook(None, hook)
    step()
    return seen


def _first(done: Any) -> Any:
    return done.value()[0]
