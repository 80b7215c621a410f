"""One forward pass of a model whose frozen prefix is captured.

While it runs, every function of tensors comes by here. One whose arguments are lazy, constant or
plain gives lazy tensors; all others run for real. What they need is made real at that moment.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from sys import getrefcount
from typing import Any

import torch
from torch.overrides import (
    TorchFunctionMode,
    _get_current_function_mode,
    _pop_mode,
    _push_mode,
)

from freezeout.errors import FreezeOutError
from freezeout.prefix.constants import Constants
from freezeout.prefix.evaluating import Values, copied, evaluate, state_now
from freezeout.prefix.keys import Active, Unreadable, key_part, template
from freezeout.prefix.lazy import PAST, Lazy, answer, become_real, is_question, lazies_in, with_real
from freezeout.prefix.nodes import Call, Node, Plan, nodes_in
from freezeout.prefix.recording import (
    OPEN,
    REAL,
    Changes,
    InPlace,
    Many,
    Same,
    memory,
    observed,
    outputs_of,
)
from freezeout.prefix.source import Source
from freezeout.prefix.stand_ins import StandIn

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
        inputs: The model's inputs.
        boundary: The nodes whose values active code has needed, in order.
        lazies: All lazy tensors of the pass.
        values: The real values.
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
        self.inputs = inputs
        self.boundary: list[Node] = []
        self.lazies: list[Lazy] = []
        self._constants = constants
        self._source = source
        used = {t.device.type for t in inputs} | {c.tensor.device.type for c in constants}
        self._devices = sorted(used - {"meta"})
        self._versions = [t._version for t in inputs]
        intact = [
            t.clone() if node.whole else t for t, node in zip(inputs, plan.inputs, strict=True)
        ]
        self.values = Values(intact, source, self._devices)
        self._told: set[Node] = set()
        self._owners: dict[Node, Lazy] = {}  # who has the memory of a node's value
        self.quiet = 0
        self._live = True
        self._pause = _Off(self)

    def input(self, index: int) -> Lazy:
        """Return the lazy tensor of an input."""
        lazy = Lazy.of(self.plan.inputs[index], self)
        self.lazies.append(lazy)
        return lazy

    # ---- what comes by

    def __torch_function__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        """Answer a function of tensors."""
        if self.quiet or not self._live:
            return function(*args, **(kwargs or {}))
        if is_question(function):
            return answer(function, args, kwargs or {})
        return self.call(function, args, kwargs or {})

    def call(self, function: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        """Answer a function of tensors: lazily if nothing active is in it, else for real."""
        if self.quiet or not self._live:
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
        if self.quiet:
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
            return self._lazy(outcome, lazies)
        if outcome is None:
            return self._record(stand_in, key, args, kwargs, lazies)
        if outcome is OPEN:
            return stand_in.original(*args, **kwargs)
        return self._answer(outcome, stand_in.original, args, kwargs, lazies)

    def active(self, stand_in: StandIn, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        """Run a module that learns on real tensors, and watch nothing in it."""
        if self.quiet:
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
        self.lazies.append(lazy)
        return lazy  # type: ignore[no-any-return]

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
        if type(outcome) is InPlace and self._may_change(args[0]) and args[0].given is None:
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

    def _may_change(self, lazy: Any) -> bool:
        """Return whether only this lazy tensor would see a change of its memory in place."""
        if type(lazy) is not Lazy or lazy.base is not None or lazy.node.external:
            return False
        if lazy.exposed:
            return False
        return not (lazy.viewed and any(each.base is lazy for each in self._alive()))

    # ---- real answers

    def _for_real(self, function: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        """Run a call on real tensors; active code has them from then on."""
        lazies: list[Lazy] = []
        whole = function in _ESCAPES
        with self._off():
            for lazy in lazies_in(args) if whole else ():
                if lazy.base is not None:
                    self.real(lazy.base)
            args, kwargs = with_real((tuple(args), dict(kwargs)), lazies)
            for lazy in lazies:
                self.expose(lazy)
            out = function(*args, **kwargs)
        if whole:
            for lazy in lazies:
                root = lazy if lazy.base is None else lazy.base
                root.handed = [(lazy.given, -1)]  # it is looked at no more
        for lazy in lazies:
            if lazy.given is out:
                return lazy
        return out

    def real(self, lazy: Lazy) -> torch.Tensor:
        """Return the values of a lazy tensor; each lazy tensor has memory of its own."""
        if lazy.given is not None:
            return lazy.given
        root = lazy if lazy.base is None else lazy.base
        with self._off():
            value = self._memory_of(lazy, root)
        lazy.given = value
        if root.handed is None:
            root.handed = []
        root.handed.append((value, value._version))
        return value

    def _memory_of(self, lazy: Lazy, root: Lazy) -> torch.Tensor:
        node = lazy.node
        if node.call is None:
            return self.inputs[node.index]
        if lazy is not root and (
            root.given is not None
            or root.node.external
            or root.node.whole
            or self._owners.get(root.node, root) is not root
        ):
            return self._view(node, root.node, self.real(root))
        if node.external:  # it shares memory with a constant
            assert node.call is not None
            return evaluate(node.call, self._value, self._devices)[node.index]
        owner = self._owners.setdefault(root.node, root)
        handed = root.handed
        if lazy is root and handed is not None:  # a view of it has been given before
            value = self.values.raw(node)
            if value is not None and memory(value) == memory(handed[0][0]):
                return value
            if lazy.worn:
                raise FreezeOutError(
                    f"a view of {node.name} was changed in place before {node.name} itself was "
                    "needed. Run the step again: from now on they are computed together."
                )
        value = self._value(node)
        return value if owner is root else copied(value)

    def _view(self, node: Node, root: Node, value: torch.Tensor) -> torch.Tensor:
        """Return a view as the calls that made it give it from the memory of its base."""
        chain = []
        while node is not root and node.alias is not None:
            chain.append(node)
            node = node.alias
        for view in reversed(chain):
            assert view.call is not None
            origin, memory_of = view.alias, value
            found = evaluate(
                view.call,
                lambda n, o=origin, m=memory_of: m if n is o else self._value(n),
                self._devices,
            )
            value = found[view.index]
        return value

    def _value(self, node: Node) -> torch.Tensor:
        return self.values.of(node, self._wanted)

    def _wanted(self) -> Iterator[Node]:
        return (lazy.node for lazy in self._alive())

    def expose(self, lazy: Lazy) -> None:
        """Note that active code gets a value; the source has it before that."""
        root = lazy if lazy.base is None else lazy.base
        root.exposed = True
        node = lazy.node
        if node in self._told or lazy.worn or node.call is None:
            return
        self._told.add(node)
        self.boundary.append(node)
        if self._source is not None and lazy.given is not None:
            self._source.made(node, lazy.given)

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
        stand_in = function if isinstance(function, StandIn) else None
        called = function if stand_in is None else stand_in.original
        fallback = REAL if stand_in is None else OPEN
        with self._off():
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
        named = getattr(function, "__name__", "call") if stand_in is None else stand_in.name
        plain = [template(part, self._known) for part in (tuple(args), dict(kwargs))]
        call = Call(called, *plain, key[1], named, stand_in is not None)
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
            self.values.put(node, value)
        if outcome is fallback:
            for lazy in lazies:
                self.expose(lazy)
            answered = next((lazy for lazy in lazies if lazy.given is out), out)
        elif type(outcome) is Node:
            answered = self._lazy(outcome, lazies)
        elif type(outcome) is InPlace:
            answered = args[0] if outcome.gives_it else None
        else:
            answered = self._answer(outcome, called, args, kwargs, lazies)
        self.values.keep_only(self._wanted())
        return answered

    def _in_place(
        self, call: Call, out: Any, moved: Sequence[torch.Tensor], args: Sequence[Any]
    ) -> InPlace | None:
        """Let a lazy tensor that was changed in place stand for what it is now, if it can."""
        lazy = args[0]
        if type(lazy) is not Lazy or not self._may_change(lazy) or lazy.given is None:
            return None
        if any(t is not lazy.given for t in moved) or not (out is None or out is lazy.given):
            return None
        if not lazy.node.describes(lazy.given) or lazy.given.requires_grad:
            return None
        call.in_place = True
        node = self.plan.output(call, lazy.given)
        call.outputs = (node,)
        lazy.node = node
        lazy.handed = [(lazy.given, lazy.given._version)]
        self._owners[node] = lazy
        self.values.put(node, lazy.given)
        return InPlace(node, out is not None)

    # ---- begin and end

    def begin(self) -> None:
        """Watch all functions of tensors from now on."""
        if self._source is not None:
            self._source.begin(self)
        self.plan.passes += 1
        _push_mode(self)

    def finish(self, failed: bool) -> None:
        """Watch no more, and turn lazy tensors that outlive the pass into real ones.

        Args:
            failed: Whether the pass ended in an error. What it left is made real when somebody
                asks for it.
        """
        self._live = False
        _take_off(self)
        if not failed:
            self._learn()
            inputs = len(self.inputs)
            for position in range(len(self.lazies) - 1, -1, -1):
                lazy = self.lazies.pop()
                if getrefcount(lazy) > _FREE + (position < inputs):
                    become_real(lazy)
                    continue
                lazy.owner = PAST
                lazy.base = lazy.given = lazy.handed = None
                lazy.viewed = lazy.exposed = False
                lazy.node.spare = lazy
            self.values.keep_only(())
        self._owners.clear()
        if self._source is not None:
            self._source.end(self, failed)

    def _learn(self) -> None:
        """Note what active code has changed in place, so that it is kept intact from now on."""
        now = zip(self.plan.inputs, self.inputs, self._versions, strict=True)
        for node, tensor, version in now:
            node.whole |= tensor._version != version
        for lazy in self.lazies:
            if lazy.viewed and lazy.worn:
                lazy.node.whole = True

    def _alive(self) -> Iterator[Lazy]:
        """Yield the lazy tensors that somebody still holds."""
        for lazy in self.lazies:
            if getrefcount(lazy) > _HELD:
                yield lazy

    def _off(self) -> _Off:
        return self._pause


class _Off:
    """Watch nothing meanwhile. Pauses may lie within each other."""

    def __init__(self, forward: ForwardPass) -> None:
        self._forward = forward
        self._popped: list[bool] = []

    def __enter__(self) -> None:
        self._forward.quiet += 1
        on_top = _get_current_function_mode() is self._forward
        self._popped.append(on_top)
        if on_top:
            _pop_mode()

    def __exit__(self, *error: object) -> None:
        self._forward.quiet -= 1
        if self._popped.pop():
            _push_mode(self._forward)


def _take_off(mode: TorchFunctionMode) -> None:
    """Take a mode off the stack, wherever it is."""
    above = []
    while (top := _get_current_function_mode()) is not None and top is not mode:
        above.append(_pop_mode())
    if top is mode:
        _pop_mode()
    for other in reversed(above):
        _push_mode(other)


def _keeps_sizes(out: Any, given: Sequence[torch.Tensor]) -> bool:
    """Return whether outputs have the sizes of inputs, up to the last, whatever the values are."""
    outputs = out if isinstance(out, (tuple, list)) else [out]
    known = {t.shape[:-1] for t in given if t.ndim > 1}
    return all(
        each is None or (isinstance(each, torch.Tensor) and each.shape[:-1] in known)
        for each in outputs
    )


def _references(count: Any) -> int:
    """Return how many references to an object Python counts where nobody else holds it."""
    held = [object()]
    return next(int(count(each)) for each in held)


_HELD = _references(getrefcount)
_FREE = _HELD - 1
"""Without the list that holds them all."""
