"""Which layer is the last that learns: seen in the backward passes, not assumed.

A prefix may freeze only as long as something behind it learns in *every* backward pass. Heads that
take turns by batch, objectives that alternate, a head that is seldom used: some pass then ends
before the last layer. Once the layer where it ends was frozen, that pass would have no gradient at
all and ``backward()`` would fail.
"""

from __future__ import annotations

import warnings
import weakref
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.autograd import Variable
from torch.optim import Optimizer
from torch.utils.hooks import RemovableHandle

from freezeout.errors import FrozenPrefixWarning
from freezeout.freezing import held_by
from freezeout.layers import Layer, Layers, modules_in, named_modules, parameters_in

__all__ = ["Turns"]

_PASSES = 100
"""So many backward passes are looked at one by one, with a hook on every parameter."""

_MOST_NAMES = 24
"""A list of more layers than that is not written out in a warning."""


class Turns:
    """See how deep the prefix may get, so that every kind of backward pass has a layer to learn.

    Two signs are read. Hooks on the parameters tell what takes part in each of the first backward
    passes, whatever becomes of the gradients; in several processes they are left out, for each
    would see its own batches. Later, every update tells which layers have a gradient at all.

    Args:
        layers: The layers of the model.
        optimizers: Those of the freezer; the list may grow. A pass that gives gradients only to
            what others hold (an encoder that a critic trains) says nothing. Updates tell something
            only if the first of them holds all that learns.

    Attributes:
        deepest: How many layers may freeze at most, as far as has been seen.
    """

    def __init__(self, layers: Layers, optimizers: Sequence[Optimizer]) -> None:
        self.deepest = len(layers) - 1
        self._layers = layers
        learning = [
            (layer.index, [p for _, p in layer.parameters if p.requires_grad]) for layer in layers
        ]
        self._from_the_end = [  # by id: what is replaced is not to be kept, and a weak reference
            (i, {id(p) for p in ps})
            for i, ps in reversed(learning)
            if ps  # hinders a conversion
        ]
        self._optimizers = optimizers
        held = held_by(optimizers[:1])
        self._holds_all = all(id(p) in held for _, ps in learning for p in ps)
        self._passes = 0
        self._task = -1
        self._in_pass: set[int] = set()
        self._told = False
        self._handles: list[RemovableHandle] = []
        if not _is_one_of_several():
            self._watch_passes()

    def look(self) -> None:
        """Look which layers have a gradient, at an update. The last one is what is asked first."""
        if not self._holds_all:
            return
        for index, learning in self._from_the_end:
            if any(id(p) in learning and p.grad is not None for p in self._parameters(index)):
                self._ended_at(index)
                return

    def close(self) -> None:
        """Remove the hooks."""
        for handle in self._handles:
            handle.remove()
        self._handles.clear()

    def _watch_passes(self) -> None:
        alive = weakref.ref(self)
        for index, learning in self._from_the_end:
            note = _note(alive, index)
            for parameter in self._parameters(index):
                if id(parameter) in learning and parameter.is_leaf:
                    handle = parameter.register_post_accumulate_grad_hook(note)
                    self._handles.append(handle)

    def _took_part(self, index: int) -> None:
        task = torch._C._current_graph_task_id()
        if task != self._task:  # also after a pass that failed
            self._task = task
            self._in_pass.clear()
            engine: Any = Variable._execution_engine
            engine.queue_callback(_end(weakref.ref(self)))
        self._in_pass.add(index)

    def _pass_ended(self) -> None:
        seen, self._in_pass = self._in_pass, set()
        if not self._holds_all:
            held = held_by(self._optimizers)
            of_layer = dict(self._from_the_end)
            if all(held.isdisjoint(of_layer[i]) for i in seen):
                return
        last = max(seen, default=self.deepest)
        self._passes += 1
        if self._passes >= _PASSES or _is_one_of_several():
            self.close()
        if not _is_one_of_several():
            self._ended_at(last)

    def _ended_at(self, index: int) -> None:
        """Note that a pass gave gradients to a layer and to none behind it."""
        if index >= self.deepest:
            return
        live = {id(p) for p in parameters_in(self._layers.model)}
        behind = [(i, learning) for i, learning in self._from_the_end if i > index]
        if not all(learning <= live for _, learning in behind):
            self._holds_all = False  # others took their place, and nothing is known of those
            self.close()
            return
        self.deepest = index
        missing = [
            i
            for i, learning in behind
            if any(id(p) in learning and p.requires_grad for p in self._parameters(i))
        ]
        if missing and not self._told:
            self._told = True
            warnings.warn(self._message(index, missing), FrozenPrefixWarning, stacklevel=2)

    def _parameters(self, index: int) -> Iterator[nn.Parameter]:
        return (parameter for _, parameter in self._layers[index].parameters)

    def _message(self, index: int, behind: list[int]) -> str:
        names = self._layers.names
        missing = ", ".join(repr(names[i]) for i in sorted(behind)[:3])
        return (
            f"a backward pass ended at layer {index} ({names[index]!r}), and what comes behind it "
            f"({missing}) got no gradient. Layers may take turns as the last, and each pass needs "
            f"one that learns, so at most {index} of {len(names)} layers will freeze, and the "
            "others learn to the end. Cut what takes turns as one layer: "
            f"layers={_cut(self._layers, index)}; or pass example=... if the order is wrong."
        )


def _note(turns: weakref.ref[Turns], index: int) -> Callable[[torch.Tensor], None]:
    def note(parameter: torch.Tensor) -> None:
        alive = turns()
        if alive is not None and not torch.compiler.is_compiling():
            alive._took_part(index)

    return note


def _end(turns: weakref.ref[Turns]) -> Callable[[], None]:
    def end() -> None:
        alive = turns()
        if alive is not None:
            alive._pass_ended()

    return end


def _is_one_of_several() -> bool:
    return dist.is_available() and dist.is_initialized()


def _cut(layers: Layers, index: int) -> str:
    """Return the cut in which all layers from one on are one, as one would write it."""
    named = {id(module): name for name, module in named_modules(layers.model)}
    before = [parts for layer in layers[:index] if (parts := _parts(layer, named))]
    together = [name for layer in layers[index:] for name in _parts(layer, named)]
    written = [repr(parts[0] if len(parts) == 1 else parts) for parts in before]
    if len(written) > _MOST_NAMES:
        written = [*written[:2], "...", *written[-2:]]
    return f"[{', '.join([*written, repr(together)])}]"


def _parts(layer: Layer, named: dict[int, str]) -> list[str]:
    """Return the names of the largest modules that lie in a layer with all their parameters."""
    own = {id(parameter) for _, parameter in layer.parameters}

    def lies_inside(module: nn.Module) -> bool:
        ids = {id(parameter) for parameter in parameters_in(module)}
        return bool(ids) and ids <= own

    whole = [m for m in layer.modules if named.get(id(m)) and lies_inside(m)]
    parts_of_parts = {id(inner) for module in whole for inner in list(modules_in(module))[1:]}
    return [named[id(module)] for module in whole if id(module) not in parts_of_parts]
