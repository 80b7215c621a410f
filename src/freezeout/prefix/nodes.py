"""What the frozen prefix computes, as expressions: nodes that are the same in every pass.

A node is an input of the model, a constant, or an output of a call whose arguments are nodes and
plain values. A plan has every call once, found by its key, so the same expression is the same node
in each pass with equally shaped inputs. A hash of the expression names it across plans, batch
sizes and processes.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Hashable, Iterator, Sequence
from typing import Any, TypeAlias

import torch
from torch.overrides import resolve_name

__all__ = ["MOST_NODES", "Call", "Node", "Plan", "State", "nodes_in", "short_name"]

MOST_NODES = 20_000
"""A plan that has more than these grows with every pass, and is given up."""

_ALIGNED = 64
"""Bytes; PyTorch's memory begins at multiples of it."""

State: TypeAlias = tuple[Any, ...]
"""What decides, beside its arguments, how a call computes: gradients, autocast of each device."""

_T: Any = torch.Tensor
_VIEWS = {_T.view, _T.reshape, torch.reshape, _T.expand, _T.broadcast_to, torch.broadcast_to}
_SPREADS = {_T.expand, _T.broadcast_to, torch.broadcast_to}
_FILLS = {torch.ones, torch.zeros, torch.full, _T.new_ones, _T.new_zeros, _T.new_full}


class Call:
    """A function, or the forward pass of a frozen module, with its arguments.

    Attributes:
        function: What is called.
        args: Positional arguments, with nodes in place of tensors.
        kwargs: Keyword arguments, likewise.
        needs: The nodes among the arguments.
        state: In which it must run.
        in_place: Whether it changes its first argument, of which it is given a copy.
        name: For people: the function, or the module's qualified name.
        description: Stands for the function in a hash; empty where that has a name of its own.
        outputs: Its results.
        is_unsteady: Whether it was found to do something else in some passes.
    """

    __slots__ = (
        *("function", "args", "kwargs", "needs", "state", "in_place", "name", "description"),
        *("outputs", "is_unsteady", "_hash"),
    )

    def __init__(
        self, function: Any, args: Any, kwargs: Any, state: State, name: str, description: str = ""
    ) -> None:
        self.function = function
        self.args = args
        self.kwargs = kwargs
        self.needs = tuple(dict.fromkeys(nodes_in((args, kwargs))))
        self.state = state
        self.in_place = False
        self.name = name
        self.description = description
        self.outputs: tuple[Node, ...] = ()
        self.is_unsteady = False
        self._hash: str | None = None

    @property
    def is_module(self) -> bool:
        """Whether it is the forward pass of a module."""
        return bool(self.description)


class Node:
    """A value of the prefix, without its bits.

    Attributes:
        call: What gives it; ``None`` for inputs and constants.
        index: Which output of `call`, or which input of the model.
        constant: The tensor, if it is a constant.
        name: For people: the module, function, input or parameter.
        shape: Sizes.
        stride: Strides. What the plain run has, a kernel may depend on.
        dtype: Data type.
        device: Where it is.
        shift: Elements by which it begins behind an aligned address, which kernels depend on, too.
        inputs: Indices of the model's inputs that it depends on, in order.
        uses_layers: Whether parameters or buffers of frozen layers are in it.
        alias: The node whose memory it shares, if it is a view.
        alias_index: Which lazy argument that is, counted from 0.
        external: Whether its memory is that of an input or a constant.
        whole: Whether active code changes its memory in place while views of it are about.
        spare: A lazy tensor of an earlier pass that nobody holds any more.
    """

    __slots__ = (
        *("call", "index", "constant", "name", "shape", "stride", "dtype", "device", "shift"),
        *("inputs", "uses_layers", "alias", "alias_index", "external", "whole", "spare", "rows"),
        *("_hash",),
    )

    def __init__(self, name: str, like: torch.Tensor, *, call: Call | None = None, index: int = 0):
        self.call = call
        self.index = index
        self.constant: torch.Tensor | None = None
        self.name = name
        self.shape = like.shape
        self.stride = like.stride()
        self.dtype = like.dtype
        self.device = like.device
        self.shift = _shift(like)
        self.inputs: tuple[int, ...] = ()
        self.uses_layers = False
        self.alias: Node | None = None
        self.alias_index: int | None = None
        self.external = False
        self.whole = False
        self.spare: Any = None
        self.rows: int | None = None
        self._hash: str | None = None
        if call is not None:
            needs = call.needs
            self.inputs = tuple(sorted({i for need in needs for i in need.inputs}))
            self.uses_layers = call.is_module or any(need.uses_layers for need in needs)

    @property
    def expression(self) -> str:
        """A hash of all that it is computed from: functions, modules, constants, plain values.

        The batch size is not in it where it only says how many rows there are.
        """
        if self._hash is None:
            _hash_all(self)
        assert self._hash is not None
        return self._hash

    def describes(self, tensor: torch.Tensor) -> bool:
        """Return whether a tensor has its shape, strides, data type and device."""
        return (
            tensor.shape == self.shape
            and tensor.dtype == self.dtype
            and tensor.stride() == self.stride
            and tensor.device == self.device
        )

    def lies_alike(self, tensor: torch.Tensor) -> bool:
        """Return whether a tensor begins as far behind an aligned address."""
        return _shift(tensor) == self.shift

    def __repr__(self) -> str:
        return f"Node({self.name!r}, shape={tuple(self.shape)})"


class Plan:
    """All nodes that passes with the same signature of inputs have met.

    Attributes:
        inputs: The node of each input tensor.
        memo: What became of each call, by its key.
        refused: Why passes with this signature are not captured any more, in words.
        passes: How many passes have used it.
    """

    def __init__(self) -> None:
        self.inputs: list[Node] = []
        self.memo: dict[Hashable, Any] = {}
        self.constants: dict[int, Node] = {}
        self.refused: str | None = None
        self.passes = 0
        self.rows: int | None = None

    def add_inputs(self, tensors: Sequence[torch.Tensor]) -> None:
        """Make a node for each input."""
        sizes = {t.shape[0] if t.ndim else None for t in tensors}
        self.rows = sizes.pop() if len(sizes) == 1 else None
        for index, tensor in enumerate(tensors):
            node = Node(f"input {index}", tensor, index=index)
            node.inputs = (index,)
            node.external = True
            self.inputs.append(node)

    def add_constant(self, tensor: torch.Tensor, name: str, uses_layers: bool) -> Node:
        """Return the node of a constant."""
        node = self.constants.get(id(tensor))
        if node is None:
            node = self.constants[id(tensor)] = Node(name, tensor)
            node.constant = tensor
            node.external = True
            node.uses_layers = uses_layers
        return node

    def remember(self, key: Hashable, outcome: Any) -> None:
        """Keep what became of a call."""
        self.memo[key] = outcome
        if len(self.memo) > MOST_NODES:
            self.refused = (
                f"its passes had {MOST_NODES:,} different calls between frozen layers. Numbers "
                "that are read from data or drawn in every pass are used there as plain arguments"
            )

    def output(self, call: Call, like: torch.Tensor, index: int = 0, *, many: bool = False) -> Node:
        """Return a new node for an output of a call."""
        name = f"{call.name}[{index}]" if many else call.name
        node = Node(name, like, call=call, index=index)
        node.rows = self.rows
        return node


def _shift(tensor: torch.Tensor) -> int:
    return int(tensor.storage_offset()) % max(1, _ALIGNED // tensor.element_size())


def nodes_in(value: Any) -> Iterator[Node]:
    """Yield the nodes in arguments of a call."""
    if type(value) is Node:
        yield value
    elif isinstance(value, (tuple, list)):
        for item in value:
            yield from nodes_in(item)
    elif isinstance(value, dict):
        for item in value.values():
            yield from nodes_in(item)
    elif isinstance(value, slice):
        yield from nodes_in((value.start, value.stop, value.step))


def _hash_all(node: Node) -> None:
    """Hash a node after those that it is computed from; without recursion, plans may be deep."""
    waiting = [node]
    while waiting:
        last = waiting[-1]
        missing = [] if last.call is None else [n for n in last.call.needs if n._hash is None]
        if missing:
            waiting += missing
            continue
        waiting.pop()
        if last._hash is None:
            last._hash = _digest(_described(last))


def _described(node: Node) -> str:
    call = node.call
    if call is None:
        if node.constant is not None:
            return f"constant {node.name}"
        return f"input {node.index} {node.dtype} {node.shape[1:]}"
    if call._hash is None:
        function = call.description or _name(call.function)
        args = _without_rows(call, node.rows)
        given = f"{function} {call.state} {call.in_place} {_text(args)} {_text(call.kwargs)}"
        call._hash = _digest(given)
    return f"{node.index} of {call._hash}"


def _without_rows(call: Call, rows: int | None) -> Any:
    """Return positional arguments with a word in place of a leading size that is the batch's."""
    args = call.args
    if call.function in _FILLS:
        place = 0 if call.function in (torch.ones, torch.zeros, torch.full) else 1
        known = {rows}
    elif call.function in _VIEWS and args and type(args[0]) is Node and args[0].shape:
        place = 1
        known = {args[0].shape[0]}
        if call.function in _SPREADS and args[0].shape[0] == 1:
            known.add(rows)
    else:
        return args
    if len(args) <= place:
        return args
    sizes = args[place]
    if type(sizes) is int:
        if sizes in known:
            return (*args[:place], "rows", *args[place + 1 :])
    elif isinstance(sizes, (tuple, list)) and sizes and type(sizes[0]) is int and sizes[0] in known:
        return (*args[:place], ("rows", *sizes[1:]), *args[place + 1 :])
    return args


def _text(value: Any) -> str:
    if type(value) is Node:
        assert value._hash is not None
        return value._hash
    if isinstance(value, (tuple, list)):
        return f"{type(value).__name__}({','.join(map(_text, value))})"
    if isinstance(value, dict):
        return "{" + ",".join(f"{key}:{_text(item)}" for key, item in value.items()) + "}"
    if isinstance(value, slice):
        return f"slice{_text((value.start, value.stop, value.step))}"
    return f"{type(value).__name__} {value!r}"


@functools.lru_cache(maxsize=4096)
def _name(function: Any) -> str:
    """Return the name of a function of PyTorch; that of a property names the property."""
    found = resolve_name(function)
    if found is not None:
        return str(found)
    owner = getattr(function, "__self__", None)
    own = getattr(owner, "__qualname__", None) or getattr(owner, "__name__", "")
    module = getattr(function, "__module__", "")
    return f"{module}.{own}.{getattr(function, '__qualname__', repr(function))}"


def short_name(function: Any) -> str:
    """Return the name of a function for people."""
    name = getattr(function, "__name__", "")
    if name in ("", "__get__"):
        name = _name(function).removesuffix(".__get__").rpartition(".")[2]
    return str(name)


def _digest(text: str) -> str:
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()
