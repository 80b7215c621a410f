"""Training in several processes: what must change together with the frozen prefix.

A `Freezer` does all of it by itself. It finds the ``DistributedDataParallel`` around its model and
the modules that ``fully_shard`` was applied to, sees to it that all processes freeze alike, and
brings these wrappers in line with every freeze. What a user may want to call stands here too.
"""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable, Iterable
from typing import TypeAlias

import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from freezeout._agreement import Agreement, is_joined
from freezeout._reducer import ignore_buffers, obstacle, rebuild, reduced_elements, rewrap
from freezeout._sharded import Sharded, is_sharded, reshard
from freezeout.errors import DistributedError

__all__ = ["Companions", "Replace", "is_sharded", "reduced_elements", "reshard", "rewrap"]

Replace: TypeAlias = Callable[[DistributedDataParallel], None]
"""Takes a new wrapper, to be used in place of the old one from now on."""


class Companions:
    """The wrappers around a model that must follow its frozen prefix, in every process alike.

    Args:
        model: The model, without wrappers.
    """

    def __init__(self, model: nn.Module) -> None:
        self._model = model
        self._wrappers: weakref.WeakSet[DistributedDataParallel] = weakref.WeakSet()
        self._replace: Replace | None = None
        self._sharded = Sharded(model)
        self._agreement: Agreement | None = None

    def follow(
        self,
        wrapper: nn.Module | None = None,
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
        if wrapper is not None:
            found = [m for m in wrapper.modules() if isinstance(m, DistributedDataParallel)]
            around = [w for w in found if _is_around(w, self._model)]
            if found and not around:
                raise ValueError(
                    f"the wrapper holds another model than the {type(self._model).__name__} "
                    "whose layers freeze. Pass the wrapper of the model that is trained."
                )
            self._wrappers.update(around)
        if replace is not None:
            self._replace = replace
        if keep_unsharded is not None:
            self._sharded.keep_unsharded = keep_unsharded
        if timeout is not None:
            self._agree().timeout = timeout

    def prepare(self, decision: str) -> None:
        """Before anything changes: all processes agree, and every wrapper will be able to follow.

        Args:
            decision: What is about to be done, in words; the same in every process.

        Raises:
            DistributedError: If processes disagree, or a wrapper cannot follow.
        """
        if is_joined():
            self._find()
            if self._wrappers or self._sharded:
                self._agree().check(decision)
            for wrapper in self._wrappers:
                reason = obstacle(wrapper)
                if reason is not None and self._replace is None:
                    raise DistributedError(
                        f"DistributedDataParallel cannot follow a freeze in place: {reason}. Take "
                        "a new wrapper after each freeze: scheduler.freezer.follow(model, "
                        "replace=...) gets it and puts it where the training loop calls it."
                    )
        if self._sharded:
            reshard(self._model)

    def settle(self, frozen: Iterable[nn.Module]) -> None:
        """After a freeze or unfreeze: brings every wrapper in line. Repeating it does nothing.

        Args:
            frozen: All modules that are frozen now.
        """
        if self._sharded:
            self._sharded.settle()
        if is_joined():
            self._find()
            modules = {id(module) for module in frozen}
            for wrapper in list(self._wrappers):
                self._bring_in_line(wrapper, modules)

    def _bring_in_line(self, wrapper: DistributedDataParallel, frozen: set[int]) -> None:
        if obstacle(wrapper) is None:
            ignore_buffers(wrapper, frozen)
            rebuild(wrapper)
        elif self._replace is not None:
            ignore_buffers(wrapper, frozen)
            new = rewrap(wrapper)
            self._wrappers.discard(wrapper)
            self._wrappers.add(new)
            self._replace(new)

    def _agree(self) -> Agreement:
        if self._agreement is None:
            self._agreement = Agreement()
        return self._agreement

    def _find(self) -> None:
        """Looks for wrappers that were made without telling; trainers keep theirs to themselves.

        Not following one would be silently wrong: the step after a freeze would use gradients that
        were not averaged.
        """
        if not self._wrappers:
            self._wrappers.update(
                w for w in _all_wrappers() if _is_around(w, self._model) and _is_alive(w)
            )


def _all_wrappers() -> list[DistributedDataParallel]:
    """Every wrapper in this process: the objects that refer to their own class."""
    kinds: list[type] = [DistributedDataParallel]
    for kind in kinds:
        kinds += kind.__subclasses__()
    return [o for o in gc.get_referrers(*kinds) if type(o) in kinds]


def _is_around(wrapper: DistributedDataParallel, model: nn.Module) -> bool:
    inner = wrapper.__dict__.get("_modules", {}).get("module")
    return isinstance(inner, nn.Module) and any(m is model for m in inner.modules())


def _is_alive(wrapper: DistributedDataParallel) -> bool:
    """Whether the processes of a wrapper are still joined; a leftover may outlive them."""
    try:
        return bool(dist.get_process_group_ranks(wrapper.process_group))
    except (AttributeError, KeyError, ValueError, RuntimeError):
        return False
