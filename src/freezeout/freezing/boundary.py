"""Watch the first forward pass after a freeze: does the backward pass really stop?

A pass that parameters of another module feed (a GAN's generator before its discriminator) must go
back through frozen layers to reach them. It says nothing about the boundary, so the watch waits for
the next pass.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.utils.hooks import RemovableHandle

from freezeout.freezing.hooks import Hook, Outside
from freezeout.layers import Layers
from freezeout.tensors import tensors_in
from freezeout.wrappers import Region, gathered_forms, refuse_reentrant, regions

__all__ = ["BoundaryWatch"]

_PATIENCE = 100
"""After so many passes in a row that other modules feed, stop waiting for another kind."""

_NAME_THEM = (
    "Name the layers so that all that feeds a frozen layer comes before it, and what runs several "
    "times is one layer (layers=...), or pass example=... for the true order of execution."
)


class BoundaryWatch:
    """Watch one forward pass with gradients, then take its hooks away.

    In a true prefix no module of a frozen layer gives an output that needs a gradient, and some
    active layer runs after it. Passes that parameters of other modules feed are skipped, and
    reported only if no other kind comes for long. Nothing inside a compiled module is hooked,
    because that would cost a compilation; only its output is examined.

    Args:
        layers: The layers of the model.
        depth: Number of frozen layers, at least 1.
        report: Called with a sentence about what keeps the backward pass alive.
        done: Called at the end of a pass that nothing keeps alive, with whether every frozen layer
            ran a module, so that everything was seen.
    """

    def __init__(
        self,
        layers: Layers,
        depth: int,
        report: Callable[[str], None],
        done: Callable[[bool], None],
    ) -> None:
        self._layers = layers
        self._depth = depth
        self._report = report
        self._done = done
        self._ran: set[int] = set()
        self._first: int | None = None  # id of the first module that ran
        self._in_model = False
        self._fed = False  # in this pass, by parameters of other modules
        self._passed_over = 0
        root = layers.model
        self._handles: list[RemovableHandle] = [
            root.register_forward_pre_hook(Hook(self._enter)),
            root.register_forward_hook(Hook(self._leave)),
        ]
        compiled = regions(root)
        self._swapped = [r.module for r in compiled if r.module is r.entry and r.module is not root]
        hidden = {id(m) for r in compiled for m in r.module.modules()}
        outsides = {id(r.module): r for r in compiled}
        for layer in layers:
            hooks = Hook(self._look, layer.index), Hook(self._look_unseen, grad=False)
            for module in layer.modules:
                if id(module) not in hidden:
                    self._handles += [module.register_forward_hook(hook) for hook in hooks]
                elif id(module) in outsides and module is not root:
                    self._watch_outside(outsides[id(module)], *hooks)

    def _watch_outside(self, region: Region, *hooks: Hook) -> None:
        if region.entry is not region.module:  # the wrapper's own hooks run outside
            self._handles += [region.entry.register_forward_hook(hook) for hook in hooks]
        else:
            Outside.put_around(region.module, *hooks)

    def _look_unseen(self, module: nn.Module, output: Any) -> None:
        """Refuse reentrant checkpointing, which runs modules without gradients."""
        try:
            refuse_reentrant(module)
        except Exception:
            self.close()
            raise

    def close(self) -> None:
        """Remove the hooks."""
        for handle in self._handles:
            handle.remove()
        self._handles.clear()
        for module in self._swapped:
            Outside.undo(module)

    def _enter(self, module: nn.Module) -> None:
        self._in_model = True
        self._begin()

    def _begin(self) -> None:
        self._ran.clear()
        self._fed = False

    def _look(self, module: nn.Module, index: int, output: Any) -> None:
        if self._first == id(module) and not self._in_model:
            if not self._fed:
                self._finish()  # a second pass over parts that are called one by one
                return
            self._begin()
        self._first = self._first or id(module)
        self._ran.add(index)
        if index >= self._depth or self._fed:
            return
        leak = next((t for t in tensors_in(output) if t.requires_grad), None)
        if leak is None:
            return
        cause, advice = self._cause(leak), _NAME_THEM
        if cause is None:
            self._fed = True
            self._passed_over += 1
            if self._passed_over < _PATIENCE:
                return
            cause = (
                f"parameters of another module that fed the model in {_PATIENCE} passes in a row"
            )
            advice = "Gradients are right. To save it all, put both in one model and cut that."
        self.close()
        self._report(
            f"layer {index} ({self._layers[index].name!r}) is frozen, but its output still needs a "
            f"gradient, because of {cause}. The backward pass goes on through frozen layers, so "
            f"less is saved. {advice}"
        )

    def _leave(self, module: nn.Module, output: Any) -> None:
        outputs = list(tensors_in(output))
        stuck = bool(outputs) and not any(t.requires_grad for t in outputs)
        if stuck and max(self._ran, default=0) < self._depth:
            self.close()
            waiting = ", ".join(repr(layer.name) for layer in self._layers[self._depth :][:3])
            self._report(
                f"all {self._depth} layers that the model runs are frozen, so nothing is left to "
                f"learn and backward() will fail: {waiting} did not run. The layer that runs last "
                "must be the last of the list: pass example=... or layers=..."
            )
        elif not self._fed:
            self._finish()

    def _finish(self) -> None:
        self.close()
        self._done(self._ran.issuperset(range(self._depth)))

    def _cause(self, output: torch.Tensor) -> str | None:
        """Say what keeps the backward pass alive; ``None`` if only other modules do."""
        model = self._layers.model
        names = {id(p): name for name, p in model.named_parameters()}
        forms = gathered_forms(model)
        active: list[str] = []
        again: list[str] = []
        others = False
        for leaf in _leaves_of_graph(output):
            known = forms.get(id(leaf), leaf)
            name = names.get(id(leaf), names.get(id(known)))
            if name is not None:
                index = self._layers.index_of(known) if isinstance(known, nn.Parameter) else None
                unfrozen = index is not None and index < self._depth
                (again if unfrozen else active).append(f"{name!r} (layer {index})")
            elif isinstance(leaf, nn.Parameter):
                others = True
            elif leaf is not output:  # or made by requires_grad_() on what a frozen module gave
                return f"an input of shape {tuple(leaf.shape)} that itself requires a gradient"
        if again and not active:
            return f"frozen parameters that were made to require a gradient again: {again[0]}"
        if not active and others:
            return None
        if not active:
            return (
                "an output that was marked as requiring a gradient (with transformers, "
                "enable_input_require_grads() does that: call disable_input_require_grads())"
            )
        more = f" and {len(active) - 3} more" if len(active) > 3 else ""
        return f"active parameters that feed it: {', '.join(active[:3])}{more}"


def _leaves_of_graph(output: torch.Tensor) -> list[torch.Tensor]:
    """Return the tensors at which the backward pass from `output` would end."""
    if output.grad_fn is None:
        return [output]
    leaves, seen, stack = [], {output.grad_fn}, [output.grad_fn]
    while stack:
        node = stack.pop()
        variable = getattr(node, "variable", None)
        if variable is not None:
            leaves.append(variable)
        for parent, _ in node.next_functions:
            if parent is not None and parent not in seen:
                seen.add(parent)
                stack.append(parent)
    return leaves
