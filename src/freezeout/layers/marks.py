"""Marks on the parameters that we froze: only these are ever thawed again.

A mark is kept twice, because surgery loses either. The module that owns the parameter has it in its
``__dict__``, from where it goes into deep copies and pickles. The parameter itself has it in place
of its ``requires_grad_`` method: there it follows the tensor to another name or module, and notices
when the user freezes or thaws the parameter by hand. From then on the mark no longer holds.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import nn

from freezeout.layers.members import modules_in, parameters_in

__all__ = ["FROZEN", "forget_marks", "freeze_parameter", "is_ours", "thaw_parameters"]

FROZEN = "_freezeout_frozen"
"""In a module's ``__dict__``: the marks of its parameters that a `Freezer` has frozen."""

_CALL = "requires_grad_"
_STATE = "__getstate__"
_SUFFIXES = ("_orig", "_g", "_v")
"""What pruning and the older normalisations of weights append to a parameter's name."""


class _Mark:
    """Say that we froze a parameter, until the user freezes or thaws it by hand.

    On the parameter it stands in for ``requires_grad_``. It keeps itself out of the parameter's
    pickles, so that saved parameters load anywhere, also with ``weights_only=True``.

    Args:
        name: The parameter's name in the module that owned it.
        holds: Whether the freeze is still ours.
    """

    def __init__(self, name: str, holds: bool = True) -> None:
        self.name = name
        self.holds = holds
        self._tensor: weakref.ref[nn.Parameter] | None = None

    @property
    def tensor(self) -> nn.Parameter | None:
        """The parameter, if it is still there."""
        return None if self._tensor is None else self._tensor()

    def bind(self, parameter: nn.Parameter) -> None:
        """Put the mark on its parameter, unless a conversion of the model would swap it.

        That refuses what has a weak reference; the mark in the owner, by name, must do then.
        """
        always = hasattr(parameter, "__tensor_flatten__")  # DTensor, quantized weights
        if always or torch.__future__.get_swap_module_params_on_conversion():
            return
        self._tensor = weakref.ref(parameter)
        if type(parameter) is nn.Parameter:  # subclasses have their own ways to copy and pickle
            parameter.__dict__[_CALL] = self
            parameter.__dict__[_STATE] = self._state

    def __call__(self, requires_grad: bool = True) -> torch.Tensor:
        """Freeze or thaw by hand; the freeze is the user's from now on."""
        parameter = self.tensor
        if parameter is None:
            raise RuntimeError(
                f"requires_grad_ of a parameter {self.name!r} was called, got a copy without its "
                "tensor. Call requires_grad_ on the parameter itself."
            )
        self.lift()
        parameter.requires_grad = requires_grad
        return parameter

    def lift(self) -> None:
        """End the mark, and give the parameter its own method back."""
        self.holds = False
        if self.tensor is not None:
            _strip(self.tensor)

    def _state(self) -> dict[str, Any]:
        parameter = self.tensor
        attributes = {} if parameter is None else parameter.__dict__
        return {key: value for key, value in attributes.items() if key not in (_CALL, _STATE)}


class _Marks(list[_Mark]):
    """The marks of a module's parameters; a copy or a pickle of the module gets its own.

    A list in use is replaced rather than changed: who has put attributes aside puts them back.
    """

    def __deepcopy__(self, memo: dict[int, Any]) -> _Marks:
        entries = [(mark.name, mark.holds, memo.get(id(mark.tensor))) for mark in self]
        return _restored(entries)

    def __reduce__(self) -> tuple[Any, ...]:
        return _restored, ([(mark.name, mark.holds, mark.tensor) for mark in self],)

    def add(self, name: str, holds: bool, parameter: nn.Parameter | None) -> None:
        """Add a mark, and put it on its parameter."""
        mark = _Mark(name, holds)
        self.append(mark)
        if parameter is not None and holds:
            mark.bind(parameter)


def _restored(entries: Iterable[tuple[str, bool, nn.Parameter | None]]) -> _Marks:
    marks = _Marks()
    for entry in entries:
        marks.add(*entry)
    return marks


def freeze_parameter(model: nn.Module, name: str, parameter: nn.Parameter) -> None:
    """Stop a parameter's gradient, and mark it as frozen by us if it required one.

    Args:
        model: The model.
        name: The parameter's qualified name in it.
        parameter: The parameter itself.
    """
    if not parameter.requires_grad:
        return
    parameter.requires_grad = False
    path, _, local = name.rpartition(".")
    owner = model.get_submodule(path)
    marks = _Marks(mark for mark in _marks(owner) if mark.name != local)  # undone by hand
    marks.add(local, True, parameter)
    owner.__dict__[FROZEN] = marks


def thaw_parameters(
    model: nn.Module, parameters: Iterable[tuple[str, nn.Parameter]]
) -> list[tuple[str, nn.Parameter]]:
    """Undo our freezes of parameters; leave those as they are whose freeze is none of ours.

    Args:
        model: The model.
        parameters: Qualified name and parameter of each.

    Returns:
        Those that learn again.
    """
    named = list(parameters)
    ours = [entry for entry in named if is_ours(model, *entry)]  # several may share a mark
    for entry in named:
        _drop(model, *entry)
    for _, parameter in ours:
        parameter.requires_grad = True
    return ours


def is_ours(model: nn.Module, name: str, parameter: nn.Parameter) -> bool:
    """Return whether a parameter is frozen, and by us.

    Args:
        model: The model.
        name: The parameter's qualified name in it.
        parameter: The parameter itself.
    """
    if parameter.requires_grad:
        return False
    own = parameter.__dict__.get(_CALL)
    if isinstance(own, _Mark):
        return own.holds
    return any(mark.holds for _, mark in _found(model, name, parameter))


def forget_marks(model: nn.Module) -> None:
    """Take every mark off a model; what is frozen now stays so.

    Args:
        model: Any module.
    """
    for module in modules_in(model):
        module.__dict__.pop(FROZEN, None)
    for parameter in parameters_in(model):
        _strip(parameter)


def _strip(parameter: nn.Parameter) -> None:
    if isinstance(parameter.__dict__.get(_CALL), _Mark):
        del parameter.__dict__[_CALL], parameter.__dict__[_STATE]


def _drop(model: nn.Module, name: str, parameter: nn.Parameter) -> None:
    """Remove every mark of a parameter."""
    _strip(parameter)
    for owner, mark in list(_found(model, name, parameter)):
        rest = [each for each in _marks(owner) if each is not mark]
        if rest:
            owner.__dict__[FROZEN] = _Marks(rest)
        else:
            owner.__dict__.pop(FROZEN, None)


def _found(
    model: nn.Module, name: str, parameter: nn.Parameter
) -> Iterator[tuple[nn.Module, _Mark]]:
    """Yield the marks that modules of a model hold for a parameter, by its tensor or its name."""
    for owner, local in _former_places(model, name):
        for mark in _marks(owner):
            if mark.tensor is parameter or mark.name == local:
                yield owner, mark


def _former_places(model: nn.Module, name: str) -> Iterator[tuple[nn.Module, str]]:
    """Yield the places at which a parameter may have been before it was pruned or parametrized."""
    path, _, local = name.rpartition(".")
    owner = model.get_submodule(path)
    yield owner, local
    for suffix in _SUFFIXES:
        if local.endswith(suffix):
            yield owner, local.removesuffix(suffix)
    outside, is_parametrized, inside = f".{path}".rpartition(".parametrizations.")
    if is_parametrized:
        yield model.get_submodule(outside.removeprefix(".")), inside


def _marks(module: nn.Module) -> _Marks:
    """Return a module's marks; names alone, as earlier versions kept them, become marks."""
    marks = module.__dict__.get(FROZEN, ())
    return marks if isinstance(marks, _Marks) else _restored((name, True, None) for name in marks)
