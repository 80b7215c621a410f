"""Keep the promise of a freezer around every update: what is frozen stays, what should learn does.

It takes the account of parameters, guards each optimizer's step, and has the witness and the
learners looked at; `Freezer` calls it before and after a freeze.
"""

from __future__ import annotations

import warnings
import weakref
from collections.abc import Callable, Iterable, Sequence
from typing import Any
from weakref import WeakKeyDictionary, WeakMethod, WeakSet

import torch
from torch import nn
from torch.optim import Optimizer
from torch.utils.hooks import RemovableHandle

from freezeout.errors import FrozenPrefixWarning, MovementError, MovementWarning, PrefixError
from freezeout.freezing.account import Account, name_some, note_run, take_account
from freezeout.freezing.bits import can_read
from freezeout.freezing.causes import cause_of_movement, cause_of_standstill
from freezeout.freezing.eval_mode import StayInEval
from freezeout.freezing.eval_mode import guard_of as mode_guard_of
from freezeout.freezing.holders import has_hooks, held_by, note_all, other_holders
from freezeout.freezing.learners import Learners
from freezeout.freezing.optimizers import is_inner_step, makes_state_only
from freezeout.freezing.others import Others
from freezeout.freezing.step_guard import StepGuard, guard_of
from freezeout.freezing.witness import Witness
from freezeout.layers import is_ours, named_parameters, parameters_in

__all__ = ["Keeper"]

_LATEST: WeakKeyDictionary[nn.Module, weakref.ref[Keeper]] = WeakKeyDictionary()
"""The keeper of a model's last freezer: that one has thawed what those before it froze."""


class Keeper:
    """Account for parameters, and watch what a freezer's optimizers do to them.

    Args:
        model: The model, without wrappers.
        optimizers: Those of the freezer; the list may grow.
        strict: Raise instead of warning.
        witness: Whether to watch the bits of what is frozen and of what should learn.
    """

    def __init__(
        self, model: nn.Module, optimizers: list[Optimizer], *, strict: bool, witness: bool
    ) -> None:
        self._model = model
        _LATEST[model] = weakref.ref(self)
        self._optimizers = optimizers
        self._strict = strict
        self._witness = Witness() if witness else None
        self._learners: WeakKeyDictionary[Optimizer, Learners] = WeakKeyDictionary()
        self._guards: list[StepGuard] = []
        self._modes: list[StayInEval] = []
        self._followed: WeakSet[Optimizer] = WeakSet()
        self._others = Others()
        self._accounted = False
        self._searched = False
        self._told: set[tuple[str, str]] = set()
        for optimizer in optimizers:
            self.follow(optimizer)
        self._kept: list[tuple[str, nn.Parameter]] = []
        self._has_loaded = False
        self._on_load: list[RemovableHandle] = []
        weakref.finalize(self, _remove_all, self._on_load).atexit = False

    def follow(self, optimizer: Optimizer) -> None:
        """Watch an optimizer's updates from now on, for as long as the keeper lives.

        Args:
            optimizer: One of the freezer's.
        """
        if optimizer in self._followed:
            return
        self._followed.add(optimizer)
        note_run(self._model, optimizer)
        if not has_hooks(optimizer):
            return
        if self._witness is not None:
            names = {id(p): name for name, p in named_parameters(self._model)}
            self._learners[optimizer] = Learners(names)
        optimizer.register_step_pre_hook(_Passed(WeakMethod(self._before)))
        optimizer.register_step_post_hook(_Passed(WeakMethod(self._after)))

    def account(self) -> Account:
        """Return what becomes of every parameter of the model now."""
        return take_account(self._model, self._optimizers)

    def spared(self, parameters: Iterable[tuple[str, nn.Parameter]]) -> set[int]:
        """Return which parameters are not to be frozen, because another optimizer moves them.

        What no optimizer holds is told, too, and what another one trains beside the freezer's.

        Args:
            parameters: What is about to be frozen.

        Raises:
            PrefixError: If there are such parameters, and the keeper is strict.
        """
        for optimizer in self._optimizers:
            self.follow(optimizer)
        if not self._optimizers:
            return set()
        account = self._take(wrappers=not self._searched)
        self._searched = True  # for wrappers at the first freeze; one is rarely made later
        elsewhere = set(account.names("held elsewhere"))
        freezing = list(parameters)
        found = [(name, p) for name, p in freezing if name in elsewhere]
        self._tell_of_both([(name, p) for name, p in freezing if name not in elsewhere])
        if found:
            holders = {e.holder for e in account.entries if e.name in elsewhere}
            self._tell(
                "elsewhere",
                [name for name, _ in found],
                f"another optimizer ({', '.join(sorted(filter(None, holders)))}) holds {{names}}, "
                "so FreezeOut leaves that alone: it goes on learning, and the backward pass goes "
                "on through it. If both train this model, make a FreezeOut for each and pass "
                "together_with= to the second; if the other has done its work, delete it.",
                FrozenPrefixWarning,
                PrefixError,
            )
        return {id(p) for _, p in found}

    def frozen(
        self, parameters: Sequence[tuple[str, nn.Parameter]], modules: Sequence[nn.Module]
    ) -> None:
        """Take over what is frozen now, after a freeze or unfreeze.

        Args:
            parameters: Names and parameters of all frozen layers.
            modules: The modules of all frozen layers.
        """
        watched = [optimizer for optimizer in self._optimizers if has_hooks(optimizer)]
        kept = [(name, p) for name, p in parameters if is_ours(self._model, name, p)]
        self._kept = kept
        if kept or self._guards:
            self._guards = [guard_of(optimizer) for optimizer in watched]
            for guard, optimizer in zip(self._guards, watched, strict=True):
                guard.watch(kept, optimizer, self._touched)
        modes = [mode_guard_of(module) for module in modules if "training" in module.__dict__]
        self._modes = [guard for guard in modes if guard is not None]
        self._follow_loading(modules if kept else ())
        if self._witness is not None and watched:
            self._witness.take(self._model, kept, modules)

    def look(self, *, everything: bool = False) -> None:
        """Look at what is frozen: put back what a wrapper moved, and tell the rest.

        Args:
            everything: Sum up all bits, rather than those that were written to in place.
        """
        if self._has_loaded:
            self._has_loaded = False
            for guard in self._guards:
                guard.forget_copies()
            if self._witness is not None:
                self._witness.take_again()
        for guard in self._guards:
            guard.look()
        if self._witness is not None:
            self._moved(self._witness.look(everything=everything))
            self._tell_of_thawed()

    def after_update(self) -> None:
        """Put back what a wrapper moved, and groups that a step has hidden and then failed."""
        if not self._guards:
            return
        for optimizer in self._optimizers:
            if has_hooks(optimizer):
                guard_of(optimizer).put_back(optimizer)
        for guard in self._guards:
            guard.look()

    def _follow_loading(self, modules: Sequence[nn.Module]) -> None:
        """Have `_loaded` called when a state is loaded into one of these, or what is around it."""
        _remove_all(self._on_load)
        hook = _Loaded(WeakMethod(self._loaded))
        for module in modules:
            if not isinstance(module, torch.jit.ScriptModule):
                self._on_load.append(module.register_load_state_dict_post_hook(hook))

    def _loaded(self) -> None:
        """Take what was loaded into the model for right at the next look: it is no movement."""
        self._has_loaded = True

    def _tell_of_thawed(self) -> None:
        """Tell of frozen parameters that were made to require a gradient, and have a rate."""
        thawed = {id(p): name for name, p in self._kept if p.requires_grad}
        if not thawed or _LATEST[self._model]() is not self:
            return
        if self._witness is not None:
            self._witness.leave_thawed()
        moving = [
            thawed[id(p)]
            for optimizer in self._optimizers
            for group in optimizer.param_groups
            for p in group["params"]
            if id(p) in thawed and float(group.get("lr", 1.0) or 0.0) > 0.0
        ]
        self._tell(
            "thawed",
            moving,
            "frozen parameters were made to require a gradient again, and learn: {names}. "
            "freezer.settle() freezes them again; to train them for good, unfreeze the layer "
            "(freezer.set_depth).",
        )

    def _before(self, optimizer: Optimizer) -> None:
        if not can_read():
            return
        if not self._accounted:
            self._accounted = True
            self._take()
        self.look()
        for guard in self._modes:
            if guard.module.__dict__["training"]:  # set without train()
                guard.hold()
        learners = self._learners.get(optimizer)
        if learners is not None and not learners.done:
            learners.before(optimizer)

    def _after(self, optimizer: Optimizer) -> None:
        learners = self._learners.get(optimizer)
        learning = learners is not None and not learners.done
        if self._witness is None or not (learning or self._guards) or not can_read():
            return
        skipped = getattr(optimizer, "found_inf", None)
        if (skipped is not None and bool(skipped)) or makes_state_only(optimizer):
            return
        if learners is not None and learning:
            self._stand_still(optimizer, learners.after())
        if self._guards:
            self._moved(self._witness.update())

    def _tell_of_both(self, freezing: Sequence[tuple[str, nn.Parameter]]) -> None:
        """Tell of optimizers that train what is about to be frozen beside the freezer's."""
        held: dict[str, set[int]] = {}  # by class: there may be one for each parameter
        for other in self._others.stepping(self._optimizers):
            held.setdefault(type(other).__name__, set()).update(held_by([other]))
        for kind, ids in held.items():
            self._tell(
                f"both {kind}",
                [name for name, p in freezing if id(p) in ids],
                f"{{names}} are also held by another optimizer ({kind}), which trains them: "
                "FreezeOut freezes them for both. Make a FreezeOut for that one too, and pass "
                "together_with= to the second; or leave them out of one of the two optimizers.",
                FrozenPrefixWarning,
                PrefixError,
            )

    def _take(self, *, wrappers: bool = False) -> Account:
        """Take the account, and tell what no optimizer holds; others are searched for if need be.

        That search finds wrappers, too, that were made since; without it, only if they are wanted.
        """
        self._others.watch()
        held = held_by(self._optimizers)
        left = [p for p in parameters_in(self._model) if p.requires_grad and id(p) not in held]
        found = other_holders(self._optimizers, left) if left else []
        if wrappers and not left:
            note_all(self._optimizers)
        others = self._others.alive(found)
        account = take_account(self._model, self._optimizers, others)
        lost = account.names("in no optimizer")
        if lost:
            self._tell(
                "lost",
                lost,
                "no optimizer holds {names}, although a gradient is required there: "
                f"{_share(account.share('in no optimizer'))} of the model never learns. Give "
                "it to the optimizer before FreezeOut is made, or to another with together_with=; "
                "what came later takes freezeout.unfreeze(model), a new optimizer and a new "
                "FreezeOut. If it is to stay as it is, call requires_grad_(False).",
            )
        return account

    def _touched(self, names: Sequence[str], what: str) -> None:
        if self._witness is not None:
            self._witness.take_again()
        self._tell("touched", names, what)

    def _moved(self, names: Sequence[str]) -> None:
        if not names:
            return
        for guard in self._guards:
            guard.try_again()
        owners = {} if self._witness is None else self._witness.owners(names)
        cause = cause_of_movement(self._model, names, owners, self._optimizers)
        self._tell("moved", names, f"frozen parameters or buffers moved: {{names}}. {cause}")

    def _stand_still(self, optimizer: Optimizer, names: Sequence[str]) -> None:
        if names:
            parameters = dict(named_parameters(self._model))
            found = [parameters[name] for name in names if name in parameters]
            self._tell(
                "still",
                names,
                "parameters never moved, although they had gradients and a rate: {names}. "
                f"{cause_of_standstill(optimizer, found)}",
            )

    def _tell(
        self,
        topic: str,
        names: Sequence[str],
        what: str,
        warning: type[Warning] = MovementWarning,
        error: type[Exception] = MovementError,
    ) -> None:
        """Say something about parameters, once for each; `what` has a place for their names."""
        new = [name for name in names if (topic, name) not in self._told]
        self._told.update((topic, name) for name in new)
        if not new:
            return
        message = what.replace("{names}", name_some(new))
        if self._strict:
            raise error(message)
        warnings.warn(message, warning, stacklevel=2)


def _remove_all(handles: list[RemovableHandle]) -> None:
    while handles:
        handles.pop().remove()


def _share(fraction: float) -> str:
    return f"{100 * fraction:.0f} %" if fraction >= 0.1 else f"{100 * fraction:.2g} %"


class _Passed:
    """Pass a step on to a keeper while it lives."""

    def __init__(self, method: WeakMethod[Any]) -> None:
        self._method = method

    def __call__(self, optimizer: Optimizer, args: Any, kwargs: Any) -> None:
        method = self._method()
        if method is not None and not is_inner_step(optimizer):
            method(optimizer)


class _Loaded:
    """Take the bits again once a state is loaded; in a copy or a pickle of the model do nothing."""

    def __init__(self, action: WeakMethod[Callable[[], None]] | None) -> None:
        self._action = action

    def __call__(self, module: nn.Module, keys: Any) -> None:
        action = None if self._action is None else self._action()
        if action is not None:
            action()

    def __reduce__(self) -> tuple[type[_Loaded], tuple[None]]:
        return _Loaded, (None,)
