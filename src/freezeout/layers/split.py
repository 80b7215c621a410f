"""Cut any model into an ordered list of layers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import nn

from freezeout.errors import SplitError
from freezeout.layers.blocks import find_atoms, group
from freezeout.layers.heads import join_heads
from freezeout.layers.layer import Layer, Layers, LayerSpec, learns_at_all, unwrap
from freezeout.layers.members import modules_in, named_parameters, parameters_in
from freezeout.layers.names import cut_by_names
from freezeout.layers.trace import Trace, trace
from freezeout.layers.units import Unit
from freezeout.layers.widths import join_bare_heads, warn_of_heads

__all__ = ["split_layers"]


def split_layers(
    model: nn.Module, *, layers: Sequence[LayerSpec] | None = None, example: Any = None
) -> Layers:
    """Cut a model into an ordered list of layers.

    Without `layers`, blocks are found in the module tree: ``nn.Sequential`` and ``nn.ModuleList``
    are opened, and so is any module that holds a stack of blocks, unless it is one of several with
    the same shapes. A block is one layer; a normalisation joins the convolution or
    linear map before it, and where it follows a block (a final norm) what comes after it. Without
    `example`, the order is that of definition.

    With `example`, the model runs once on it (in evaluation mode, without gradients or compilation;
    modes, buffers and random state are put back), and layers are formed and ordered as they were
    executed.

    Parameters that sit on a container (``cls_token``, ``pos_embed``) belong to the first layer that
    uses them, or without an example to the first layer within the container; so do, with an
    example, those of a module that is never called, but only read (a table of queries). A tied
    weight or a shared module belongs to its last user. A module that never runs belongs to the last
    layer, inside a block that runs to that block. A container goes to inference mode with the last
    layer in it.

    Parts that require no gradient when the model is cut (a pretrained body kept as it is) have
    nothing to settle: they are one layer with what learns next, and after the last layer that
    learns with that. Layers that you name stay apart, except at the end, and so do all where fewer
    than two layers would be left. Their modes stay yours when that layer freezes.

    Args:
        model: Any module; wrappers (data parallel, compiled) are looked through.
        layers: The layers from input to output, by name (``"stem"``), pattern (``"blocks.*"``: one
            layer for each match; ``*`` stays within one part of a dotted name), module, or a
            sequence of these that form one layer. They must cover all parameters except those
            that sit on containers.
        example: An input: one tensor, a tuple of positional or a dict of keyword arguments.

    Returns:
        At least two layers.

    Raises:
        SplitError: If the model cannot be cut; the message says why, and what to pass.
        TypeError: If `model` is no module, or `layers` holds something else than names and modules.
        ValueError: If `layers` or an entry of it is empty.

    Example:
        >>> net = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
        >>> print(split_layers(net))
        layer  name  parameters
            0  0             40
            1  2             18
    """
    if not isinstance(model, nn.Module):
        raise TypeError(
            f"model must be a torch.nn.Module, got {type(model).__name__}. "
            "Pass the model that is being trained."
        )
    model = unwrap(model)
    _check_parameters(model)
    if layers is None:
        units, seen = _find(model, example)
    else:
        units = cut_by_names(model, layers)
        seen = None if example is None else trace(model, example)
        if seen is not None:
            units = _in_order(units, seen)
    if not units and seen is not None and any(True for _ in model.children()):
        raise SplitError(
            f"the example runs no module of {type(model).__name__} that has parameters, so it "
            "gives no order. Pass an input as in training, or leave example out."
        )
    if not units:
        raise SplitError(_too_few(model, []))
    built, ties = _assign(model, units, seen)
    kept = [layer for layer in built if not learns_at_all(model, layer)]
    built = _join_idle(model, built, named=layers is not None)
    if len(built) < 2:
        raise SplitError(_too_few(model, built))
    idle = [] if seen is None else [n for n, p in named_parameters(model) if not seen.used(p)]
    return Layers(model, built, ties=ties, idle=idle, kept=kept)


def _check_parameters(model: nn.Module) -> None:
    parameters = list(named_parameters(model))
    if not parameters:
        raise SplitError(
            f"{type(model).__name__} has no parameters, so there is nothing to freeze. "
            "Pass the model that is being trained."
        )
    for name, parameter in parameters:
        if isinstance(parameter, nn.parameter.UninitializedParameter):
            raise SplitError(
                f"parameter {name!r} is lazy and has no shape yet. "
                "Run the model once on an example input before cutting it."
            )


def _find(model: nn.Module, example: Any) -> tuple[list[Unit], Trace | None]:
    """Return the units of a model in order of definition, or of execution with an example."""
    if example is None:
        units = join_bare_heads(model, group(find_atoms(model)))
        warn_of_heads(model, units, stacklevel=3)
        return units, None
    seen = trace(model, example)
    atoms = [atom for atom in find_atoms(model, seen) if not seen.is_table(atom.module)]
    placed = [(seen.position(atom.unit), atom) for atom in atoms]
    ran = sorted(((t, atom) for t, atom in placed if t is not None), key=lambda pair: pair[0])
    units = join_heads(model, group([atom for _, atom in ran]), seen)
    if units:
        units[-1].idle += [(atom.name, atom.module) for t, atom in placed if t is None]
    return units, seen


def _in_order(units: Sequence[Unit], seen: Trace) -> list[Unit]:
    """Sort units by their last use; those that never ran join the last one, which never freezes."""
    placed = [(seen.position(unit), unit) for unit in units]
    ran = sorted(((t, u) for t, u in placed if t is not None), key=lambda pair: pair[0])
    ordered = [unit for _, unit in ran]
    if ordered:
        ordered[-1].idle += [part for t, unit in placed if t is None for part in unit.parts]
    return ordered


def _assign(
    model: nn.Module, units: Sequence[Unit], seen: Trace | None
) -> tuple[list[Layer], list[tuple[str, ...]]]:
    """Give every parameter and module to one unit, and number the units that got parameters."""
    last = len(units) - 1
    owner: dict[int, int] = {}  # id(parameter) -> position in units
    names: dict[int, list[str]] = {}
    for position, unit in enumerate(units):
        for name, p in unit.named_parameters():
            owner[id(p)] = position  # a later unit takes a tied weight over
            names.setdefault(id(p), []).append(name)
    if seen is not None:
        for p in parameters_in(model):
            # One on a container that only training uses (a mask token) goes where its place says.
            if id(p) in owner or seen.used(p):
                owner[id(p)] = seen.owner(p, units, default=owner.get(id(p)))
    for name, p in named_parameters(model, remove_duplicate=False):
        names.setdefault(id(p), [])
        if name not in names[id(p)]:
            names[id(p)].append(name)
        if id(p) not in owner:
            owner[id(p)] = _first_inside(name, units, last)
    modules: dict[int, int] = {}
    for position, unit in enumerate(units):
        for module in unit.all_modules():
            modules[id(module)] = position
    if seen is not None:
        seen.place_loose_modules(model, units, modules, owner)
    _adopt(model, modules, owner)

    parameters_of: list[list[tuple[str, nn.Parameter]]] = [[] for _ in units]
    for name, p in named_parameters(model):
        parameters_of[owner[id(p)]].append((name, p))
    modules_of: list[list[nn.Module]] = [[] for _ in units]
    for module in modules_in(model):
        if id(module) in modules:
            modules_of[modules[id(module)]].append(module)

    built: list[Layer] = []
    waiting: list[nn.Module] = []  # modules of units without a parameter of their own join the next
    for unit, parameters, own in zip(units, parameters_of, modules_of, strict=True):
        waiting += own
        if parameters:
            name = _main_part(unit, {id(p) for _, p in parameters})
            built.append(Layer(len(built), name, tuple(waiting), tuple(parameters)))
            waiting = []
    if waiting and built:
        tail = built.pop()
        built.append(Layer(tail.index, tail.name, (*tail.modules, *waiting), tail.parameters))
    ties = [tuple(shared) for shared in names.values() if len(shared) > 1]
    return built, ties


def _join_idle(model: nn.Module, built: list[Layer], *, named: bool) -> list[Layer]:
    """Join layers that have nothing to learn to one that does, as long as two are left."""
    learns = [learns_at_all(model, layer) for layer in built]
    if not any(learns):
        return built
    last = len(learns) - 1 - learns[::-1].index(True)
    keeps = [learns[i] or (named and i < last) for i in range(last + 1)]
    if sum(keeps) < 2:
        return built
    joined: list[Layer] = []
    waiting: list[Layer] = []
    for layer, stays in zip(built, keeps, strict=False):
        waiting.append(layer)
        if stays:
            parts = [*waiting, *built[last + 1 :]] if layer is built[last] else waiting
            joined.append(_as_one(len(joined), layer.name, parts))
            waiting = []
    return joined


def _as_one(index: int, name: str, parts: Sequence[Layer]) -> Layer:
    modules = tuple(module for part in parts for module in part.modules)
    parameters = tuple(entry for part in parts for entry in part.parameters)
    return Layer(index, name, modules, parameters)


def _adopt(model: nn.Module, modules: dict[int, int], owner: dict[int, int]) -> None:
    """Give opened containers, and loose modules inside them, to the last unit within.

    A container may use its own mode, for functional dropout or a buffer; once all that it holds is
    frozen, so is the container. The model itself stays as it is.
    """

    def last_inside(module: nn.Module) -> int | None:
        inside = [owner[id(p)] for p in parameters_in(module)]
        inside += [modules[id(m)] for m in modules_in(module) if id(m) in modules]
        return max(inside, default=None)

    parents: dict[int, list[nn.Module]] = {}
    for parent in modules_in(model):
        for child in parent._modules.values():
            if child is not None:
                parents.setdefault(id(child), []).append(parent)
    found = {id(m): last_inside(m) for m in modules_in(model) if m is not model}
    modules.update({i: last for i, last in found.items() if i not in modules and last is not None})
    for module in modules_in(model):  # parents come before children
        around = [modules.get(id(parent)) for parent in parents.get(id(module), [])]
        known = [index for index in around if index is not None]
        if module is not model and id(module) not in modules and known == around and known:
            modules[id(module)] = max(known)


def _main_part(unit: Unit, owned: set[int]) -> str:
    """Return the name of the part with the most parameters among those that the layer owns."""
    sizes = [sum(p.numel() for p in parameters_in(m) if id(p) in owned) for _, m in unit.parts]
    return unit.names[sizes.index(max(sizes))]


def _first_inside(parameter_name: str, units: Sequence[Unit], last: int) -> int:
    """Return the first unit within the container that a parameter sits on."""
    prefix = parameter_name.rpartition(".")[0]
    prefix = prefix + "." if prefix else ""
    return next(
        (i for i, unit in enumerate(units) if any(n.startswith(prefix) for n in unit.names)), last
    )


def _too_few(model: nn.Module, built: Sequence[Layer]) -> str:
    found = f"one layer ({built[0].name or 'the model itself'!r})" if built else "no layer"
    children = [
        name for name, child in model.named_children() if any(True for _ in parameters_in(child))
    ]
    hint = f", for example layers={children!r}" if len(children) > 1 else ""
    what_to_do = (
        f"Name the layers from input to output{hint}, or restructure the model into submodules."
        if children
        else "Pass a model that is made of submodules."
    )
    return (
        f"{type(model).__name__} could not be cut: found {found}, and at least two are needed, "
        f"because the last layer never freezes. {what_to_do}"
    )
