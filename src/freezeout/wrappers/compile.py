"""Keep ``torch.compile`` from running out of graphs as layers freeze.

A graph is compiled for fixed ``requires_grad`` flags. So a model that is compiled as a whole is
compiled again at every freeze, and after a number of graphs (``recompile_limit``, 8) PyTorch gives
up and runs it uncompiled, which costs more than freezing saves. Graphs from before a freeze are
never used again, so they are dropped before that happens. A block that is compiled by itself has
only three forms: active, active behind a frozen one, and frozen; equal blocks share them.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Container, Iterable, Iterator, Sequence
from dataclasses import dataclass
from types import CodeType
from typing import Any

from torch import nn

from freezeout.layers import Layers, modules_in, named_parameters, parameters_in
from freezeout.wrappers import dynamo

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
        return dynamo.limit() if own is None else own

    @property
    def code(self) -> CodeType | None:
        """The code whose graphs are counted: of its ``forward``, or of a frame around that.

        PyTorch compiles its built-in modules, such as `nn.Sequential`, only within such a frame,
        and all of them share its code.
        """
        called = getattr(self.entry.__dict__.get("forward"), "_torchdynamo_orig_callable", None)
        frame: CodeType | None = getattr(called, "__code__", None)
        if frame is not None and "torch/_dynamo" in frame.co_filename.replace("\\", "/"):
            return frame
        return getattr(type(self.module).forward, "__code__", None)


def regions(model: nn.Module) -> list[Region]:
    """Return the outermost compiled modules in a model, the model itself included.

    Args:
        model: Any module, with its wrappers: what is around the model may be compiled too.
    """
    if not dynamo.is_used():
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
    """Return a sentence if there will be too few graphs, or ``None``.

    Args:
        layers: The layers of the model.
        freeze_steps: When each freezes; ``None`` for those that learn to the end.
        model: The model with its wrappers.
    """
    steps = [step for step in freeze_steps if step is not None]
    if not steps:
        return None
    depths = [0, *(bisect_right(steps, step) for step in sorted({*steps}))]
    for code, same in _by_code(regions(model)).items():
        fixed = [_fixed(region, layers) for region in same]
        forms = [{_form(*one, depth) for one in fixed} for depth in depths]
        at_once = max(map(len, forms)) if dynamo.can_forget() else len(set().union(*forms))
        needed = 2 * at_once  # training and evaluation
        if needed > same[0].limit:
            name = f"{type(same[0].module).__name__}.{code.co_name}"
            return _sentence(name, needed, same[0].limit, whole=_is_whole(same, layers))
    return None


class Graphs:
    """Count the graphs of every compiled function from freeze to freeze, and make room for more.

    Graphs of the model and its parts are dropped when PyTorch is about to give up on them: most are
    for flags that the model no longer has. A compiled function around the model is not ours to
    touch. If it gains graphs with every freeze, a warning says that they will run out.

    Args:
        layers: The layers of the model.
    """

    def __init__(self, layers: Layers) -> None:
        self._layers = layers
        # What other compiled functions hold already was not made by this run.
        self._before = {code: dynamo.graphs(code) for code in dynamo.compiled_codes()}
        self._used: dict[CodeType, set[Any]] = {}
        self._depth = 0

    def make_room(self, model: nn.Module, depth: int) -> str | None:
        """Drop outdated graphs; return a sentence if they may still run out, or ``None``.

        Call it at every freeze.

        Args:
            model: The model with its wrappers.
            depth: Length of the frozen prefix from now on.
        """
        before, self._depth = self._depth, depth
        if not dynamo.is_used():
            return None
        own = _by_code(regions(model))
        own.update(self._out_of_sight(own))
        whole = {code for code, same in own.items() if _is_whole(same, self._layers)}
        rest = dict.fromkeys(dynamo.continuations(own))
        trouble = None
        for code in {*own, *rest, *dynamo.compiled_codes()}:
            same = own.get(code, [])
            made = dynamo.graphs(code)
            gained = made - self._before.get(code, 0)
            used = self._used.setdefault(code, set())
            fixed = [_fixed(region, self._layers) for region in same]
            used |= {_form(*one, before) for one in fixed}
            new = {_form(*one, depth) for one in fixed} - used
            # As many of each new form as there were of each so far (training, evaluation, shapes).
            more = math.ceil(made / len(used)) * len(new) if same else gained
            limit = same[0].limit if same else dynamo.limit()
            runs_out = more > 0 and made + more > limit
            is_stale = code in whole and not dynamo.notices_flags()
            if (same or code in rest) and dynamo.can_forget():
                if runs_out or is_stale:
                    dynamo.forget(code)
                    used.clear()
                    made = 0
            elif runs_out and trouble is None:
                name = getattr(code, "co_qualname", code.co_name)  # from Python 3.11 on
                if same:
                    name = f"{type(same[0].module).__name__}.{code.co_name}"
                trouble = _sentence(name, made + more, limit, whole=code in whole or not same)
            self._before[code] = made
        return trouble

    def _out_of_sight(self, seen: Container[CodeType]) -> dict[CodeType, list[Region]]:
        """Return the parts compiled by a wrapper around the model, or after a graph break.

        A class with instances that are compiled by themselves is counted with those.
        """
        found: dict[CodeType, list[Region]] = {}
        for module in modules_in(self._layers.model):
            region = Region(module, module)
            code = region.code
            if code is not None and code not in seen and dynamo.graphs(code):
                found.setdefault(code, []).append(region)
        return found


def graphs_of(region: Region) -> int:
    """Return how many graphs PyTorch holds for a region now; 0 if it does not tell."""
    return 0 if region.code is None else dynamo.graphs(region.code)


def _layers_inside(module: nn.Module, layers: Layers) -> list[int]:
    inside = {id(p) for p in parameters_in(module)}
    return [layer.index for layer in layers if any(id(p) in inside for _, p in layer.parameters)]


def _by_code(seen: Iterable[Region]) -> dict[CodeType, list[Region]]:
    """Group the regions that share their code, and with it the limit of graphs."""
    alike: dict[CodeType, list[Region]] = {}
    for region in seen:
        if region.code is not None:
            alike.setdefault(region.code, []).append(region)
    return alike


def _is_whole(same: Iterable[Region], layers: Layers) -> bool:
    return any(len(_layers_inside(region.module, layers)) > 1 for region in same)


def _fixed(region: Region, layers: Layers) -> tuple[Any, list[int]]:
    """Return what never changes about a region: its shapes, and the layers in it."""
    shapes = tuple((name, tuple(p.shape)) for name, p in named_parameters(region.module))
    return shapes, _layers_inside(region.module, layers)


def _form(shapes: Any, inside: Sequence[int], depth: int) -> Any:
    """Return what a region looks like to the compiler at a length of the frozen prefix.

    Two regions of one class share a form, and its graphs, where all their shapes agree.
    """
    input_learns = min(inside, default=0) > depth
    return shapes, tuple(i < depth for i in inside), input_learns


def _sentence(name: str, needed: int, limit: int, *, whole: bool) -> str:
    remedy = (
        "Compile the model or its blocks and nothing around them (model.compile(), "
        "block.compile()), let several layers freeze at a time (max_freezes=...), or allow more: "
        if whole
        else "Allow more: "
    )
    why = (
        "it gains graphs with every freeze"
        if whole
        else "its instances differ in shape, so each needs its own"
    )
    return (
        f"torch.compile keeps {limit} graphs of {name} and then runs it uncompiled, but "
        f"up to {needed} are needed, with evaluations between: {why}. {remedy}"
        f"{dynamo.how_to_allow(2 * needed)}."
    )


def _own_limit(entry: nn.Module) -> int | None:
    """Return the limit given to this one call of ``torch.compile``, if it can be seen."""
    callbacks = [getattr(getattr(entry, "dynamo_ctx", None), "callback", None)]
    compiled = entry.__dict__.get("_compiled_call_impl")
    for cell in getattr(compiled, "__closure__", None) or ():
        callbacks.append(cell.cell_contents)
    limits = [getattr(callback, "_recompile_limit", None) for callback in callbacks]
    return next((limit for limit in limits if isinstance(limit, int)), None)
