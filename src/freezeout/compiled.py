"""What ``torch.compile`` makes of freezing: which modules it runs, and how many graphs that takes.

A graph is made for fixed flags of all its parameters. So a model that is compiled as a whole is
compiled anew at every freeze, and after a number of graphs (``recompile_limit``, 8) PyTorch would
give up and run it uncompiled, which costs more than freezing saves. The graphs of before a freeze
are never used again, so they are dropped before that comes. A block that is compiled by itself has
three forms only: live, live behind a frozen one, and frozen; equal blocks share them.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from types import CodeType
from typing import Any, TypeAlias

from torch import nn

from freezeout import _dynamo
from freezeout.layers import Layers

__all__ = ["Graphs", "Region", "graphs_of", "recompile_trouble", "regions"]


@dataclass(frozen=True, eq=False)
class Region:
    """A module that ``torch.compile`` runs, with all that is in it.

    Attributes:
        module: The module itself.
        entry: What is called: the module, or the wrapper that ``torch.compile(module)`` returned.
    """

    module: nn.Module
    entry: nn.Module

    @property
    def limit(self) -> int:
        """How many graphs PyTorch keeps for it."""
        own = _own_limit(self.entry)
        return _dynamo.limit() if own is None else own

    @property
    def code(self) -> CodeType | None:
        """The code by which graphs are counted: of its ``forward``, or of a frame around that.

        A module of PyTorch's own, such as `nn.Sequential`, is not compiled without such a frame;
        all of them share its code.
        """
        called = getattr(self.entry.__dict__.get("forward"), "_torchdynamo_orig_callable", None)
        frame: CodeType | None = getattr(called, "__code__", None)
        if frame is not None and "torch/_dynamo" in frame.co_filename.replace("\\", "/"):
            return frame
        return getattr(type(self.module).forward, "__code__", None)


def regions(model: nn.Module) -> list[Region]:
    """The outermost compiled modules in a model, the model itself included.

    Args:
        model: Any module, with its wrappers: what is around the model may be compiled too.
    """
    if not _dynamo.is_used():
        return []
    return list(_outermost(model, set()))


def _outermost(module: nn.Module, seen: set[int]) -> Iterator[Region]:
    if id(module) in seen:
        return
    seen.add(id(module))
    children = dict(module.named_children())
    if "_orig_mod" in children:
        yield Region(children["_orig_mod"], module)
    elif module.__dict__.get("_compiled_call_impl") is not None:
        yield Region(module, module)
    else:
        for child in children.values():
            yield from _outermost(child, seen)


def recompile_trouble(
    layers: Layers, freeze_steps: Sequence[int | None], model: nn.Module
) -> str | None:
    """A sentence about graphs that will not suffice, or ``None``.

    Args:
        layers: The layers of the model.
        freeze_steps: When each freezes; ``None`` for those that learn to the end.
        model: The model with its wrappers.
    """
    if all(step is None for step in freeze_steps):
        return None
    alike: dict[CodeType, list[Region]] = {}
    for region in regions(model):
        if region.code is not None:
            alike.setdefault(region.code, []).append(region)
    for code, same in alike.items():
        inside = [_layers_inside(region.module, layers) for region in same]
        forms = [
            _forms(region.module, own, freeze_steps)
            for region, own in zip(same, inside, strict=True)
        ]
        needed = _most_at_a_time(forms) if _dynamo.can_forget() else _in_all(forms)
        if needed > same[0].limit:
            name = f"{type(same[0].module).__name__}.{code.co_name}"
            return _sentence(name, needed, same[0].limit, whole=max(map(len, inside)) > 1)
    return None


class Graphs:
    """Counts the graphs of every compiled function from freeze to freeze, and makes room for more.

    Graphs of the model and its parts are dropped once PyTorch is about to give up on them: most are
    for flags that the model no longer has. Of a compiled function around the model, which is not
    ours to touch, it can only be said that its graphs run out: one that gains some with every
    freeze is such a function.

    Args:
        layers: The layers of the model.
    """

    def __init__(self, layers: Layers) -> None:
        self._layers = layers
        self._before: dict[CodeType, int] = {}

    def make_room(self, model: nn.Module) -> str | None:
        """Drops what is outdated; a sentence where graphs may run out all the same, or ``None``.

        Call it at every freeze.

        Args:
            model: The model with its wrappers.
        """
        if not _dynamo.is_used():
            return None
        seen = [(region.code, region) for region in regions(model)]
        known = {code: region for code, region in seen if code is not None}
        whole = {code for code, region in seen if code and self._is_whole(region.module)}
        whole |= self._whole_inside(known)
        own = {*known, *whole, *_dynamo.continuations(whole)}
        trouble = None
        for code in {*own, *_dynamo.compiled_codes()}:
            made = _dynamo.graphs(code)
            gained = made - self._before.get(code, 0)
            limit = known[code].limit if code in known else _dynamo.limit()
            if made and code in own and _dynamo.can_forget():
                is_stale = code in whole and not _dynamo.notices_flags()
                if is_stale or made + max(gained, 1) > limit:
                    _dynamo.forget(code)
                    made = 0
            elif gained and made + gained > limit and trouble is None:
                name = getattr(code, "co_qualname", code.co_name)  # from Python 3.11 on
                if code in known:
                    name = f"{type(known[code].module).__name__}.{code.co_name}"
                is_whole = code in whole or code not in known
                trouble = _sentence(name, made + gained, limit, whole=is_whole)
            self._before[code] = made
        return trouble

    def _is_whole(self, module: nn.Module) -> bool:
        return len(_layers_inside(module, self._layers)) > 1

    def _whole_inside(self, known: Iterable[CodeType]) -> set[CodeType]:
        """Code of modules that were compiled out of sight, in a wrapper around the model.

        A class of which some instances are compiled by themselves is left to those.
        """
        found: set[CodeType] = set()
        for module in self._layers.model.modules():
            code = getattr(type(module).forward, "__code__", None)
            if code is not None and code not in {*known, *found} and _dynamo.graphs(code):
                found.update({code} if self._is_whole(module) else ())
        return found


def graphs_of(region: Region) -> int:
    """Number of graphs that PyTorch holds for a region now; 0 where it does not tell."""
    return 0 if region.code is None else _dynamo.graphs(region.code)


def _layers_inside(module: nn.Module, layers: Layers) -> list[int]:
    inside = {id(p) for p in module.parameters()}
    return [layer.index for layer in layers if any(id(p) in inside for _, p in layer.parameters)]


Forms: TypeAlias = dict[int, set[Any]]
"""For each step at which a region changes (-1 at first): what the compiler then sees of it."""


def _forms(module: nn.Module, inside: list[int], freeze_steps: Sequence[int | None]) -> Forms:
    """What a region looks like to the compiler over a run: training and evaluation at each point.

    Two regions of one class share a form where all their shapes agree.
    """
    never = sys.maxsize
    steps = [never if step is None else step for step in freeze_steps]
    shapes = tuple((name, tuple(p.shape)) for name, p in module.named_parameters())
    first = min(inside, default=0)
    before = steps[first - 1] if first else never  # from then on the input needs no gradient
    forms: Forms = {}
    for now in sorted({-1, before, *(steps[i] for i in inside)} - {never}):
        frozen = tuple(steps[i] <= now for i in inside)
        forms[now] = {(shapes, frozen, before <= now), (shapes, frozen, "evaluation")}
    return forms


def _in_all(regions: Sequence[Forms]) -> int:
    return len({form for forms in regions for at_once in forms.values() for form in at_once})


def _most_at_a_time(regions: Sequence[Forms]) -> int:
    """The most graphs that are in use between two freezes."""
    most = 0
    for now in {step for forms in regions for step in forms}:
        alive = [forms[max(step for step in forms if step <= now)] for forms in regions]
        most = max(most, len(set().union(*alive)))
    return most


def _sentence(name: str, needed: int, limit: int, *, whole: bool) -> str:
    remedy = (
        "Compile the model (model.compile()) or its blocks (block.compile()) instead, let several "
        "layers freeze at a time (max_freezes=...), or allow more: "
        if whole
        else "Allow more: "
    )
    why = (
        "it is compiled with the model in it, so every freeze needs another one"
        if whole
        else "its instances differ in shape, so each needs its own"
    )
    return (
        f"torch.compile keeps {limit} graphs of {name} and then runs it uncompiled, but "
        f"up to {needed} are needed, with evaluations between: {why}. {remedy}"
        f"{_dynamo.how_to_allow(2 * needed)}."
    )


def _own_limit(entry: nn.Module) -> int | None:
    """The limit that was given to this one call of ``torch.compile``, as far as it can be seen."""
    callbacks = [getattr(getattr(entry, "dynamo_ctx", None), "callback", None)]
    compiled = entry.__dict__.get("_compiled_call_impl")
    for cell in getattr(compiled, "__closure__", None) or ():
        callbacks.append(cell.cell_contents)
    limits = [getattr(callback, "_recompile_limit", None) for callback in callbacks]
    return next((limit for limit in limits if isinstance(limit, int)), None)
