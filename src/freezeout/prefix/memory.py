"""Which real memory stands behind the lazy tensors of a pass, and who has seen it.

In the plain run, every call that is no view gives a tensor with memory of its own, and views share
it. So it is here: lazy tensors that stand for the same node never share memory, a view shares that
of its base, and what code has changed in place is that code's value from then on, not the node's.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterator, Sequence
from sys import getrefcount
from typing import Any

import torch
from torch import nn

from freezeout.errors import FreezeOutError
from freezeout.layers import modules_in
from freezeout.prefix.constants import Constants
from freezeout.prefix.evaluating import Values, copied, evaluate
from freezeout.prefix.lazy import PAST, Lazy, become_real, held_by_torch
from freezeout.prefix.nodes import Node, Plan
from freezeout.prefix.recording import memory
from freezeout.prefix.source import Source
from freezeout.tensors import tensors_in

__all__ = ["Memory"]


class Memory:
    """The real values of one pass.

    Args:
        plan: What is known of such passes.
        constants: The constants of the model.
        inputs: Its input tensors.
        source: Where values may come from.

    Attributes:
        inputs: The model's inputs.
        lazies: All lazy tensors of the pass, those of the inputs first.
        values: Values of nodes, as they were before code that learns had them.
        boundary: The nodes whose values active code has needed, in order.
        devices: Types of the devices of the model and its inputs.
        live: Whether the pass goes on.
        made: How many lazy tensors there were, when it is over.
    """

    def __init__(
        self,
        plan: Plan,
        constants: Constants,
        inputs: Sequence[torch.Tensor],
        source: Source | None,
    ) -> None:
        used = {t.device.type for t in inputs} | constants.devices
        self.devices = sorted(used) or ["cpu"]
        self.inputs = inputs
        self.lazies: list[Lazy] = []
        intact = [
            t.clone() if node.whole else t for t, node in zip(inputs, plan.inputs, strict=True)
        ]
        self.values = Values(intact, source, self.devices)
        self.boundary: list[Node] = []
        self.live = True
        self.made = 0
        self._plan = plan
        self._constants = constants
        self._source = source
        self._versions = [t._version for t in inputs]
        self._told: set[Node] = set()
        self._owners: dict[Node, int] = {}  # id of the lazy tensor that has a node's memory
        self._left: list[weakref.ref[Lazy]] = []

    def alive(self) -> Iterator[Lazy]:
        """Yield the lazy tensors that somebody still holds."""
        for lazy in self.lazies:
            if getrefcount(lazy) > _HELD:
                yield lazy

    def wanted(self) -> Iterator[Node]:
        """Yield the nodes that may still be asked for."""
        return (lazy.node for lazy in self.alive())

    def value(self, node: Node) -> torch.Tensor:
        """Return the value of a node; it is not to be changed."""
        if not self.live and self._constants.moved():
            raise FreezeOutError(
                f"{node.name} of an earlier pass is needed, and frozen weights have changed since. "
                "Read what the model keeps before you change its weights."
            )
        return self.values.of(node, self.wanted)

    # ---- giving

    def give(self, lazy: Lazy) -> torch.Tensor:
        """Return the real tensor behind a lazy one, which may be changed."""
        if lazy.given is not None:
            return lazy.given
        root = lazy if lazy.base is None else lazy.base
        if torch.is_inference_mode_enabled():  # what is made there has no version
            with torch.inference_mode(False):
                value = self._find(lazy, root)
        else:
            value = self._find(lazy, root)
        lazy.given = value
        if root.handed is None:
            root.handed = []
        root.handed.append((value, value._version))
        return value

    def expose(self, lazy: Lazy) -> None:
        """Note that active code gets a value; the source has it before that."""
        root = lazy if lazy.base is None else lazy.base
        root.exposed = True
        if root.viewed and root.node.whole:  # views that are there before a change are in its graph
            for each in self.alive():
                if each.base is root:
                    self.give(each)
        told = root if root.node.whole else lazy
        node = told.node
        if node in self._told or node.call is None or told.given is None or lazy.worn:
            return
        self._told.add(node)
        self.boundary.append(node)
        if self._source is None:
            return
        if torch.is_inference_mode_enabled():
            with torch.inference_mode(False):
                self._source.made(node, told.given)
        else:
            self._source.made(node, told.given)

    def may_change(self, lazy: Any) -> bool:
        """Return whether nobody else would see a change of a lazy tensor in place."""
        if type(lazy) is not Lazy or lazy.base is not None or lazy.node.external or lazy.exposed:
            return False
        return not (lazy.viewed and any(each.base is lazy for each in self.alive()))

    def lose(self, lazy: Lazy) -> None:
        """Note that code has got hold of memory in a way that does not show what it does to it."""
        root = lazy if lazy.base is None else lazy.base
        assert lazy.given is not None
        root.handed = [(lazy.given, -1)]  # a version that it never has

    def change(self, lazy: Lazy, node: Node) -> None:
        """Let a lazy tensor whose real one was changed in place stand for another node."""
        assert lazy.given is not None
        lazy.node = node
        lazy.handed = [(lazy.given, lazy.given._version)]
        self._owners[node] = id(lazy)
        self.values.put(node, lazy.given)

    def _find(self, lazy: Lazy, root: Lazy) -> torch.Tensor:
        node = lazy.node
        if node.call is None:
            return self.inputs[node.index]
        if lazy is not root and (
            root.given is not None
            or root.node.external
            or root.node.whole
            or self._owners.get(root.node, id(root)) != id(root)
        ):
            return self._view(node, root.node, self.give(root))
        if node.external:  # it shares memory with a constant
            return evaluate(node.call, self.value, self.devices)[node.index]
        owner = self._owners.setdefault(root.node, id(root))
        if lazy is root and root.handed is not None:  # a view of it has been given before
            value = self.values.raw(node)
            if value is not None and memory(value) == memory(root.handed[0][0]):
                return value
            if lazy.worn:
                raise FreezeOutError(
                    f"a view of {node.name} was changed in place before {node.name} itself was "
                    "needed. Run the step again: from now on they are computed together."
                )
        value = self.value(node)
        return value if owner == id(root) else copied(value)

    def _view(self, node: Node, root: Node, value: torch.Tensor) -> torch.Tensor:
        """Return a view as the calls that made it give it from the memory of its base."""
        chain = []
        while node is not root and node.alias is not None:
            chain.append(node)
            node = node.alias
        for view in reversed(chain):
            assert view.call is not None
            given = {view.alias: value}

            def value_of(need: Node, given: dict[Any, torch.Tensor] = given) -> torch.Tensor:
                return given[need] if need in given else self.value(need)

            value = evaluate(view.call, value_of, self.devices)[view.index]
        return value

    # ---- the end

    def finish(self, output: Any, root: nn.Module, *, failed: bool) -> None:
        """Turn lazy tensors that outlive the pass into real ones.

        Those are made real that the model returns, keeps in its modules, or that have been given
        already. What other objects keep (the keys and values of a decoder) is made real when
        somebody asks for it.

        Args:
            output: What the model returned.
            root: The model.
            failed: Whether the pass ended in an error. Nothing is made real then before somebody
                asks.
        """
        self.live = False
        if not failed:
            self._learn()
        self.made = len(self.lazies)
        alive = self._sort_out()
        if alive and not failed:
            alive = _let_go(alive, output, root)
        self._source = None
        self.inputs = ()
        self.values.leave({i for lazy in alive for i in lazy.node.inputs})
        self._left = [weakref.ref(lazy) for lazy in alive]

    def settle(self) -> None:
        """Make real what is left of the pass: what it is computed from may change from now on."""
        for reference in self._left:
            lazy = reference()
            if lazy is not None:
                self.give(lazy)
        self._left = []

    def _learn(self) -> None:
        """Note what active code has changed in place, so that it is kept intact from now on."""
        now = zip(self._plan.inputs, self.inputs, self._versions, strict=True)
        for node, tensor, version in now:
            node.whole |= tensor._version != version
        for lazy in self.lazies:
            if lazy.viewed and lazy.worn:
                lazy.node.whole = True

    def _sort_out(self) -> list[Lazy]:
        """Return the lazy tensors that somebody holds, and put the others by for another pass."""
        inputs, alive = len(self.inputs), []
        while self.lazies:
            lazy = self.lazies.pop()  # views come before their bases, which they hold
            is_input = len(self.lazies) < inputs  # whose arguments refer to it
            if getrefcount(lazy) > _FREE + is_input or held_by_torch(lazy) > 1:
                alive.append(lazy)
                continue
            lazy.owner = PAST
            lazy.base = lazy.given = lazy.handed = None
            lazy.viewed = lazy.exposed = False
            lazy.node.spare = lazy
        return alive


def _let_go(alive: Sequence[Lazy], output: Any, root: nn.Module) -> list[Lazy]:
    """Make real what must be; return the rest."""
    seen = {id(t) for t in tensors_in(output)}
    for module in modules_in(root):
        seen.update(id(t) for t in tensors_in(list(vars(module).values())))
    groups = [(lazy, id(lazy if lazy.base is None else lazy.base)) for lazy in alive]
    must = {
        group
        for lazy, group in groups
        if lazy.given is not None or lazy.node.external or id(lazy) in seen
    }
    for lazy, group in groups:
        if group in must:
            become_real(lazy)
    return [lazy for lazy, group in groups if group not in must]


def _references() -> int:
    """Return how many references to an object Python counts where a list alone holds it."""
    held = [object()]
    return next(getrefcount(each) for each in held)


_HELD = _references()
_FREE = _HELD - 1
"""Without the list that holds them all."""
