"""Find every ``DistributedDataParallel`` around a model, whoever made it and whenever.

`instances_of` finds the live objects of any class.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator
from itertools import compress
from typing import TypeVar

import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from freezeout.layers import parameters_in
from freezeout.wrappers.agreement import is_joined
from freezeout.wrappers.ddp import (
    is_retired,
)

__all__ = ["instances_of", "subclasses_of", "wrappers_of"]

T = TypeVar("T")


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
    """Return the live objects of a class and its subclasses, found among all objects.

    It takes some 0.1 µs for each object of the process, a twentieth of a second where large
    frameworks are loaded. Leftovers in reference cycles are found until the garbage collector runs.

    Args:
        kind: Any class written in Python.
    """
    kinds = {kind, *subclasses_of(kind)}
    hidden = gc.get_freeze_count() > 0  # gc.freeze() hides what is there from the search
    if hidden:
        gc.unfreeze()
    try:
        objects = gc.get_objects()
        return list(compress(objects, map(kinds.__contains__, map(type, objects))))
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
