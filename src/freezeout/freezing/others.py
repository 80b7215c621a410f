"""Optimizers that a freezer does not know: which of them step, and which only lie around."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, TypeAlias
from weakref import ref

from torch.optim import Optimizer
from torch.optim.optimizer import register_optimizer_step_post_hook
from torch.utils.hooks import RemovableHandle

from freezeout.freezing.holders import has_hooks, unwrap_optimizer

__all__ = ["Others"]

_Seen: TypeAlias = dict[int, ref[Optimizer]]
"""Optimizers by their ``id``; some can be no keys, because they compare by value."""

_HANDLES: list[tuple[ref[Any], RemovableHandle]] = []
"""The hooks on all steps; those of what is gone are removed when a new one comes."""


class Others:
    """Remember which optimizers of the process step, from the first `watch` on.

    PyTorch tells of every step, so nothing is searched for. An optimizer that was found by a search
    and did not step until the next one is a leftover.
    """

    def __init__(self) -> None:
        self._stepped: _Seen = {}
        self._found: _Seen = {}
        self._watches = False

    def watch(self) -> None:
        """Begin to remember steps; do nothing if that has begun."""
        if self._watches:
            return
        self._watches = True
        # Never while PyTorch goes through the hooks, as a finalizer would.
        for owner, handle in _HANDLES:
            if owner() is None:
                handle.remove()
        _HANDLES[:] = [(owner, handle) for owner, handle in _HANDLES if owner() is not None]
        _HANDLES.append((ref(self), register_optimizer_step_post_hook(_noting(self._stepped))))

    def alive(self, found: Iterable[Optimizer]) -> list[Optimizer]:
        """Return which of these count: those that have stepped, or are found for the first time.

        Args:
            found: What a search has found. One whose steps cannot be seen counts.
        """
        alive = []
        for optimizer in found:
            known = _has(self._found, optimizer) and has_hooks(optimizer)
            if not known or _has(self._stepped, optimizer):
                alive.append(optimizer)
            self._found[id(optimizer)] = ref(optimizer)
        return alive

    def stepping(self, known: Iterable[Optimizer]) -> list[Optimizer]:
        """Return those that have stepped, without wrappers and without the known.

        Args:
            known: The optimizers of the freezer.
        """
        live = (unwrap_optimizer(o) for seen in self._stepped.values() if (o := seen()) is not None)
        mine = set(map(id, known))
        return list({id(o): o for o in live if id(o) not in mine}.values())


def _noting(stepped: _Seen) -> Any:
    def note(optimizer: Optimizer, args: Any, kwargs: Any) -> None:
        if not _has(stepped, optimizer):
            stepped[id(optimizer)] = ref(optimizer)

    return note


def _has(seen: _Seen, optimizer: Optimizer) -> bool:
    known = seen.get(id(optimizer))
    return known is not None and known() is optimizer
