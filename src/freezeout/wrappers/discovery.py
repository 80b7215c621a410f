"""Find every ``DistributedDataParallel`` around a model, whoever made it and whenever.

`instances_of` finds the live objects of any class.
"""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterator
from itertools import compress
from typing import Any, TypeVar
from weakref import ref

import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from freezeout.layers import parameters_in
from freezeout.wrappers.agreement import is_joined
from freezeout.wrappers.ddp import (
    is_retired,
)

__all__ = ["instances_of", "subclasses_of", "wrappers_of"]

T = TypeVar("T")

_HAS_MIDDLE_AGE = sys.version_info < (3, 14)
"""Whether objects of generation 1 are all those between the youngest and the old ones."""


def wrappers_of(model: nn.Module) -> list[DistributedDataParallel]:
    """Return every live ``DistributedDataParallel`` that exchanges gradients of a model.

    Trainers hide their wrapper, and one may be made at any time, around the model, a part of it or
    more than it. Missing one would be silently wrong: the step after a freeze would use gradients
    that were not averaged. So all wrappers of this process are examined.

    Args:
        model: The model, without wrappers.

    Returns:
        The wrappers in the order of their first parameters, without those that `rewrap` replaced.
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
    place = {id(p): i for i, p in enumerate(parameters_in(model))}
    found = []
    for wrapper in instances_of(DistributedDataParallel):
        shared = [place[id(p)] for p in _parameters(wrapper) if id(p) in place]
        if shared and not is_retired(wrapper) and _is_alive(wrapper):
            found.append((min(shared), len(shared), wrapper))
    found.sort(key=lambda entry: entry[:2])
    return [wrapper for _, _, wrapper in found]


def instances_of(kind: type[T]) -> list[T]:
    """Return the live objects of a class and its subclasses, whoever made them.

    It is called where nobody else knows: when a scheduler splits the groups of its optimizer, finds
    rates that it did not set, or starts from such; at construction and at the first freeze, where
    wrappers of optimizers may exist; before the first update and at a freeze, where the freezer's
    optimizers lack what requires a gradient; around every freeze in several processes.

    The first search takes some 0.1 µs for each object of the process, a twentieth of a second where
    large frameworks are loaded; a later one about a millisecond, unless the garbage collector has
    put what was made since among the old objects. Leftovers in reference cycles are found until the
    garbage collector runs.

    Args:
        kind: Any class written in Python whose objects can have weak references.
    """
    return _SEARCH.instances_of(kind)


class _Search:
    """Search for the objects of some classes: once among all, then among those made since.

    The garbage collector keeps objects by age, and moves all of one age on together. So while a
    mark that was made before the last search is young, all that was made after it is young, too.

    Args:
        *kinds: Each search is for all of these, and for what was asked for since.
    """

    def __init__(self, *kinds: type) -> None:
        nothing: dict[type, list[ref[Any]]] = {kind: [] for kind in kinds}
        self._known: tuple[object, dict[type, list[ref[Any]]]] = (None, nothing)

    def instances_of(self, kind: type[T]) -> list[T]:
        """Return the live objects of a class and its subclasses.

        Args:
            kind: See the function.
        """
        mark, known = self._known
        next_mark: list[Any] = []
        objects = _young_objects(mark, next_mark) if kind in known else None
        if objects is None:
            known = {each: [] for each in (*known, kind)}
            objects = _all_objects()
        kinds = {each: {each, *subclasses_of(each)} for each in known}
        of_any = set().union(*kinds.values())
        hits = list(compress(objects, map(of_any.__contains__, map(type, objects))))
        found: dict[type, list[Any]] = {}
        for each, seen in known.items():
            earlier = [o for r in seen if (o := r()) is not None]
            new = [o for o in hits if type(o) in kinds[each]]
            found[each] = list({id(o): o for o in (*new, *earlier)}.values())
        self._known = next_mark, {each: list(map(ref, objects)) for each, objects in found.items()}
        return found[kind]


def _young_objects(mark: object, latest: object) -> list[Any] | None:
    """Return the young objects, ``None`` if there may be old ones that were made after a mark.

    Args:
        mark: What was made before the last search.
        latest: What was just made. It is among the youngest, unless the collector has run since.
    """
    # Lists as they are given: one that is being made could come to hold itself.
    older = gc.get_objects(generation=1) if _HAS_MIDDLE_AGE else []
    youngest = gc.get_objects(generation=0)
    if id(latest) not in map(id, youngest):
        return None
    young = older + youngest
    return young if id(mark) in map(id, young) else None


def _all_objects() -> list[Any]:
    hidden = gc.get_freeze_count() > 0  # gc.freeze() hides what is there from the search
    if hidden:
        gc.unfreeze()
    try:
        return gc.get_objects()
    finally:
        if hidden:
            gc.freeze()


def subclasses_of(kind: type[T]) -> list[type[T]]:
    """Return all classes below a class.

    Args:
        kind: Any class.
    """
    found: dict[type[T], None] = {}
    waiting: list[type[T]] = [kind]
    while waiting:
        below: list[type[T]] = type.__subclasses__(waiting.pop())
        waiting += (sub for sub in below if sub not in found)
        found.update(dict.fromkeys(below))
    return list(found)


def _parameters(wrapper: DistributedDataParallel) -> Iterator[nn.Parameter]:
    inner = wrapper.__dict__.get("_modules", {}).get("module")  # it may be half made
    return parameters_in(inner) if isinstance(inner, nn.Module) else iter(())


def _is_alive(wrapper: DistributedDataParallel) -> bool:
    """Return whether the process group of a wrapper still exists; a leftover may outlive it."""
    try:
        return bool(dist.get_process_group_ranks(wrapper.process_group))
    except (AttributeError, KeyError, ValueError, RuntimeError):
        return False


_SEARCH = _Search(Optimizer, LRScheduler, DistributedDataParallel)
