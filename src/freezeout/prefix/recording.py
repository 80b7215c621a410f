"""Run a call once for real, and find out what it is: the same in every pass, random, in place?

What draws random numbers, reads values into Python, gives a shape that depends on values, or keeps
something for the next pass is run for real in every pass. Everything else becomes nodes.
"""

from __future__ import annotations

import random
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from freezeout.layers import modules_in
from freezeout.prefix.lazy import Lazy
from freezeout.prefix.nodes import Call, Node, Plan

__all__ = [
    "OPEN",
    "REAL",
    "Changes",
    "InPlace",
    "Many",
    "Observed",
    "Outcome",
    "Same",
    "memory",
    "observed",
    "outputs_of",
]


class _Word:
    def __init__(self, name: str) -> None:
        self._name = name

    def __repr__(self) -> str:
        return self._name


REAL = _Word("REAL")
"""The call runs for real in every pass, and what it gives is active."""

OPEN = _Word("OPEN")
"""The module runs as it is written, and the calls inside it are looked at one by one."""


@dataclass(frozen=True)
class Same:
    """The call gives one of its lazy arguments back.

    Attributes:
        index: Which of them.
    """

    index: int


@dataclass(frozen=True)
class InPlace:
    """The call changes its first argument, which stands for another node from then on.

    Attributes:
        node: That node.
        gives_it: Whether the call also returns it.
    """

    node: Node
    gives_it: bool


@dataclass(frozen=True)
class Many:
    """The call gives several values.

    Attributes:
        structure: They as they were returned, with nodes in place of tensors.
    """

    structure: Any


Outcome = Any  # a node, or one of the above


@dataclass
class Observed:
    """What was seen while a call ran.

    Attributes:
        is_random: Whether it drew random numbers.
        reads_values: Whether a shape or a number in Python depended on values.
    """

    is_random: bool = False
    reads_values: bool = False


class _Observer(TorchDispatchMode):
    def __init__(self, seen: Observed) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # PyTorch gives it no types
        self._seen = seen

    def __torch_dispatch__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        tags = getattr(function, "tags", ())
        if torch.Tag.data_dependent_output in tags:
            self._seen.reads_values = True
        if torch.Tag.dynamic_output_shape in tags:
            self._seen.reads_values |= not _is_index(function) or _has_mask(args)
        if any(isinstance(arg, torch.Generator) for arg in (*args, *kwargs.values())):
            self._seen.is_random = True
        return function(*args, **kwargs)


def _is_index(function: Any) -> bool:
    return getattr(function, "overloadpacket", None) is torch.ops.aten.index


def _has_mask(args: Sequence[Any]) -> bool:
    masks = (torch.bool, torch.uint8)
    return any(isinstance(index, torch.Tensor) and index.dtype in masks for index in args[1])


@contextmanager
def observed(devices: Sequence[str], *, is_compiled: bool = False) -> Iterator[Observed]:
    """Watch a call for random draws, and for values that decide about shapes or go to Python.

    Args:
        devices: Types of the devices whose random numbers it may draw.
        is_compiled: Whether it is compiled, so that its operators must not be watched: PyTorch
            would run it uncompiled.
    """
    seen = Observed()
    before = _random_states(devices)
    with nullcontext() if is_compiled else _Observer(seen):
        yield seen
    seen.is_random |= not _equal(before, _random_states(devices))


def _random_states(devices: Sequence[str]) -> list[Any]:
    states: list[Any] = [torch.get_rng_state()]
    if "cuda" in devices:
        states += torch.cuda.get_rng_state_all()
    numpy: Any = sys.modules.get("numpy")
    if numpy is not None:
        name, keys, *rest = numpy.random.get_state()
        states += [name, keys.tobytes(), *rest]
    return [*states, random.getstate()]


def _equal(one: list[Any], other: list[Any]) -> bool:
    return len(one) == len(other) and all(
        torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b
        for a, b in zip(one, other, strict=True)
    )


class Changes:
    """What a call changes beside its result: arguments, and what a module keeps.

    Args:
        tensors: Real tensors that it is given.
        module: The module that runs, if it is one.

    Attributes:
        owned: The parameters and buffers of the module.
    """

    def __init__(self, tensors: Sequence[torch.Tensor], module: nn.Module | None) -> None:
        owned = [] if module is None else [*module.parameters(), *module.buffers()]
        self._given = [(t, t._version) for t in tensors]
        self.owned = owned
        self._versions = [t._version for t in owned]
        self._module = module
        self._kept = None if module is None else _kept(module)

    def arguments(self) -> list[torch.Tensor]:
        """Return the arguments that were changed."""
        return [t for t, version in self._given if t._version != version]

    def module_keeps(self) -> bool:
        """Return whether the module has changed a tensor or an attribute of its own."""
        if self._module is None:
            return False
        now = [t._version for t in self.owned]
        moved = now != self._versions
        return moved or _kept(self._module) != self._kept


def _kept(module: nn.Module) -> list[dict[str, int]]:
    """Return the identity of all that the modules in a module hold."""
    return [
        {
            f"{register}.{name}": id(value)
            for register, content in (
                ("", vars(inner)),
                ("parameters", inner._parameters),
                ("buffers", inner._buffers),
                ("modules", inner._modules),
            )
            for name, value in content.items()
        }
        for inner in modules_in(module)
    ]


def memory(tensor: torch.Tensor) -> int:
    """Return what tells the memory behind a tensor from others."""
    return int(tensor.untyped_storage()._cdata)


def outputs_of(
    plan: Plan,
    call: Call,
    out: Any,
    lazies: Sequence[Lazy],
    constants: Sequence[torch.Tensor],
) -> tuple[Outcome, list[tuple[Node, torch.Tensor]]]:
    """Make nodes of what a call has given.

    Args:
        plan: Gets the nodes.
        call: The call; its outputs are noted in it.
        out: What it gave.
        lazies: Its lazy arguments; all have been given real tensors.
        constants: The constants that it may have passed on.

    Returns:
        The outcome, `REAL` where it cannot be nodes, and the value of each new node.
    """
    for index, lazy in enumerate(lazies):
        if out is lazy.given:
            return Same(index), []
    tensors: list[torch.Tensor] = []
    if not _collect(out, tensors) or not tensors or not all(map(_is_plain, tensors)):
        return REAL, []
    different = {id(t): t for t in tensors}
    if any(t is lazy.given for t in different.values() for lazy in lazies):
        return REAL, []
    owners = {memory(lazy.given): i for i, lazy in enumerate(lazies) if lazy.given is not None}
    outside = {memory(t) for t in constants}
    places = [memory(t) for t in different.values()]
    fresh = [place for place in places if place not in owners]
    if len({*fresh}) < len(fresh):  # they share memory with each other: which is a view of which?
        return REAL, []
    many = out is not tensors[0]
    nodes: dict[int, Node] = {}
    for position, tensor in enumerate(tensors):
        if id(tensor) in nodes:
            continue
        node = nodes[id(tensor)] = plan.output(call, tensor, position, many=many)
        node.alias_index = owners.get(memory(tensor))
        if node.alias_index is not None:
            node.alias = lazies[node.alias_index].node
            node.external = node.alias.external
        node.external |= memory(tensor) in outside
    call.outputs = tuple(nodes.values())
    values = [(nodes[id(t)], t) for t in different.values()]
    return (Many(_structure(out, nodes)) if many else call.outputs[0]), values


def _is_plain(tensor: torch.Tensor) -> bool:
    """Return whether a tensor is one of PyTorch's own, dense, outside of the backward pass."""
    return (
        type(tensor) is torch.Tensor
        and not tensor.requires_grad
        and tensor.layout is torch.strided
        and not tensor.is_quantized
        and not tensor.is_inference()
        and not tensor.is_nested
        and not tensor.is_conj()
        and not tensor.is_neg()
    )


def _collect(out: Any, tensors: list[torch.Tensor]) -> bool:
    """Collect the tensors in what a call gave; return whether all else is plain."""
    if isinstance(out, torch.Tensor):
        tensors.append(out)
        return True
    kind = type(out)
    if kind in (tuple, list) or isinstance(out, tuple):
        return all(_collect(item, tensors) for item in out)
    if kind is dict:
        return all(_collect(item, tensors) for item in out.values())
    return out is None or kind in (int, float, bool, str)


def _structure(out: Any, nodes: dict[int, Node]) -> Any:
    if isinstance(out, torch.Tensor):
        return nodes[id(out)]
    if isinstance(out, tuple) and hasattr(out, "_fields"):
        return type(out)(*(_structure(item, nodes) for item in out))
    if isinstance(out, (tuple, list)):
        return type(out)([_structure(item, nodes) for item in out])
    if isinstance(out, dict):
        return {key: _structure(item, nodes) for key, item in out.items()}
    return out
