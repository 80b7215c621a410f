"""Find the order of execution from one real forward pass on an example input."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import pairwise
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from freezeout.errors import SplitError
from freezeout.layers.flow import Flow, leaves
from freezeout.layers.kinds import children
from freezeout.layers.members import modules_in, parameters_in
from freezeout.layers.undisturbed import undisturbed
from freezeout.layers.units import Unit
from freezeout.tensors import call_arguments, is_out_of_memory, uncompiled
from freezeout.text import first_line

__all__ = ["Trace", "trace"]

_PRODUCTS = (
    *("linear", "matmul", "mm", "addmm", "bmm", "baddbmm", "einsum", "bilinear"),
    *("lstm", "gru", "rnn_tanh", "rnn_relu", "lstm_cell", "gru_cell", "rnn_tanh_cell"),
    *("rnn_relu_cell", "multi_head_attention_forward", "grouped_mm", "_grouped_mm"),
    *("__matmul__", "__rmatmul__"),
)
"""Functions, beside convolutions, that multiply every position with a matrix."""


class Trace:
    """When each module and each parameter was used in one forward pass, and what it cost.

    Times count module calls and torch functions from 0.

    Attributes:
        flow: Which parameters feed which.
    """

    def __init__(self, buffers: Iterable[torch.Tensor] = ()) -> None:
        self.now = 0
        self.running: list[int] = []  # id(module) of what is running, outermost first
        self.calls: list[tuple[int, int]] = []  # (time, id(module)) of every call
        self.times: dict[int, list[int]] = {}  # id(module) -> times
        self.uses: dict[int, list[tuple[int, tuple[int, ...]]]] = {}  # id(parameter) -> uses
        self.costs: dict[int, float] = {}  # id(parameter) -> multiplications
        self.flow = Flow(buffers)

    def use(self, parameter: nn.Parameter, cost: float) -> None:
        """Note that a torch function took a parameter, and how often it multiplied with it."""
        self.uses.setdefault(id(parameter), []).append((self.now, tuple(self.running)))
        self.costs[id(parameter)] = self.costs.get(id(parameter), 0.0) + cost

    def used(self, parameter: nn.Parameter) -> bool:
        """Return whether any torch function took the parameter."""
        return id(parameter) in self.uses

    def cost(self, module: nn.Module) -> float:
        """Return the multiplications of everything inside a module."""
        return sum(self.costs.get(id(p), 0.0) for p in parameters_in(module))

    def is_called_again(self, module: nn.Module) -> bool:
        """Return whether a module ran several times, so that its parts took turns."""
        return len(self.times.get(id(module), ())) > 1

    def is_table(self, module: nn.Module) -> bool:
        """Return whether a module is never called, and nothing is multiplied with its weights.

        So is a table of positions or queries that is taken as a whole. It is no more than a
        parameter on a container, and belongs to its first user as that does.
        """
        called = any(id(m) in self.times for m in modules_in(module))
        read = {id(p) for p in parameters_in(module) if self.used(p)}
        return not called and bool(read) and read.isdisjoint(self.flow.multiplied)

    def ran_in_turn(self, modules: Sequence[nn.Module]) -> bool:
        """Return whether modules ran in this order, each fed by the one before."""
        first = [min(self.times.get(id(module), [-1])) for module in modules]
        inside = [{id(p) for p in parameters_in(module)} for module in modules]
        return first == sorted(first) and all(
            self._reaches(one, other) for one, other in pairwise(inside)
        )

    def _reaches(self, start: set[int], goal: set[int]) -> bool:
        seen, waiting = set(start), list(start)
        while waiting:
            for fed in self.flow.feeds.get(waiting.pop(), ()):
                if fed in goal:
                    return True
                if fed not in seen:
                    seen.add(fed)
                    waiting.append(fed)
        return False

    def position(self, unit: Unit) -> int | None:
        """Return the time of a unit's last use; ``None`` if it never ran.

        A unit whose modules are never called still runs if a function takes its weights.
        """
        weighty = [module for _, module in unit.parts if any(True for _ in parameters_in(module))]
        modules = weighty or [module for _, module in unit.parts]
        times = [t for module in modules for t in self.times.get(id(module), ())]
        if not times:
            times = [t for _, p in unit.named_parameters() for t, _ in self.uses.get(id(p), ())]
        return max(times, default=None)

    def owner(self, parameter: nn.Parameter, units: Sequence[Unit], *, default: int | None) -> int:
        """Return the index of the unit that a parameter belongs to; `units` in execution order.

        A parameter of a unit belongs to its last user, one on a container (`default` is ``None``)
        to its first user. One that is never used stays in its unit: the expert of a mixture that
        got no token in the example gets some later, and must be frozen with its block then.
        """
        uses = self.uses.get(id(parameter))
        if not uses:
            return len(units) - 1 if default is None else default
        time, running = uses[0] if default is None else uses[-1]
        index = _index(units)
        around = [index[module] for module in running if module in index]
        if around:
            return around[-1]
        if default is not None and all(index.get(called) != default for _, called in self.calls):
            return default
        return self._next_after(time, index, len(units) - 1)

    def place_loose_modules(
        self,
        model: nn.Module,
        units: Sequence[Unit],
        owner: dict[int, int],
        parameter_owner: Mapping[int, int],
    ) -> None:
        """Give modules without parameters, outside every unit, to the last unit they may follow.

        Both what ran and which parameters were used before count: a dropout after a sum with a
        position embedding must not freeze before that embedding does.
        """
        index = _index(units)
        events = [(t, index[called]) for t, called in self.calls if called in index]
        for p in parameters_in(model):
            events += [(t, parameter_owner[id(p)]) for t, _ in self.uses.get(id(p), ())]
        for module in modules_in(model):
            is_loose = id(module) not in owner and not any(True for _ in module.children())
            if is_loose and id(module) in self.times:
                last = self.times[id(module)][-1]
                before = [i for t, i in events if t < last]
                if before:
                    owner[id(module)] = max(before)

    def _next_after(self, time: int, index: dict[int, int], last: int) -> int:
        return next((index[part] for t, part in self.calls if t >= time and part in index), last)


def _index(units: Sequence[Unit]) -> dict[int, int]:
    return {id(module): i for i, unit in enumerate(units) for _, module in unit.parts}


def trace(model: nn.Module, example: Any) -> Trace:
    """Run the model once on an example and note what is used when.

    The model is left as it was: modes, buffers, attributes and random state are put back.

    Args:
        model: The model, on the same device as the example.
        example: One tensor, a tuple of positional, or a mapping of keyword arguments.

    Raises:
        SplitError: If the model cannot run on the example.
    """
    seen = Trace(model.buffers())
    args, kwargs = call_arguments(example)
    try:
        with (
            undisturbed(model, (args, kwargs)),
            _watching(model, seen),
            uncompiled(),
            torch.no_grad(),
            _Uses(model, seen),
        ):
            result = model(*args, **kwargs)
    except Exception as error:
        if is_out_of_memory(error):
            raise SplitError(
                f"memory ran out when {type(model).__name__} ran on the example: "
                f"{first_line(error)}. "
                "Training would run out as well: pass a smaller batch."
            ) from error
        raise SplitError(
            f"{type(model).__name__} does not run on the example: {error} "
            f"({type(error).__name__}). Pass an input as in training: one tensor, a tuple of "
            "positional or a dict of keyword arguments, on the model's device."
        ) from error
    seen.flow.end(result)
    return seen


class _Uses(TorchFunctionMode):
    """Note every torch function that takes a parameter and gives a tensor."""

    def __init__(self, model: nn.Module, seen: Trace) -> None:
        super().__init__()
        self._parameters = {id(p): p for p in parameters_in(model)}
        self._seen = seen

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Iterable[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        self._seen.now += 1
        if result is None or any(isinstance(leaf, torch.Tensor) for leaf in leaves(result)):
            given = list(leaves((args, kwargs)))
            taken = [leaf for leaf in given if id(leaf) in self._parameters]
            if result is not None:  # which also leaves out weight.dtype and the like
                for parameter in taken:
                    self._seen.use(parameter, _cost(func, parameter, given, result))
            self._seen.flow.through(given, taken, result, product=_is_product(func))
        return result


def _cost(
    func: Callable[..., Any], parameter: nn.Parameter, given: Sequence[Any], result: Any
) -> float:
    """Return how many multiplications with a parameter a function did, as good as can be said."""
    name = getattr(func, "__name__", "")
    if not _is_product(func):
        return 0.0
    transposed = name.startswith("conv_transpose")
    out = given[0] if transposed else next(leaves(result), None)
    if parameter.ndim < 2 or not isinstance(out, torch.Tensor) or out.ndim < 1:
        return 0.0
    if name.startswith("conv"):
        channels = out.shape[1 if out.ndim == parameter.ndim else 0]
    else:
        matrices = parameter.shape[0] if parameter.ndim > 2 else 1  # one for each expert
        channels = out.shape[-1] * matrices
    return parameter.numel() * out.numel() / max(1, channels)


def _is_leaf(module: nn.Module) -> bool:
    return all(not any(True for _ in parameters_in(child)) for _, child in children(module))


def _is_product(func: Callable[..., Any]) -> bool:
    name = getattr(func, "__name__", "")
    return name.startswith("conv") or name in _PRODUCTS


@contextmanager
def _watching(model: nn.Module, seen: Trace) -> Iterator[None]:
    def enter(module: nn.Module, args: Any) -> None:
        seen.now += 1
        seen.times.setdefault(id(module), []).append(seen.now)
        seen.calls.append((seen.now, id(module)))
        seen.running.append(id(module))

    def leave(module: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
        seen.running.pop()
        seen.flow.past(
            (args, kwargs), output, own.get(id(module), frozenset()).intersection(seen.uses)
        )

    own = {id(m): frozenset(map(id, parameters_in(m))) for m in modules_in(model) if _is_leaf(m)}
    handles = []
    try:
        for module in modules_in(model):
            handles.append(module.register_forward_pre_hook(enter))
            handles.append(module.register_forward_hook(leave, with_kwargs=True, always_call=True))
        yield
    finally:
        for handle in handles:
            handle.remove()
