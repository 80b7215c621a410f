"""One forward pass of a model whose frozen prefix is captured.

While it runs, every function of tensors comes by here. One whose arguments are lazy, constant or
plain gives lazy tensors; all others run for real. What they need is made real at that moment.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from types import FrameType
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from freezeout.prefix.constants import Constants
from freezeout.prefix.evaluating import state_now
from freezeout.prefix.keys import Active, Unreadable, key_part, template
from freezeout.prefix.lazy import Lazy, answer, is_question, lazies_in, or_lazy, run, with_real
from freezeout.prefix.memory import Memory
from freezeout.prefix.nodes import Call, Node, Plan, nodes_in, short_name
from freezeout.prefix.recording import (
    OPEN,
    REAL,
    Changes,
    InPlace,
    Many,
    Same,
    observed,
    outputs_of,
)
from freezeout.prefix.source import Source
from freezeout.prefix.stand_ins import StandIn
from freezeout.prefix.watching import Pause, take_off, watch

__all__ = ["ForwardPass"]

_T: Any = torch.Tensor
_ESCAPES = {_T.data.__get__, _T.data.__set__, _T.untyped_storage, _T.storage, _T.data_ptr, _T.set_}
_ESCAPES |= {_T.as_strided, torch.as_strided, _T.numpy, _T.__array__, _T.__dlpack__, _T.as_subclass}
"""Functions that give away memory itself: what happens to it then is not seen."""


class ForwardPass(TorchFunctionMode):
    """One pass.

    Args:
        plan: What is known of such passes.
        constants: The constants of the model.
        inputs: Its input tensors.
        source: Where values may come from.

    Attributes:
        plan: What is known of such passes.
        memory: The real values, and what active code has had of them.
    """

    def __init__(
        self,
        plan: Plan,
        constants: Constants,
        inputs: Sequence[torch.Tensor],
        source: Source | None,
    ) -> None:
        super().__init__()
        self.plan = plan
        self.memory = Memory(plan, constants, inputs, source)
        self._constants = constants
        self._source = source
        self._devices = self.memory.devices
        self._pause = Pause(self)
        self._frame: FrameType | None = None
        self._give_up: Callable[[], None] = lambda: None

    @property
    def inputs(self) -> Sequence[torch.Tensor]:
        """The model's inputs."""
        return self.memory.inputs

    @property
    def boundary(self) -> Sequence[Node]:
        """The nodes whose values active code has needed, in order."""
        return self.memory.boundary

    def input(self, index: int) -> Lazy:
        """Return the lazy tensor of an input."""
        lazy = Lazy.of(self.plan.inputs[index], self)
        self.memory.lazies.append(lazy)
        return lazy

    # ---- what comes by

    def __torch_function__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        """Answer a function of tensors."""
        if self._pause.depth or not self.memory.live or self._is_stale():
            return function(*args, **(kwargs or {}))
        if is_question(function):
            return answer(function, args, kwargs or {})
        return self.call(function, args, kwargs or {})

    def call(self, function: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        """Answer a function of tensors: lazily if nothing active is in it, else for real."""
        if self._pause.depth or not self.memory.live:
            return self._for_real(function, args, kwargs)
        lazies: list[Lazy] = []
        try:
            key = self._key(function, args, kwargs, lazies)
        except Active:
            return self._for_real(function, args, kwargs)
        outcome = self.plan.memo.get(key)
        if type(outcome) is Node:
            return self._lazy(outcome, lazies)
        if outcome is None:
            return self._record(function, key, args, kwargs, lazies)
        if outcome is REAL:
            return self._for_real(function, args, kwargs)
        return self._answer(outcome, function, args, kwargs, lazies)

    def opaque(self, stand_in: StandIn, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        """Answer the call of a module within one frozen layer."""
        if self._pause.depth or self._is_stale():
            return stand_in.original(*args, **kwargs)
        lazies: list[Lazy] = []
        try:
            key = self._key(stand_in, args, kwargs, lazies)
        except Unreadable:
            return stand_in.original(*args, **kwargs)
        except Active:
            return self.active(stand_in, args, kwargs)
        outcome = self.plan.memo.get(key)
        if type(outcome) is Node:
            if outcome.call is not None and outcome.call.is_unsteady:
                return stand_in.original(*args, **kwargs)
            return self._lazy(outcome, lazies)
        if outcome is None:
            return self._record(stand_in, key, args, kwargs, lazies)
        if outcome is OPEN:
            return stand_in.original(*args, **kwargs)
        return self._answer(outcome, stand_in.original, args, kwargs, lazies)

    def active(self, stand_in: StandIn, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        """Run a module that learns on real tensors, and watch nothing in it."""
        if self._pause.depth or self._is_stale():
            return stand_in.original(*args, **kwargs)
        return self._for_real(stand_in.original, args, kwargs)

    def _key(
        self, function: Any, args: Sequence[Any], kwargs: Mapping[str, Any], lazies: list[Lazy]
    ) -> Any:
        known = self._known
        parts = [function, state_now(self._devices)]
        for value in args:
            parts.append(key_part(value, lazies, known))
        for name, value in kwargs.items():
            parts.append(name)
            parts.append(key_part(value, lazies, known))
        return tuple(parts)

    def _known(self, tensor: torch.Tensor) -> Node | None:
        node = self.plan.constants.get(id(tensor))
        if node is not None:
            return None if tensor.requires_grad else node
        found = self._constants.by_id.get(id(tensor))
        if found is None or tensor.requires_grad:
            return None
        name = self._constants.generations.name(found.name)
        return self.plan.add_constant(tensor, name, found.of_layer)

    # ---- lazy answers

    def _lazy(self, node: Node, lazies: Sequence[Lazy]) -> Lazy:
        """Return a lazy tensor for the output of a call with these lazy arguments."""
        lazy = node.spare
        if lazy is None:
            lazy = Lazy.of(node, self)
        else:
            node.spare = None
            lazy.owner = self
        if node.alias_index is not None:
            origin = lazies[node.alias_index]
            base = origin if origin.base is None else origin.base
            base.viewed = True
            lazy.base = base
        self.memory.lazies.append(lazy)
        if self.plan.passes == 1:  # what active code changes in place is not known yet
            self.real(lazy)
        return lazy  # type: ignore[no-any-return]  # made by PyTorch as a bare tensor

    def _answer(
        self,
        outcome: Any,
        function: Any,
        args: Sequence[Any],
        kwargs: Mapping[str, Any],
        lazies: Sequence[Lazy],
    ) -> Any:
        if type(outcome) is Many:
            return self._structure(outcome.structure, lazies, {})
        if type(outcome) is Same:
            return lazies[outcome.index]
        if type(outcome) is InPlace and self.memory.may_change(args[0]) and args[0].given is None:
            args[0].node = outcome.node
            return args[0] if outcome.gives_it else None
        return self._for_real(function, args, kwargs)

    def _structure(self, value: Any, lazies: Sequence[Lazy], made: dict[Node, Lazy]) -> Any:
        if type(value) is Node:
            if value not in made:
                made[value] = self._lazy(value, lazies)
            return made[value]
        if isinstance(value, tuple) and hasattr(value, "_fields"):
            return type(value)(*(self._structure(item, lazies, made) for item in value))
        if isinstance(value, (tuple, list)):
            return type(value)([self._structure(item, lazies, made) for item in value])
        if isinstance(value, dict):
            return {key: self._structure(item, lazies, made) for key, item in value.items()}
        return value

    # ---- real answers

    def _for_real(self, function: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        """Run a call on real tensors; active code has them from then on."""
        lazies: list[Lazy] = []
        escapes = function in _ESCAPES
        with self._pause:
            for lazy in lazies_in(args) if escapes else ():
                if lazy.base is not None:
                    self.real(lazy.base)
            real_args, real_kwargs = with_real((tuple(args), dict(kwargs)), lazies)
            for lazy in lazies:
                self.memory.expose(lazy)
            out = run(function, real_args, real_kwargs, lazies)
            for lazy in lazies if escapes else ():
                self.memory.lose(lazy)
        return out

    def real(self, lazy: Lazy) -> torch.Tensor:
        """Return the values of a lazy tensor, for code that may change them."""
        if lazy.given is not None:
            return lazy.given
        with self._pause:
            return self.memory.give(lazy)

    def expose(self, lazy: Lazy) -> None:
        """Note that active code has the values of a lazy tensor from now on."""
        self.memory.expose(lazy)

    # ---- what is new

    def _record(
        self,
        function: Any,
        key: Any,
        args: Sequence[Any],
        kwargs: Mapping[str, Any],
        lazies: Sequence[Lazy],
    ) -> Any:
        """Run a call for real, keep what became of it, and answer."""
        if function in _ESCAPES:
            self.plan.remember(key, REAL)
            return self._for_real(function, args, kwargs)
        with self._pause:
            return self._recorded(function, key, args, kwargs, lazies)

    def _recorded(
        self,
        function: Any,
        key: Any,
        args: Sequence[Any],
        kwargs: Mapping[str, Any],
        lazies: Sequence[Lazy],
    ) -> Any:
        stand_in = function if isinstance(function, StandIn) else None
        called = function if stand_in is None else stand_in.original
        fallback = REAL if stand_in is None else OPEN
        real_args, real_kwargs = with_real((tuple(args), dict(kwargs)), [])
        given = [lazy.given for lazy in lazies if lazy.given is not None]
        read = [n.constant for n in nodes_in(key) if n.constant is not None]
        module = None if stand_in is None else stand_in.module
        changes = Changes([*given, *read], module)
        compiled = stand_in is not None and stand_in.is_compiled
        with observed(self._devices, is_compiled=compiled) as seen:
            out = called(*real_args, **real_kwargs)
        outcome: Any = fallback
        values: list[tuple[Node, torch.Tensor]] = []
        named = short_name(function) if stand_in is None else stand_in.name
        described = "" if stand_in is None else stand_in.description
        plain_args = template(tuple(args), self._known)
        plain_kwargs = template(dict(kwargs), self._known)
        call = Call(called, plain_args, plain_kwargs, key[1], named, described)
        moved = changes.arguments()
        if seen.is_random or changes.module_keeps():
            pass
        elif moved:
            outcome = self._in_place(call, out, moved, args) or fallback
        elif not seen.reads_values or (stand_in is not None and _keeps_sizes(out, given)):
            outcome, values = outputs_of(self.plan, call, out, lazies, [*read, *changes.owned])
            outcome = fallback if outcome is REAL else outcome
        self.plan.remember(key, outcome)
        for node, value in values:
            self.memory.values.put(node, value)
        if outcome is fallback:
            for lazy in lazies:
                self.memory.expose(lazy)
            answered = or_lazy(out, lazies)
        elif type(outcome) is Node:
            answered = self._lazy(outcome, lazies)
        elif type(outcome) is InPlace:
            answered = args[0] if outcome.gives_it else None
        else:
            answered = self._answer(outcome, called, args, kwargs, lazies)
        self.memory.values.keep_only(self.memory.wanted())
        return answered

    def _in_place(
        self, call: Call, out: Any, moved: Sequence[torch.Tensor], args: Sequence[Any]
    ) -> InPlace | None:
        """Let a lazy tensor that was changed in place stand for what it is now, if it can."""
        lazy = args[0]
        if type(lazy) is not Lazy or not self.memory.may_change(lazy) or lazy.given is None:
            return None
        if any(t is not lazy.given for t in moved) or not (out is None or out is lazy.given):
            return None
        if not lazy.node.describes(lazy.given) or lazy.given.requires_grad:
            return None
        call.in_place = True
        node = self.plan.output(call, lazy.given)
        call.outputs = (node,)
        self.memory.change(lazy, node)
        return InPlace(node, out is not None)

    # ---- begin and end

    def _is_stale(self) -> bool:
        """Return whether the pass is over without notice, and end it then.

        PyTorch runs no hook when the user interrupts a forward pass.
        """
        frame = self._frame
        above: FrameType | None = sys._getframe(2)
        while above is not None:
            if above is frame:
                return False
            above = above.f_back
        self._give_up()
        return True

    def begin(self, frame: FrameType, give_up: Callable[[], None]) -> None:
        """Watch all functions of tensors from now on.

        Args:
            frame: In which PyTorch calls the model.
            give_up: Called if that has ended without a call of `finish`.
        """
        self._frame, self._give_up = frame, give_up
        if self._source is not None:
            self._source.begin(self)
        self.plan.passes += 1
        watch(self)

    def finish(self, output: Any, root: nn.Module, *, failed: bool = False) -> None:
        """Watch no more, and leave real tensors behind.

        Args:
            output: What the model returned.
            root: The model.
            failed: Whether the pass ended in an error.
        """
        take_off(self)
        self._frame = None
        try:
            self.memory.finish(output, root, failed=failed)
        finally:
            source, self._source = self._source, None
            if source is not None:
                source.end(self, failed)


def _keeps_sizes(out: Any, given: Sequence[torch.Tensor]) -> bool:
    """Return whether outputs have the sizes of inputs, up to the last, whatever the values are."""
    outputs = out if isinstance(out, (tuple, list)) else [out]
    known = {t.shape[:-1] for t in given if t.ndim > 1}
    return all(
        each is None or (isinstance(each, torch.Tensor) and each.shape[:-1] in known)
        for each in outputs
    )
