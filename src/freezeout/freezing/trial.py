"""Try out whether parts that freeze return something else in evaluation mode.

A detector's proposal network returns losses while it trains, other networks auxiliary outputs; in
evaluation mode they drop them, and the loop that trains the rest breaks; what learns behind a part
that returns another size would learn on that. Such a part keeps its own flag as asked. What is
inside it, norms and dropout, is in evaluation mode all the same.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator, Mapping
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import nn

from freezeout.errors import FrozenPrefixWarning, PrefixError
from freezeout.freezing.eval_mode import guard_of
from freezeout.freezing.hooks import (
    Handle,
    Hook,
    Outside,
    hook_after,
    hook_before,
    hook_outside,
    unwatched,
)
from freezeout.freezing.outline import Outlines, alike, is_of_torch, outline, reads_mode
from freezeout.freezing.scratch import cloned, same_bits, without_trace
from freezeout.layers import modules_in
from freezeout.tensors import tensors_in
from freezeout.wrappers import is_joined, regions

__all__ = ["Trial"]


class Trial:
    """Look at the first training pass of each frozen part: has its output the usual structure?

    The usual one is known from a training pass before the freeze. Parts with another one are run
    once more as in training, without a trace, and so are those whose class speaks of ``training``:
    what they return may have another size.

    Args:
        model: The model.
        frozen: Its frozen modules.
        outlines: What they returned before. Decisions are kept there as well.
    """

    def __init__(self, model: nn.Module, frozen: Iterable[nn.Module], outlines: Outlines) -> None:
        self._outlines = outlines
        self._handles: WeakKeyDictionary[nn.Module, list[Handle | Outside]] = WeakKeyDictionary()
        self._versions: dict[nn.Module, list[tuple[torch.Tensor, int]]] = {}
        compiled = {id(region.module): region for region in regions(model)}
        hidden = {id(m) for region in compiled.values() for m in modules_in(region.module)}
        for module in frozen:
            if not self._is_open(module):
                continue
            before, after = Hook(self._enter, grad=None, inputs=True), self._hook(module)
            if id(module) in compiled and module is not model:
                self._handles[module] = hook_outside(compiled[id(module)], [after])
            elif id(module) not in hidden:
                self._handles[module] = [hook_before(module, before), hook_after(module, after)]

    def close(self) -> None:
        """Remove the hooks of what has not run yet."""
        for handles in self._handles.values():
            for handle in handles:
                handle.remove()
        self._handles.clear()

    def _hook(self, module: nn.Module) -> Hook:
        return Hook(self._leave, module, grad=None, inputs=True)

    def _is_open(self, module: nn.Module) -> bool:
        guard = guard_of(module)
        if guard is None or guard.tried or is_of_torch(module):
            return False
        decided = self._outlines.decided(module)
        if decided is not None:
            guard.keeps_flag, guard.tried = decided, True
            guard.hold()
            return False
        if isinstance(module, torch.jit.ScriptModule):
            return False
        kind: type = type(module)
        return self._outlines.has(module) or reads_mode(kind)

    def _enter(self, module: nn.Module, args: Any, kwargs: Any) -> None:
        self._versions[module] = [(t, _version(t)) for t in tensors_in([args, kwargs])]

    def _leave(
        self,
        called: nn.Module,
        module: nn.Module,
        args: Any,
        kwargs: Mapping[str, Any],
        output: Any,
    ) -> Any:
        """Return another output if the module must keep its own flag, and ``None`` otherwise."""
        guard = guard_of(module)
        inputs = self._versions.pop(module, [])
        if guard is None or not guard.due:  # thawed; or a pass to evaluate
            return None
        if getattr(called, "_is_replica", False):  # of DataParallel, for one pass on one device
            return None
        for handle in self._handles.pop(module, []):
            handle.remove()
        guard.tried = True
        kind: type = type(module)
        fits = self._outlines.fits(module, outline(output))
        if fits and (not reads_mode(kind) or _has_hooks_inside(module) or is_joined()):
            return None  # in several processes a norm would send messages that nobody expects
        try:
            usual = _on_the_side(module, args, kwargs, as_asked=True)
            if alike(outline(output, sizes=True), usual):
                return None
            still = _on_the_side(module, args, kwargs)
        except Exception as error:  # its inputs cannot be copied, or were changed by the first run
            if self._outlines.has(module) and not fits:
                _warn_of_doubt(module, error)
            return None
        if alike(still, usual):  # it depends on the data or on chance then
            return None
        if any(_version(t) != version for t, version in inputs):
            _refuse(module, "changes its input in place, so it cannot be run again")
        guard.keeps_flag = True
        guard.hold()
        repeated = _run_again(module, args, kwargs)
        if not alike(outline(repeated, sizes=True), usual):
            guard.keeps_flag = False
            guard.hold()
            _refuse(module, "takes the mode of what is inside it")
        self._outlines.decide(module, True)
        return repeated


def _has_hooks_inside(module: nn.Module) -> bool:
    """Return whether hooks of others are inside, which would see one more pass."""
    return any(
        not isinstance(hook, Hook)
        for inner in module.modules()
        if inner is not module
        for hooks in (inner._forward_pre_hooks, inner._forward_hooks)
        for hook in hooks.values()
    )


def _on_the_side(
    module: nn.Module, args: Any, kwargs: Mapping[str, Any], *, as_asked: bool = False
) -> Any:
    """Return the outline, with sizes, of what a module returns: as it is, or with modes as asked.

    Every run begins with the same random numbers.
    """
    given = cloned([args, dict(kwargs)])
    with unwatched(), without_trace(module, given):
        for inner in modules_in(module) if as_asked else ():
            guard = guard_of(inner)
            if guard is not None and not is_of_torch(inner):  # norms and dropout have no say in it
                inner.training = guard.due
        return outline(module.forward(*given[0], **given[1]), sizes=True)


def _run_again(module: nn.Module, args: Any, kwargs: Mapping[str, Any]) -> Any:
    """Run a module's forward pass, and refuse it if that changes a buffer or a parameter."""
    before = [(name, t, t.detach().clone()) for name, t in _named_tensors(module)]
    with unwatched():
        output = module.forward(*args, **kwargs)
    now = dict(_named_tensors(module))
    for name, tensor, value in before:
        if now.get(name) is not tensor or not same_bits(tensor, value):
            kind = "parameter" if isinstance(tensor, nn.Parameter) else "buffer"
            _refuse(module, f"also changes its {kind} {name!r} in training mode")
    return output


def _named_tensors(module: nn.Module) -> Iterator[tuple[str, torch.Tensor]]:
    yield from module.named_buffers()
    yield from module.named_parameters()


def _refuse(module: nn.Module, why: str) -> None:
    raise PrefixError(
        f"{type(module).__name__} is frozen, and returns something else in evaluation mode than in "
        f"training, but {why}. Freeze no layer that holds it (a later freeze time, or one layer "
        "with what comes after it), or move what only training needs out of it."
    )


def _warn_of_doubt(module: nn.Module, error: Exception) -> None:
    warnings.warn(
        f"{type(module).__name__} is frozen, and has returned something of another structure than "
        f"in training; whether because of evaluation mode is not known ({error}). Compare what it "
        "returns in both modes; if that differs, freeze no layer that holds it.",
        FrozenPrefixWarning,
        stacklevel=2,
    )


def _version(tensor: torch.Tensor) -> int:
    return 0 if tensor.is_inference() else int(tensor._version)
