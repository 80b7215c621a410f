"""Everything around a model that must follow its frozen prefix, in every process alike.

A `Freezer` uses it by itself: it finds the ``DistributedDataParallel`` around its model and the
modules that ``fully_shard`` was applied to, makes sure that all processes freeze alike, and brings
these wrappers in line with every freeze.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeAlias

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from freezeout.errors import DistributedError, check_number
from freezeout.layers import modules_in, named_parameters
from freezeout.wrappers.agreement import Agreement, is_joined
from freezeout.wrappers.ddp import (
    broadcasts_buffers,
    exchanged,
    ignore_buffers,
    obstacle,
    rebuild,
    rewrap,
    rewrap_obstacle,
    silence,
)
from freezeout.wrappers.discovery import wrappers_of
from freezeout.wrappers.fsdp import Sharded, reshard

__all__ = ["Companions", "Replace"]

Replace: TypeAlias = Callable[[DistributedDataParallel], None]
"""Takes a new wrapper, to be used in place of the old one from now on."""


class Companions:
    """The wrappers around a model that must follow its frozen prefix, in every process alike.

    Args:
        model: The model, without wrappers.
    """

    def __init__(self, model: nn.Module) -> None:
        self._model = model
        self._replace: Replace | None = None
        self._sharded = Sharded(model)
        self._agreement: Agreement | None = None
        self._timeout: float | None = None
        self._found: list[DistributedDataParallel] | None = None  # from `prepare` to `settle`
        self._frozen: set[int] = set()  # modules, as of the last `settle`

    def follow(
        self,
        *,
        replace: Replace | None = None,
        keep_unsharded: bool | None = None,
        timeout: float | None = None,
    ) -> None:
        """Set how wrappers follow; see `Freezer.follow`."""
        if timeout is not None:
            hint = "It is how many seconds a process waits for the others before a freeze."
            check_number("timeout", timeout, hint, above=0.0)
            self._timeout = timeout
        if replace is not None:
            self._replace = replace
        if keep_unsharded is not None:
            self._sharded.keep_unsharded = keep_unsharded

    def prepare(self, decision: str, frozen: Iterable[nn.Module]) -> None:
        """Make sure that all processes agree and every wrapper can follow, before anything changes.

        Args:
            decision: What is about to be done, in words; the same in every process.
            frozen: All modules that will be frozen then.

        Raises:
            DistributedError: If processes disagree, or a wrapper cannot follow.
        """
        if is_joined():
            wrappers = wrappers_of(self._model)
            sent = self._to_send(wrappers, frozen)
            groups = {ranks: len(buffers) for ranks, (_, buffers) in sent.items()}
            if self._sharded:
                groups.setdefault(self._sharded.ranks(), 0)
            for ranks in sorted(groups):
                beside = f" and send {groups[ranks]} buffers" if groups[ranks] else ""
                self._agree().check(decision + beside, ranks)
            for wrapper in wrappers:
                self._check(wrapper)
            self._found = wrappers
        if self._sharded:
            reshard(self._model)

    def settle(self, frozen: Iterable[nn.Module]) -> None:
        """Bring every wrapper in line after a freeze or unfreeze. Repeating it does nothing.

        Buffers of what has frozen are broadcast once more, because a process other than rank 0 has
        updated its statistics with its own batch since the last time.

        Args:
            frozen: All modules that are frozen now.
        """
        if self._sharded:
            self._sharded.settle()
        modules = list(frozen)
        found, self._found = self._found, None
        wrappers = wrappers_of(self._model) if found is None else found
        if found is not None:
            for group, buffers in self._to_send(wrappers, modules).values():
                for buffer in buffers:
                    _send(buffer, group)
        self._frozen = {id(module) for module in modules}
        for wrapper in wrappers:
            self._bring_in_line(wrapper, modules)

    def _to_send(
        self, wrappers: Iterable[DistributedDataParallel], frozen: Iterable[nn.Module]
    ) -> dict[tuple[int, ...], tuple[Any, list[torch.Tensor]]]:
        """Return, per group of processes, the buffers to send before broadcasts omit them.

        They follow from the model rather than from the wrappers, because one process may still hold
        an old wrapper; nothing is sent twice.
        """
        new = {id(module) for module in frozen} - self._frozen
        buffers = [
            buffer
            for module in modules_in(self._model)
            if id(module) in new
            for buffer in module._buffers.values()
            if buffer is not None
        ]
        found: dict[tuple[int, ...], tuple[Any, list[torch.Tensor]]] = {}
        for wrapper in wrappers:
            ranks = tuple(dist.get_process_group_ranks(wrapper.process_group))
            _, sent = found.setdefault(ranks, (wrapper.process_group, []))
            if broadcasts_buffers(wrapper):
                inside = {id(buffer) for buffer in wrapper.module.buffers()}
                already = {id(buffer) for buffer in sent}
                sent += [b for b in buffers if id(b) in inside - already]
        return found

    def _check(self, wrapper: DistributedDataParallel) -> None:
        reason = obstacle(wrapper)
        if reason is None:
            return
        never = rewrap_obstacle(wrapper)
        if never is not None:
            raise DistributedError(never)
        if self._replace is None:
            raise DistributedError(
                f"DistributedDataParallel cannot follow a freeze in place: {reason}. Take a new "
                "wrapper after each freeze: scheduler.freezer.follow(replace=...) gets it and "
                "puts it where the training loop calls it."
            )

    def _bring_in_line(self, wrapper: DistributedDataParallel, frozen: Sequence[nn.Module]) -> None:
        if obstacle(wrapper) is None:
            ignore_buffers(wrapper, modules_in(self._model), frozen)
            rebuild(wrapper)
        elif self._replace is not None:
            ignore_buffers(wrapper, modules_in(self._model), frozen)
            if exchanged(wrapper):
                self._replace(rewrap(wrapper))
            else:
                silence(wrapper)

    def _agree(self) -> Agreement:
        if self._agreement is None:
            self._agreement = Agreement(name for name, _ in named_parameters(self._model))
        if self._timeout is not None:
            self._agreement.timeout = self._timeout
        return self._agreement


def _send(buffer: torch.Tensor, group: Any) -> None:
    """Give a buffer of the lowest rank of a group to all of it."""
    sent = buffer.contiguous()
    dist.broadcast(sent, dist.get_global_rank(group, 0), group)
    if sent is not buffer:
        buffer.copy_(sent)
