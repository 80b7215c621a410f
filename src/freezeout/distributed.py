"""Training in several processes: what must change together with the frozen prefix.

A `Freezer` does all of it by itself. It finds the ``DistributedDataParallel`` around its model and
the modules that ``fully_shard`` was applied to, sees to it that all processes freeze alike, and
brings these wrappers in line with every freeze. What a user may want to call stands here too.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, TypeAlias

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from freezeout._agreement import Agreement, is_joined
from freezeout._reducer import (
    broadcasts_buffers,
    exchanged,
    ignore_buffers,
    is_retired,
    obstacle,
    rebuild,
    reduced_elements,
    rewrap,
    rewrap_obstacle,
    silence,
)
from freezeout._sharded import Sharded, gathered_forms, is_sharded, reshard
from freezeout.errors import DistributedError

__all__ = [
    "Companions",
    "Replace",
    "gathered_forms",
    "is_sharded",
    "reduced_elements",
    "reshard",
    "rewrap",
    "wrappers_of",
]

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
        """Makes wrappers follow; see `Freezer.follow`."""
        if timeout is not None and not timeout > 0:
            raise ValueError(
                f"timeout must be above 0, got {timeout!r}. It is how many seconds a process waits "
                "for the others before a freeze."
            )
        if replace is not None:
            self._replace = replace
        if keep_unsharded is not None:
            self._sharded.keep_unsharded = keep_unsharded
        if timeout is not None:
            self._timeout = timeout

    def prepare(self, decision: str, frozen: Iterable[nn.Module]) -> None:
        """Before anything changes: all processes agree, and every wrapper will be able to follow.

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
        """After a freeze or unfreeze: brings every wrapper in line. Repeating it does nothing.

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
        """For each group of processes what it must have alike before it is left out of broadcasts.

        It follows from the model rather than from the wrappers, of which one process may still hold
        an old one; nothing is sent twice.
        """
        new = {id(module) for module in frozen} - self._frozen
        buffers = [
            buffer
            for module in self._model.modules()
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
            ignore_buffers(wrapper, self._model.modules(), frozen)
            rebuild(wrapper)
        elif self._replace is not None:
            ignore_buffers(wrapper, self._model.modules(), frozen)
            if exchanged(wrapper):
                self._replace(rewrap(wrapper))
            else:
                silence(wrapper)

    def _agree(self) -> Agreement:
        if self._agreement is None:
            self._agreement = Agreement(name for name, _ in self._model.named_parameters())
        if self._timeout is not None:
            self._agreement.timeout = self._timeout
        return self._agreement


def wrappers_of(model: nn.Module) -> list[DistributedDataParallel]:
    """Every live ``DistributedDataParallel`` that exchanges gradients of a model.

    Trainers keep their wrapper to themselves, and one may be made at any time, around the model,
    around a part of it or around more. To miss one would be silently wrong: the step after a freeze
    would use gradients that were not averaged. So all wrappers of this process are looked at.

    Args:
        model: The model, without wrappers.

    Returns:
        Them, in the order of their first parameters in the model; not those that `rewrap` replaced.
    """
    if not is_joined():
        return []
    found = _around(model)
    if len(found) > 1:  # one of them may be a leftover that another process no longer has
        del found
        gc.collect()
        found = _around(model)
    return found


def _around(model: nn.Module) -> list[DistributedDataParallel]:
    place = {id(p): i for i, p in enumerate(model.parameters())}
    found = []
    for wrapper in _all_wrappers():
        shared = [place[id(p)] for p in _parameters(wrapper) if id(p) in place]
        if shared and not is_retired(wrapper) and _is_alive(wrapper):
            found.append((min(shared), len(shared), wrapper))
    found.sort(key=lambda entry: entry[:2])
    return [wrapper for _, _, wrapper in found]


def _send(buffer: torch.Tensor, group: Any) -> None:
    """Gives a buffer of the lowest rank of a group to all of it."""
    sent = buffer.contiguous()
    dist.broadcast(sent, dist.get_global_rank(group, 0), group)
    if sent is not buffer:
        buffer.copy_(sent)


def _all_wrappers() -> list[DistributedDataParallel]:
    """Every wrapper in this process: the objects that refer to their own class."""
    kinds: list[type] = [DistributedDataParallel]
    for kind in kinds:
        kinds += kind.__subclasses__()
    hidden = gc.get_freeze_count() > 0  # gc.freeze() hides what is there from the search
    if hidden:
        gc.unfreeze()
    try:
        return [o for o in gc.get_referrers(*kinds) if type(o) in kinds]
    finally:
        if hidden:
            gc.freeze()


def _parameters(wrapper: DistributedDataParallel) -> Iterator[nn.Parameter]:
    inner = wrapper.__dict__.get("_modules", {}).get("module")  # it may be half made
    return inner.parameters() if isinstance(inner, nn.Module) else iter(())


def _is_alive(wrapper: DistributedDataParallel) -> bool:
    """Whether the processes of a wrapper are still joined; a leftover may outlive them."""
    try:
        return bool(dist.get_process_group_ranks(wrapper.process_group))
    except (AttributeError, KeyError, ValueError, RuntimeError):
        return False
