"""Optimizers inside optimizers: which one steps, which stand around it, which live at all."""

from __future__ import annotations

import gc
from collections.abc import Iterable, Mapping
from contextlib import suppress
from typing import Any
from weakref import WeakKeyDictionary, ref

import torch
from torch.optim import Optimizer

from freezeout.wrappers import instances_of, subclasses_of

__all__ = [
    "has_hooks",
    "held_by",
    "holders_of",
    "keeps_tensors",
    "note_all",
    "note_wrappers",
    "other_holders",
    "unwrap_optimizer",
]

_INNER = ("optimizer", "_optimizer", "original_optimizer", "base_optimizer")
"""What wrappers call the optimizer inside: trainers, Lookahead, differential privacy, SAM."""

_KEEP_NOTHING = frozenset(
    ("torch", "accelerate", "lightning", "lightning_fabric", "pytorch_lightning", "transformers")
)
"""Packages whose optimizers keep no lists or tensors of another that they stand around."""

_AROUND: WeakKeyDictionary[Optimizer, list[ref[Any]]] = WeakKeyDictionary()
"""The wrappers that are known around an optimizer that steps."""


def unwrap_optimizer(optimizer: Any) -> Any:
    """Return the optimizer that really steps, without what stands around it.

    Args:
        optimizer: An optimizer. One that holds another of the same parameters as its ``optimizer``,
            ``_optimizer``, ``original_optimizer`` or ``base_optimizer`` is a wrapper (Accelerate's,
            Lightning's, Lookahead, Opacus', SAM); anything else is returned as it is.
    """
    return _chain(optimizer)[-1]


def note_wrappers(optimizer: Any) -> None:
    """Remember what stands around the optimizer that really steps, for `holders_of`.

    Args:
        optimizer: A wrapper, or the optimizer itself; wrappers around that are searched for.
    """
    inner = unwrap_optimizer(optimizer)
    if isinstance(inner, Optimizer):
        _note(optimizer)
        note_all([inner])


def note_all(optimizers: Iterable[Optimizer]) -> None:
    """Remember all that stands around some optimizers at present.

    Nothing is searched for where only PyTorch and trainers have defined optimizers: none of theirs
    keeps anything of its own that a freeze or a split would have to follow.

    Args:
        optimizers: Those that step.
    """
    kinds = subclasses_of(Optimizer)
    if any(kind.__module__.partition(".")[0] not in _KEEP_NOTHING for kind in kinds):
        _search(list(optimizers), set())


def _note(optimizer: Any) -> None:
    *around, inner = _chain(optimizer)
    known = _AROUND.setdefault(inner, [])
    for wrapper in around:
        if all(wrapper is not seen() for seen in known):
            with suppress(TypeError):  # one with __slots__ cannot be remembered
                known.append(ref(wrapper))


def holders_of(optimizer: Optimizer) -> list[Any]:
    """Return an optimizer and the wrappers known around it, which may keep state of their own.

    Args:
        optimizer: One that steps.
    """
    around = (seen() for seen in _AROUND.get(optimizer, ()))
    return [optimizer, *(wrapper for wrapper in around if wrapper is not None)]


def keeps_tensors(optimizer: Optimizer) -> bool:
    """Return whether a wrapper around an optimizer keeps tensors that the optimizer does not have.

    Those of trainers keep none, while Lookahead has slow weights and may write them at any time.

    Args:
        optimizer: One that steps.
    """
    own = vars(optimizer)
    return any(
        own.get(name) is not value and _has_tensors(value)
        for wrapper in holders_of(optimizer)[1:]
        for name, value in getattr(wrapper, "__dict__", {}).items()
        if name != "param_groups" and not isinstance(value, Optimizer)
    )


def _has_tensors(value: Any, depth: int = 3) -> bool:
    if isinstance(value, Mapping):
        value = [*value.keys(), *value.values()]
    if isinstance(value, (list, tuple)) and depth:
        return any(_has_tensors(item, depth - 1) for item in value)
    return isinstance(value, torch.Tensor)


def other_holders(
    optimizers: Iterable[Optimizer], parameters: Iterable[torch.Tensor]
) -> list[Optimizer]:
    """Return the live optimizers that hold some of these parameters, without those given.

    Wrappers around those given are noted (`note_wrappers`), and are none of the others.

    Args:
        optimizers: The known ones.
        parameters: Those that matter.
    """
    ours = list(optimizers)
    wanted = {id(p) for p in parameters}
    found = _search(ours, wanted)
    if found:  # one of them may be a leftover in a cycle of references
        del found
        gc.collect()
        found = _search(ours, wanted)
    return found


def _search(ours: list[Optimizer], wanted: set[int]) -> list[Optimizer]:
    known = {id(o) for o in ours}
    found: dict[int, Optimizer] = {}
    for optimizer in instances_of(Optimizer):
        inner = unwrap_optimizer(optimizer)
        if id(inner) in known:
            _note(optimizer)
        elif isinstance(inner, Optimizer) and wanted & _ids(inner):
            found[id(inner)] = inner
    return list(found.values())


def held_by(optimizers: Iterable[Optimizer]) -> set[int]:
    """Return the ``id`` of every parameter that some optimizers hold.

    Args:
        optimizers: Those that step.
    """
    return {id(p) for o in optimizers for group in o.param_groups for p in group["params"]}


def has_hooks(optimizer: Optimizer) -> bool:
    """Return whether an optimizer can be watched: whether ``Optimizer.__init__`` made it.

    Args:
        optimizer: Any optimizer.
    """
    return "_optimizer_step_post_hooks" in vars(optimizer)


def _chain(optimizer: Any) -> list[Any]:
    """Return the wrappers, outermost first, and the optimizer that steps."""
    chain = [optimizer]
    while (inner := _inside(chain[-1])) is not None and all(inner is not seen for seen in chain):
        chain.append(inner)
    return chain


def _inside(optimizer: Any) -> Optimizer | None:
    for name in _INNER:
        inner = _read(optimizer, name)
        if isinstance(inner, Optimizer) and _belong(optimizer, inner):
            return inner
    if isinstance(optimizer, Optimizer) and not has_hooks(optimizer):
        parts = [v for v in vars(optimizer).values() if isinstance(v, Optimizer)]
        if len(parts) == 1 and _ids(optimizer) and _ids(optimizer) <= _ids(parts[0]):
            return parts[0]
    return None


def _belong(outer: Any, inner: Optimizer) -> bool:
    """Return whether an optimizer is the other's inside: they share parameters, or one has none."""
    if not isinstance(outer, Optimizer):
        return True
    theirs = _ids(outer)
    return not theirs or bool(theirs & _ids(inner))


def _ids(optimizer: Any) -> set[int]:
    groups = _read(optimizer, "param_groups")
    if not isinstance(groups, list):
        return set()
    return {id(p) for g in groups if isinstance(g, Mapping) for p in g.get("params", ())}


def _read(optimizer: Any, name: str) -> Any:
    """Return an attribute of any optimizer of the process, which may be half made, or ``None``."""
    try:
        return getattr(optimizer, name, None)
    except Exception:  # a property, or a delegation to what is not there
        return None
