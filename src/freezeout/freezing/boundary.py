"""Watch the first forward pass after a freeze: does the backward pass really stop?

A pass that parameters of another module feed (a GAN's generator before its discriminator) must go
back through frozen layers to reach them. It says nothing about the boundary, so the watch waits for
the next pass.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

from torch import nn

from freezeout.errors import FrozenPrefixWarning, PrefixError
from freezeout.freezing.hooks import Handle, Hook, Outside, hook_after, hook_before, hook_outside
from freezeout.freezing.leaks import Leak, find_leak
from freezeout.layers import Layers, modules_in
from freezeout.tensors import tensors_in
from freezeout.wrappers import refuse_reentrant, regions

__all__ = ["BoundaryWatch", "report"]

_PATIENCE = 100
"""After so many passes in a row that other modules feed, stop waiting for another kind."""

_FED = Leak(
    f"parameters of another module that fed the model in {_PATIENCE} passes in a row",
    "Gradients are right. To save it all, put both in one model and cut that.",
)


class BoundaryWatch:
    """Watch one forward pass with gradients, then take its hooks away.

    In a true prefix no module of a frozen layer gives an output that needs a gradient, and some
    active layer runs after it. Passes that parameters of other modules feed are skipped, and
    reported only if no other kind comes for long. Nothing inside a compiled module is hooked,
    because that would cost a compilation; only its output is examined. If no such pass comes, the
    hooks live as long as the model does: what they call must not hold the optimizer.

    Args:
        layers: The layers of the model.
        depth: Number of frozen layers, at least 1.
        report: Called with a sentence about what keeps the backward pass alive.
        follow: Called when the model is called; it freezes what has come into frozen layers since
            the freeze, and returns whether anything has.
        done: Called at the end of a pass that nothing keeps alive, with whether every frozen layer
            ran a module, so that everything was seen.
    """

    def __init__(
        self,
        layers: Layers,
        depth: int,
        report: Callable[[str], None],
        follow: Callable[[], bool | None],
        done: Callable[[bool], object],
    ) -> None:
        self._layers = layers
        self._depth = depth
        self._report = report
        self._follow = follow
        self._done = done
        self._ran: set[int] = set()
        self._first: int | None = None  # id of the first module that ran
        self._in_model = False
        self._fed = False  # in this pass, by parameters of other modules
        self._passed_over = 0
        root = layers.model
        self._outer = [
            hook_before(root, Hook(self._enter)),
            hook_after(root, Hook(self._leave)),
        ]
        self._inner: list[Handle | Outside] = []
        self._hook_layers()

    def _hook_layers(self) -> None:
        root = self._layers.model
        compiled = regions(root)
        hidden = {id(m) for r in compiled for m in modules_in(r.module)}
        outsides = {id(r.module): r for r in compiled}
        for layer in self._layers:
            hooks = [Hook(self._look, layer.index), Hook(self._look_unseen, grad=False)]
            for module in layer.modules:
                if id(module) not in hidden:
                    self._inner += [hook_after(module, hook) for hook in hooks]
                elif id(module) in outsides and module is not root:
                    self._inner += hook_outside(outsides[id(module)], hooks)

    def _look_unseen(self, module: nn.Module, output: Any) -> None:
        """Refuse reentrant checkpointing, which runs modules without gradients."""
        try:
            refuse_reentrant(module)
        except Exception:
            self.close()
            raise

    def close(self) -> None:
        """Remove the hooks."""
        for handle in (*self._inner, *self._outer):
            handle.remove()
        self._inner.clear()
        self._outer.clear()

    def _enter(self, module: nn.Module) -> None:
        self._in_model = True
        self._begin()
        if self._follow():
            for handle in self._inner:
                handle.remove()
            self._inner.clear()
            self._hook_layers()

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
        found = find_leak(self._layers, self._depth, leak)
        if found is None:
            self._fed = True
            self._passed_over += 1
            if self._passed_over < _PATIENCE:
                return
            found = _FED
        self.close()
        self._report(
            f"layer {index} ({self._layers[index].name!r}) is frozen, but its output still needs a "
            f"gradient, because of {found.cause}. The backward pass goes on through frozen layers, "
            f"so less is saved. {found.advice}"
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


def report(strict: bool, told: set[str], message: str) -> None:
    """Say what keeps the backward pass alive, once.

    Args:
        strict: Whether to raise instead of warning.
        told: What has been said so far; the message is added.
        message: What to say.

    Raises:
        PrefixError: If it is strict.
    """
    if strict:
        raise PrefixError(message)
    if message not in told:
        told.add(message)
        warnings.warn(message, FrozenPrefixWarning, stacklevel=2)
