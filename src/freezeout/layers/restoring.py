"""Put back what a forward pass changes in a model, so that a run on the side leaves no mark."""

from __future__ import annotations

import random
import sys
from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.nn.modules.lazy import LazyModuleMixin

from freezeout.layers.members import modules_in, parameters_in
from freezeout.tensors import tensors_in

__all__ = ["put_back", "same_bits"]

_CONTAINERS = (list, dict, OrderedDict, defaultdict, Counter, deque, set)
_OF_TORCH = frozenset(vars(nn.Module()))  # registers, hooks, the mode
_REGISTERS = tuple(name for name, value in vars(nn.Module()).items() if type(value) in _CONTAINERS)
_WRAPPERS = ("torch.distributed", "torch.nn.parallel")  # these set themselves up in a first pass


@contextmanager
def put_back(model: nn.Module, inputs: Any = (), *, parameters: bool = False) -> Iterator[None]:
    """Put back modes, registers, hooks, buffers, plain attributes and random numbers afterwards.

    Hooks and attributes come back together: a model that hooks itself up in its first pass and
    notes so in an attribute, as those of transformers do, would do it twice. Of attributes, lists,
    dictionaries, sets and dense tensors are put back as they were; other objects are not looked
    into. A module that builds its parts in the pass keeps them, with its attributes.

    Args:
        model: What is run.
        inputs: What it is run on; it says which devices hold random numbers.
        parameters: Whether values of parameters are put back as well, which takes a copy of them.
    """
    used = {t.device for t in (*tensors_in(inputs), *parameters_in(model), *model.buffers())}
    accelerated = sorted({device.index or 0 for device in used if device.type == "cuda"})
    modules = [_Kept(module) for module in modules_in(model)]
    tensors = [t for kept in modules for t in kept.tensors] + list(model.buffers())
    tensors += parameters_in(model) if parameters else ()
    dense = {id(t): t for t in tensors if t.layout is torch.strided and not t.is_meta}
    values = [(t, t.detach().clone()) for t in dense.values()]
    python, arrays = random.getstate(), _arrays_state()
    try:
        with torch.random.fork_rng(devices=accelerated):
            yield
    finally:
        random.setstate(python)
        if arrays is not None:
            sys.modules["numpy"].random.set_state(arrays)
        for kept in modules:
            kept.put_back()
        with torch.no_grad():
            for tensor, value in values:
                _write_back(tensor, value)


class _Kept:
    """What a module was: its mode, registers and hooks, plain attributes and what those hold."""

    def __init__(self, module: nn.Module) -> None:
        self._module = module
        self._mode = module.training
        self._registers: dict[str, tuple[Any, Any]] = {}
        self._attributes: dict[str, Any] = {}
        self._containers: dict[int, tuple[Any, Any]] = {}
        self._is_kept = not (
            isinstance(module, (LazyModuleMixin, torch.jit.ScriptModule))
            or type(module).__module__.startswith(_WRAPPERS)
        )
        self.tensors: list[torch.Tensor] = []
        if self._is_kept:
            for name in _REGISTERS:
                register = getattr(module, name)
                self._registers[name] = (register, register.copy())
            self._attributes = _own(module)
            for value in self._attributes.values():
                self._look(value)

    def _look(self, value: Any) -> None:
        if type(value) is torch.Tensor:
            self.tensors.append(value)
        elif type(value) is tuple:
            for item in value:
                self._look(item)
        elif type(value) in _CONTAINERS and id(value) not in self._containers:
            self._containers[id(value)] = (value, value.copy())
            for item in value.values() if isinstance(value, dict) else value:
                self._look(item)

    def put_back(self) -> None:
        self._module.training = self._mode
        if not self._is_kept or self._has_built():
            return
        for register, before in self._registers.values():
            _refill(register, before)
        place, now = self._module.__dict__, _own(self._module)
        for name in now.keys() - self._attributes.keys():
            del place[name]
        for name, value in self._attributes.items():
            if name not in now or now[name] is not value:
                place[name] = value
        for container, content in self._containers.values():
            _refill(container, content)

    def _has_built(self) -> bool:
        """Return whether the pass has made parts or parameters that were not there before."""
        added = [self._registers[name] for name in ("_parameters", "_modules")]
        return any(now.keys() - before.keys() for now, before in added)


def _own(module: nn.Module) -> dict[str, Any]:
    return {name: value for name, value in vars(module).items() if name not in _OF_TORCH}


def _refill(container: Any, content: Any) -> None:
    """Fill a container in place with what it held, if it holds something else."""
    now, before = _items(container), _items(content)
    if len(now) == len(before) and all(a is b for a, b in zip(now, before, strict=True)):
        return
    container.clear()
    if isinstance(container, (list, deque)):
        container.extend(content)
    else:
        container.update(content)


def _items(container: Any) -> list[Any]:
    if isinstance(container, dict):
        return [*container.keys(), *container.values()]
    return list(container)


def _write_back(tensor: torch.Tensor, value: torch.Tensor) -> None:
    if same_bits(tensor, value):
        return  # one that is expanded could not be written
    if tensor.shape == value.shape:
        tensor.copy_(value)
    else:
        tensor.data = value


def _arrays_state() -> Any:
    """Return NumPy's random state, if NumPy is in use."""
    numpy: Any = sys.modules.get("numpy")
    return None if numpy is None else numpy.random.get_state()


def same_bits(one: torch.Tensor, other: torch.Tensor) -> bool:
    """Return whether two dense tensors have the same bits, where not-a-number equals itself."""
    one, other = _local(one), _local(other)
    if one.dtype != other.dtype or one.shape != other.shape:
        return False
    if one.is_quantized or not one.numel():
        return torch.equal(one, other)
    rows = (t.resolve_conj().contiguous().reshape(-1).view(torch.uint8) for t in (one, other))
    return torch.equal(*rows)


def _local(tensor: torch.Tensor) -> torch.Tensor:
    """Return what this process holds of a tensor."""
    part = getattr(tensor, "_local_tensor", None)
    return (part if isinstance(part, torch.Tensor) else tensor).detach()
