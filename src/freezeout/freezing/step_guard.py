"""Keep an optimizer's step away from frozen parameters, whatever it does with what has no gradient.

Most optimizers skip a parameter without a gradient. Some make zeros of missing gradients, decay
weights all the same, or pull them towards an average. So the first step after a freeze is a trial:
what has just frozen is copied, and compared after it. An optimizer that fails is kept away.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, MutableMapping, Sequence
from typing import Any
from weakref import WeakKeyDictionary, WeakMethod

import torch
from torch import nn
from torch.optim import Optimizer

from freezeout.freezing.bits import can_read, same_bits
from freezeout.freezing.holders import held_by, holders_of, keeps_tensors
from freezeout.freezing.lists import walks_beside_groups, walks_beside_parameters
from freezeout.freezing.optimizers import is_inner_step, keeps_parts, makes_state_only

__all__ = ["StepGuard", "Tell", "guard_of"]

Tell = Callable[[Sequence[str], str], None]
"""Takes the names of parameters, and what happened, with ``{names}`` in their place."""

_WRAPPED = 32
"""A wrapper writes in one of so many updates at the least (Lookahead in every fifth or tenth)."""

_GUARDS: WeakKeyDictionary[Optimizer, StepGuard] = WeakKeyDictionary()


class StepGuard:
    """Watch the steps of one optimizer, and hide frozen parameters from it if it needs that.

    An optimizer that moves a frozen parameter, fills its missing gradient or makes state for it
    does not see frozen parameters any more: before a step they are taken out of its groups, and
    groups that are frozen as a whole out of its list, and everything is put back after it. If one
    moves nevertheless (a wrapper writes after the step), its copy is kept and put back each time.

    Args:
        optimizer: One that can be watched.
    """

    def __init__(self, optimizer: Optimizer) -> None:
        self.hides = False
        self.pins = False
        self._kind = type(optimizer).__name__
        self._frozen: dict[int, tuple[str, nn.Parameter]] = {}
        self._parameters: list[nn.Parameter] = []
        self._trial: dict[int, int] = {}  # updates left, by the id of a frozen parameter
        self._copies: dict[int, torch.Tensor] = {}
        self._stepped = False
        self._open = False  # a step has begun, and is not done
        self._wrapped = False
        self._walks: bool | None = None
        self._hidden: list[tuple[dict[str, Any], list[Any]]] = []
        self._groups: list[dict[str, Any]] | None = None
        self._tell: WeakMethod[Tell] | None = None
        optimizer.register_step_pre_hook(self._before)
        handle = optimizer.register_step_post_hook(self._after)
        hooks: Any = optimizer._optimizer_step_post_hooks
        if isinstance(hooks, OrderedDict):  # others are to find the groups as they were
            hooks.move_to_end(handle.id, last=False)
        optimizer.register_state_dict_pre_hook(self.put_back)

    def watch(
        self, frozen: Sequence[tuple[str, nn.Parameter]], optimizer: Optimizer, tell: Tell
    ) -> None:
        """Take over what is frozen now; what was not before is on trial.

        Args:
            frozen: Names and parameters of all that is frozen.
            optimizer: The guard's own.
            tell: A method that is told what went wrong. Its object may go away.
        """
        held = held_by([optimizer])
        self.put_back(optimizer)
        before, self._frozen = self._frozen, {id(p): (n, p) for n, p in frozen if id(p) in held}
        self._wrapped = keeps_tensors(optimizer)
        self._parameters = [p for _, p in self._frozen.values()]
        trial = _WRAPPED if self._wrapped else 1
        fresh = {key: trial for key in self._frozen if key not in before}
        self._trial = {k: n for k, n in (self._trial | fresh).items() if k in self._frozen}
        self._copies = {k: copy for k, copy in self._copies.items() if k in self._frozen}
        self._tell = WeakMethod(tell)

    def try_again(self) -> None:
        """Put all that is frozen on trial in the next step."""
        for key in self._frozen:
            self._trial.setdefault(key, 1)

    def forget_copies(self) -> None:
        """Take parameters as they are now for right: a state was loaded into the model."""
        self._copies.clear()
        self._stepped = self._open = False

    def look(self) -> None:
        """Put back what moved since the last step: what a wrapper around the optimizer wrote.

        A step that was interrupted leaves what it moved, too, and the trial goes on.
        """
        if self._open:
            self._open = False
            self._put_back_bits(self._moved())
        if not self._stepped:
            return
        self._stepped = False
        moved = self._moved()
        self._put_back_bits(moved)
        new = bool(moved) and not self.pins
        self.pins = self.pins or new
        self._count()
        if new:
            self._say(
                moved,
                f"frozen parameters moved after the step of {self._kind} was done: {{names}}. What "
                "stands around it writes to all parameters; their bits were put back, and will be "
                "after every update. Let it skip what requires no gradient.",
            )

    def put_back(self, optimizer: Optimizer) -> None:
        """Put groups back as they were before a step, also one that failed halfway."""
        if self._groups is not None:
            optimizer.param_groups[:] = self._groups
            self._groups = None
        for group, parameters in self._hidden:
            group["params"] = parameters
        self._hidden = []

    def _before(self, optimizer: Optimizer, args: Any, kwargs: Any) -> None:
        if is_inner_step(optimizer):
            return
        self.put_back(optimizer)
        if not self._frozen:
            return
        for p in [p for p in self._parameters if p.grad is not None]:  # filled by somebody else
            if not p.requires_grad:
                p.grad = None
        if (self._trial or self._copies) and can_read():
            self.look()
            self._copy()
            self._open = True
        if self.hides:
            self._hide(optimizer)

    def _after(self, optimizer: Optimizer, args: Any, kwargs: Any) -> None:
        if is_inner_step(optimizer):
            return
        self.put_back(optimizer)
        self._open = False
        if not self._copies or not can_read():
            return
        skipped = getattr(optimizer, "found_inf", None)
        if (skipped is not None and bool(skipped)) or makes_state_only(optimizer):
            return
        self._stepped = True
        touched = self._touched(optimizer)
        if not touched:
            if not (self._wrapped or self.pins):
                self._stepped = False
                self._count()
            return
        self._stepped = False
        what = "; ".join(dict.fromkeys(touched.values()))
        blind = ", although it did not see them" if self.hides else ""
        self.pins = self.pins or self.hides
        self.hides = not walks_beside_parameters(optimizer)  # these would no longer fit
        self.pins = self.pins or not self.hides
        self._put_back_bits(list(touched))
        for key in touched:
            self._forget_state(optimizer, self._frozen[key][1])
        for key in self._frozen:
            self._trial.setdefault(key, 1)
        self._say(
            list(touched),
            f"a step of {self._kind} reached frozen parameters ({{names}}){blind}: it {what}. They "
            "were put back, and are kept away from it from now on. Nothing is lost; an optimizer "
            "that skips what has no gradient would be faster.",
        )

    def _touched(self, optimizer: Optimizer) -> dict[int, str]:
        """Return what a step did to parameters on trial, in words, by their ids."""
        moved = set(self._moved())
        found = {}
        for key in self._copies:
            parameter = self._frozen[key][1]
            if parameter.requires_grad:  # thawed since
                continue
            if key in moved:
                found[key] = "moves what has no gradient"
            elif parameter.grad is not None:
                found[key] = "makes zeros of missing gradients"
            elif self._has_state(optimizer, parameter):
                found[key] = "makes state for what has no gradient"
        return found

    def _moved(self) -> list[int]:
        keys = [key for key in self._copies if not self._frozen[key][1].requires_grad]
        pairs = [(self._frozen[key][1], self._copies[key]) for key in keys]
        alike = [
            a.dtype == b.dtype and a.device == b.device and a.shape == b.shape for a, b in pairs
        ]
        if not all(alike):  # it was taken to another device or type
            self._copies = {k: self._copies[k] for k, ok in zip(keys, alike, strict=True) if ok}
            return self._moved()
        same = same_bits(pairs)
        return [key for key, equal in zip(keys, same, strict=True) if not equal]

    @torch.no_grad()
    def _copy(self) -> None:
        """Copy what is on trial; copies that outlast a step are kept as they are."""
        if not (self._wrapped or self.pins):
            self._copies.clear()
        for key in self._frozen if self.pins else self._trial:
            if key not in self._copies:
                self._copies[key] = self._frozen[key][1].detach().clone()

    @torch.no_grad()
    def _put_back_bits(self, keys: Sequence[int]) -> None:
        for key in keys:
            parameter = self._frozen[key][1]
            parameter.copy_(self._copies[key])
            parameter.grad = None

    def _count(self) -> None:
        """Count an update of the trial; a parameter that has passed needs its copy no longer."""
        self._trial = {key: left - 1 for key, left in self._trial.items() if left > 1}
        if not self.pins:
            self._copies = {key: c for key, c in self._copies.items() if key in self._trial}

    def _hide(self, optimizer: Optimizer) -> None:
        groups = optimizer.param_groups
        if self._walks is None:
            self._walks = walks_beside_groups(optimizer)
        for group in groups:
            hidden = {
                id(p) for p in group["params"] if id(p) in self._frozen and not p.requires_grad
            }
            if hidden:
                self._hidden.append((group, group["params"]))
                group["params"] = [p for p in group["params"] if id(p) not in hidden]
        if self._hidden and not self._walks:
            self._groups = list(groups)
            groups[:] = [group for group in groups if group["params"]]

    @staticmethod
    def _has_state(optimizer: Optimizer, parameter: nn.Parameter) -> bool:
        kept = optimizer.state
        return not keeps_parts(optimizer) and parameter in kept and bool(kept[parameter])

    @staticmethod
    def _forget_state(optimizer: Optimizer, parameter: nn.Parameter) -> None:
        for holder in holders_of(optimizer):
            kept = getattr(holder, "state", None)
            if isinstance(kept, MutableMapping):
                kept.pop(parameter, None)
        parameter.grad = None

    def _say(self, keys: Sequence[int], what: str) -> None:
        tell = None if self._tell is None else self._tell()
        if tell is not None:
            tell([self._frozen[key][0] for key in keys], what)


def guard_of(optimizer: Optimizer) -> StepGuard:
    """Return the guard of an optimizer, the same each time.

    Args:
        optimizer: One that can be watched.
    """
    guard = _GUARDS.get(optimizer)
    if guard is None:
        guard = _GUARDS[optimizer] = StepGuard(optimizer)
    return guard
