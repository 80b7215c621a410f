"""What ``torch.compile`` makes of freezing: which modules it runs, and how many graphs that takes.

A graph is made for fixed flags of all its parameters. So a model that is compiled as a whole is
compiled anew at every freeze, and after a number of graphs (``recompile_limit``, 8) PyTorch gives
up and runs it uncompiled, which costs more than freezing saves. A block that is compiled by itself
has three forms only: live, live behind a frozen one, and frozen; equal blocks share them.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from types import CodeType
from typing import Any

import torch
from torch import nn

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
        return _general_limit() if own is None else own

    @property
    def code(self) -> CodeType | None:
        """The code of its ``forward``, by which graphs are counted."""
        return getattr(type(self.module).forward, "__code__", None)


def regions(model: nn.Module) -> list[Region]:
    """The outermost compiled modules in a model, the model itself included.

    Args:
        model: Any module, with its wrappers: what is around the model may be compiled too.
    """
    if "torch._dynamo" not in sys.modules:
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
    forms: dict[CodeType, set[Any]] = {}
    limits: dict[CodeType, tuple[str, int]] = {}
    whole: set[CodeType] = set()
    for region in regions(model):
        if region.code is None:
            continue
        inside = _layers_inside(region.module, layers)
        if len(inside) > 1:
            whole.add(region.code)
        forms.setdefault(region.code, set()).update(_forms(region.module, inside, freeze_steps))
        limits[region.code] = (type(region.module).__name__, region.limit)
    for code, kinds in forms.items():
        name, limit = limits[code]
        needed = len(kinds)
        if needed > limit:
            return _sentence(f"{name}.forward", needed, limit, whole=code in whole)
    return None


class Graphs:
    """Counts the graphs of every compiled function from freeze to freeze.

    What is compiled may not be seen in the model: a function around it, or the model compiled after
    its scheduler was made. A function that gains graphs with every freeze is one of those.

    Args:
        layers: The layers of the model.
    """

    def __init__(self, layers: Layers) -> None:
        self._layers = layers
        self._before: dict[CodeType, int] = {}

    def crowded(self, model: nn.Module) -> str | None:
        """A sentence where there may not be room for the graphs of the next freezes, or ``None``.

        Call it at every freeze.

        Args:
            model: The model with its wrappers.
        """
        known = {region.code: region for region in regions(model) if region.code is not None}
        trouble = None
        for code in {*known, *_compiled_codes()}:
            made = _graphs(code)
            gained = made - self._before.get(code, 0)
            self._before[code] = made
            region = known.get(code)
            limit = _general_limit() if region is None else region.limit
            if gained and made + gained > limit and trouble is None:
                name = getattr(code, "co_qualname", code.co_name)  # from Python 3.11 on
                if region is not None:
                    name = f"{type(region.module).__name__}.{code.co_name}"
                whole = region is None or len(_layers_inside(region.module, self._layers)) > 1
                trouble = _sentence(name, made + gained, limit, whole=whole)
        return trouble


def _compiled_codes() -> list[CodeType]:
    """The code of every function that was compiled in this process, as far as PyTorch tells."""
    convert = sys.modules.get("torch._dynamo.convert_frame")
    seen = getattr(getattr(convert, "input_codes", None), "seen", ())
    return [code for ref in seen if (code := ref()) is not None]


def graphs_of(region: Region) -> int:
    """Number of graphs that PyTorch holds for a region now; 0 where it does not tell."""
    return 0 if region.code is None else _graphs(region.code)


def _graphs(code: CodeType) -> int:
    if "torch._dynamo" not in sys.modules:
        return 0
    try:
        from torch._dynamo.eval_frame import _debug_get_cache_entry_list

        return len(_debug_get_cache_entry_list(code))
    except (ImportError, TypeError):
        return 0


def _layers_inside(module: nn.Module, layers: Layers) -> list[int]:
    inside = {id(p) for p in module.parameters()}
    return [layer.index for layer in layers if any(id(p) in inside for _, p in layer.parameters)]


def _forms(
    module: nn.Module, inside: list[int], freeze_steps: Sequence[int | None]
) -> Iterator[Any]:
    """What a region looks like to the compiler over a run: training and evaluation at each point.

    Two regions of one class share a form where all their shapes agree.
    """
    never = sys.maxsize
    steps = [never if step is None else step for step in freeze_steps]
    shapes = tuple((name, tuple(p.shape)) for name, p in module.named_parameters())
    first = min(inside, default=0)
    before = steps[first - 1] if first else never  # from then on the input needs no gradient
    for now in sorted({-1, before, *(steps[i] for i in inside)} - {never}):
        frozen = tuple(steps[i] <= now for i in inside)
        evaluated = (shapes, frozen, "evaluation")
        yield (shapes, frozen, before <= now)
        yield evaluated


def _sentence(name: str, needed: int, limit: int, *, whole: bool) -> str:
    remedy = (
        "Compile each block by itself (block.compile()) where blocks are alike, let several layers "
        "freeze at a time (max_freezes=...), or allow more: "
        if whole
        else "Let several layers freeze at a time (max_freezes=...), or allow more: "
    )
    why = (
        "it is compiled as a whole, so every freeze needs another one"
        if whole
        else "its instances differ in shape, so each needs its own when it freezes"
    )
    return (
        f"torch.compile keeps {limit} graphs of {name} and then runs it uncompiled, but "
        f"freezing takes up to {needed}, with evaluations between: {why}. {remedy}"
        f"{_how_to_allow(2 * needed)}."
    )


def _how_to_allow(graphs: int) -> str:
    """What to write for another limit, in this version of PyTorch."""
    if "recompile_limit" in inspect.signature(torch.compile).parameters:
        return f"torch.compile(..., recompile_limit={graphs})"
    return f"torch._dynamo.config.{_general_name()} = {graphs}"


def _general_name() -> str:
    from torch._dynamo import config

    return "recompile_limit" if hasattr(config, "recompile_limit") else "cache_size_limit"  # 2.6


def _general_limit() -> int:
    from torch._dynamo import config

    return int(getattr(config, _general_name()))


def _own_limit(entry: nn.Module) -> int | None:
    """The limit that was given to this one call of ``torch.compile``, as far as it can be seen."""
    callbacks = [getattr(getattr(entry, "dynamo_ctx", None), "callback", None)]
    compiled = entry.__dict__.get("_compiled_call_impl")
    for cell in getattr(compiled, "__closure__", None) or ():
        callbacks.append(cell.cell_contents)
    limits = [getattr(callback, "_recompile_limit", None) for callback in callbacks]
    return next((limit for limit in limits if isinstance(limit, int)), None)
