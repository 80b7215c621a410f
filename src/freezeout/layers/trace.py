"""Find the order of execution from one real forward pass on an example input."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from freezeout.errors import SplitError
from freezeout.layers.units import Unit
from freezeout.tensors import call_arguments, is_out_of_memory, uncompiled
from freezeout.text import first_line

__all__ = ["Trace", "trace"]


class Trace:
    """When each module and each parameter was used in one forward pass.

    Times count module calls and torch functions from 0. A context is the part that was running.
    """

    def __init__(self) -> None:
        self.now = 0
        self.running: list[int] = []  # id(module) of the parts that are running
        self.calls: dict[int, list[int]] = {}  # id(module) -> times
        self.parts: list[tuple[int, int]] = []  # (time, id(module)) of every call of a part
        self.uses: dict[int, list[tuple[int, int | None]]] = {}  # id(parameter) -> (time, context)

    def use(self, parameter: nn.Parameter) -> None:
        """Note that a torch function took a parameter."""
        context = self.running[-1] if self.running else None
        self.uses.setdefault(id(parameter), []).append((self.now, context))

    def used(self, parameter: nn.Parameter) -> bool:
        """Return whether any torch function took the parameter."""
        return id(parameter) in self.uses

    def position(self, unit: Unit) -> int | None:
        """Return the time of a unit's last use; ``None`` if it never ran.

        A unit whose modules are never called still runs if a function takes its weights.
        """
        weighty = [module for _, module in unit.parts if any(True for _ in module.parameters())]
        modules = weighty or [module for _, module in unit.parts]
        times = [t for module in modules for t in self.calls.get(id(module), ())]
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
        time, context = uses[0] if default is None else uses[-1]
        index = _index(units)
        if context is not None:
            return index[context]
        if default is not None and all(index.get(part) != default for _, part in self.parts):
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
        events = [(t, index[part]) for t, part in self.parts if part in index]
        for p in model.parameters():
            events += [(t, parameter_owner[id(p)]) for t, _ in self.uses.get(id(p), ())]
        for module in model.modules():
            is_loose = id(module) not in owner and not any(True for _ in module.children())
            if is_loose and id(module) in self.calls:
                last = self.calls[id(module)][-1]
                before = [i for t, i in events if t < last]
                if before:
                    owner[id(module)] = max(before)

    def _next_after(self, time: int, index: dict[int, int], last: int) -> int:
        return next((index[part] for t, part in self.parts if t >= time and part in index), last)


def _index(units: Sequence[Unit]) -> dict[int, int]:
    return {id(module): i for i, unit in enumerate(units) for _, module in unit.parts}


def trace(model: nn.Module, units: Sequence[Unit], example: Any) -> Trace:
    """Run the model once on an example and note what is used when.

    The model is left as it was: modes, buffers and random state are put back.

    Args:
        model: The model, on the same device as the example.
        units: The units to tell apart.
        example: One tensor, a tuple of positional, or a mapping of keyword arguments.

    Raises:
        SplitError: If the model cannot run on the example.
    """
    seen = Trace()
    args, kwargs = call_arguments(example)
    try:
        with (
            _undisturbed(model),
            _watching(model, units, seen),
            uncompiled(),
            torch.no_grad(),
            _Uses(model, seen),
        ):
            model(*args, **kwargs)
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
    return seen


class _Uses(TorchFunctionMode):
    """Note every torch function that takes a parameter and gives a tensor."""

    def __init__(self, model: nn.Module, seen: Trace) -> None:
        super().__init__()
        self._parameters = {id(p): p for p in model.parameters()}
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
        if any(isinstance(leaf, torch.Tensor) for leaf in _leaves(result)):  # not weight.dtype etc.
            for leaf in _leaves((args, kwargs)):
                if id(leaf) in self._parameters:
                    self._seen.use(leaf)
        return result


def _leaves(value: Any) -> Iterator[Any]:
    if isinstance(value, (tuple, list)):
        for item in value:
            yield from _leaves(item)
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from _leaves(item)
    else:
        yield value


@contextmanager
def _watching(model: nn.Module, units: Sequence[Unit], seen: Trace) -> Iterator[None]:
    parts = {id(module) for unit in units for _, module in unit.parts}

    def enter(module: nn.Module, args: Any) -> None:
        seen.now += 1
        seen.calls.setdefault(id(module), []).append(seen.now)
        if id(module) in parts:
            seen.parts.append((seen.now, id(module)))
            seen.running.append(id(module))

    def leave(module: nn.Module, args: Any, output: Any) -> None:
        if id(module) in parts:
            seen.running.pop()

    handles = []
    try:
        for module in model.modules():
            handles.append(module.register_forward_pre_hook(enter))
            handles.append(module.register_forward_hook(leave, always_call=True))
        yield
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def _undisturbed(model: nn.Module) -> Iterator[None]:
    """Run in evaluation mode, then put back modes, buffers and random state."""
    modes = [(module, module.training) for module in model.modules()]
    registers = [(module, dict(module._buffers)) for module in model.modules()]
    values = [(buffer, buffer.detach().clone()) for buffer in model.buffers()]
    devices = {t.device for t in (*model.parameters(), *model.buffers()) if t.is_cuda}
    with torch.random.fork_rng(devices=[d.index for d in devices]):
        for module, _ in modes:
            module.training = False
        try:
            yield
        finally:
            for module, mode in modes:
                module.training = mode
            for module, register in registers:  # a forward pass may replace a buffer
                module._buffers.clear()
                module._buffers.update(register)
            with torch.no_grad():
                for buffer, value in values:
                    if not torch.equal(buffer, value):  # one that is expanded cannot be written
                        buffer.copy_(value)
