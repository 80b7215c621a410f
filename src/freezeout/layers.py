"""What a layer is: cutting any model into an ordered list of layers.

Freezing works on *layers*, units that freeze as one, in the order in which the model executes them.
`split_layers` finds them: from the module tree alone, or with an example input from a real forward
pass, which gives the true execution order. Nothing here knows optimizers or schedules.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias, overload

from torch import nn

from freezeout._cut import Unit, cut_by_names, find_atoms, group
from freezeout._trace import Trace, trace
from freezeout.errors import SplitError

__all__ = ["FROZEN", "Layer", "LayerSpec", "Layers", "learns_at_all", "split_layers", "unwrap"]

FROZEN = "_freezeout_frozen"
"""In a module's ``__dict__``: the names of its parameters that a `Freezer` has frozen."""

LayerSpec: TypeAlias = str | nn.Module | Sequence[str | nn.Module]
"""One layer, or with a pattern one layer per match: a module, a name, or several of these."""


@dataclass(frozen=True, eq=False)
class Layer:
    """A unit that freezes as one.

    Attributes:
        index: Position in execution order, 0 at the input.
        name: Qualified name of its main module.
        modules: Every module it owns, each once, submodules included. These go to inference mode
            when it freezes.
        parameters: Qualified name and parameter, each parameter of the model in exactly one layer.
    """

    index: int
    name: str
    modules: tuple[nn.Module, ...]
    parameters: tuple[tuple[str, nn.Parameter], ...]

    @property
    def num_parameters(self) -> int:
        """Number of scalars in its parameters."""
        return sum(p.numel() for _, p in self.parameters)

    def __repr__(self) -> str:
        return f"Layer({self.index}, {self.name!r}, {self.num_parameters:,} parameters)"


class Layers(Sequence[Layer]):
    """The layers of a model in execution order, input first.

    Attributes:
        model: The model they belong to, without wrappers.
        ties: For every tied weight, its names; it belongs to the layer of its last user.
        idle: Names of parameters that the example input never reached. They belong to the last
            layer, which never freezes; those that sit on a container, or in a block that ran
            without them (an expert that got no token), keep their place there.
    """

    def __init__(
        self,
        model: nn.Module,
        layers: Sequence[Layer],
        *,
        ties: Sequence[tuple[str, ...]] = (),
        idle: Sequence[str] = (),
    ) -> None:
        self.model = model
        self.ties = tuple(ties)
        self.idle = tuple(idle)
        self._layers = tuple(layers)
        self._index = {id(p): layer.index for layer in layers for _, p in layer.parameters}

    @overload
    def __getitem__(self, index: int) -> Layer: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[Layer, ...]: ...
    def __getitem__(self, index: int | slice) -> Layer | tuple[Layer, ...]:
        return self._layers[index]

    def __len__(self) -> int:
        return len(self._layers)

    def __iter__(self) -> Iterator[Layer]:
        return iter(self._layers)

    @property
    def names(self) -> tuple[str, ...]:
        """Name of each layer."""
        return tuple(layer.name for layer in self)

    def index_of(self, parameter: nn.Parameter) -> int | None:
        """Index of the layer that a parameter belongs to; ``None`` if it is not in the model."""
        return self._index.get(id(parameter))

    def early_ties(self) -> list[tuple[tuple[str, ...], int, int]]:
        """Tied weights with an earlier user than the layer that owns them.

        Until its owner freezes, such a weight makes the output of its first user need a gradient.

        Returns:
            For each its names, the index of its first user, and the index of its owner.
        """
        of_module = {id(m): layer.index for layer in self for m in layer.modules}
        found = []
        for names in self.ties:
            around = [m for name in names for m in _modules_around(self.model, name)]
            users = [of_module[id(m)] for m in around if id(m) in of_module]
            tied = names[0], self.model.get_parameter(names[0])
            index = self.index_of(tied[1])
            if not _learns(self.model, *tied):
                continue
            if index is not None and users and min(users) < index:
                found.append((names, min(users), index))
        return found

    def table(self, times: Sequence[float] | None = None) -> str:
        """A plain-text table: index, name, parameters and, where given, freeze time.

        Args:
            times: Freeze time of each layer, in (0, 1].

        Returns:
            Lines of equal structure, without a newline at the end.

        Raises:
            ValueError: If `times` has another length than the list of layers.
        """
        if times is not None and len(times) != len(self):
            raise ValueError(
                f"times must hold one freeze time for each of the {len(self)} layers, "
                f"got {len(times)}. Take them from Schedule.freeze_times({len(self)})."
            )
        rows = [("layer", "name", "parameters", "freezes at")]
        for layer in self:
            t = None if times is None else times[layer.index]
            at = "" if t is None else "never" if t >= 1.0 else f"{t:.4f}"
            rows.append((str(layer.index), layer.name, f"{layer.num_parameters:,}", at))
        columns = rows if times is not None else [row[:3] for row in rows]
        widths = [max(map(len, column)) for column in zip(*columns, strict=True)]
        return "\n".join(
            "  ".join(
                cell.ljust(width) if i == 1 else cell.rjust(width)
                for i, (cell, width) in enumerate(zip(row, widths, strict=True))
            ).rstrip()
            for row in columns
        )

    def __str__(self) -> str:
        return self.table()

    def __repr__(self) -> str:
        return f"Layers({len(self)} layers of {type(self.model).__name__})"


def split_layers(
    model: nn.Module, *, layers: Sequence[LayerSpec] | None = None, example: Any = None
) -> Layers:
    """Cuts a model into an ordered list of layers.

    Without `layers`, blocks are found in the module tree: ``nn.Sequential`` and ``nn.ModuleList``
    are opened, and so is any module that holds a stack of blocks, unless it is itself one of
    several with the same shapes. A block is one layer; a normalisation joins the convolution or
    linear map before it, and where it follows a block (a final norm) what comes after it. Without
    `example`, the order is that of definition.

    With `example`, the model runs once on it (in evaluation mode, without gradients or compilation;
    modes, buffers and random state are put back), and layers are formed and ordered as they were
    executed.

    Parameters that sit on a container (``cls_token``, ``pos_embed``) belong to the first layer that
    uses them, or without an example to the first layer within the container. A tied weight or a
    shared module belongs to its last user. A module that never runs belongs to the last layer,
    inside a block that runs to that block. A container goes to inference mode with the last layer
    in it.

    Parts that require no gradient when the model is cut (a pretrained body kept as it is) have
    nothing to settle: they are one layer with what learns next, and after the last layer that
    learns with that. Layers that you name stay apart, except at the end, and so do all where fewer
    than two layers would be left.

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
        seen = None if example is None else trace(model, units, example)
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
    built = _join_idle(model, built, named=layers is not None)
    if len(built) < 2:
        raise SplitError(_too_few(model, built))
    idle = [] if seen is None else [n for n, p in model.named_parameters() if not seen.used(p)]
    return Layers(model, built, ties=ties, idle=idle)


def unwrap(model: nn.Module) -> nn.Module:
    """The model inside wrappers: ``DistributedDataParallel``, ``DataParallel``, ``torch.compile``.

    Args:
        model: A module, wrapped or not.
    """
    wrappers = (nn.parallel.DistributedDataParallel, nn.DataParallel)
    while True:
        inner = model.module if isinstance(model, wrappers) else getattr(model, "_orig_mod", model)
        if inner is model or not isinstance(inner, nn.Module):
            return model
        model = inner


def learns_at_all(model: nn.Module, layer: Layer) -> bool:
    """Whether anything in a layer is to learn, be it that an earlier run has frozen it.

    Args:
        model: The model, without wrappers.
        layer: One of its layers.
    """
    return any(_learns(model, *entry) for entry in layer.parameters)


def _learns(model: nn.Module, name: str, parameter: nn.Parameter) -> bool:
    path, _, local = name.rpartition(".")
    return parameter.requires_grad or local in model.get_submodule(path).__dict__.get(FROZEN, ())


def _modules_around(model: nn.Module, parameter_name: str) -> list[nn.Module]:
    """The module that holds a parameter, and those around it; the model itself is left out."""
    path = parameter_name.split(".")[:-1]
    return [model.get_submodule(".".join(path[: i + 1])) for i in range(len(path))]


def _check_parameters(model: nn.Module) -> None:
    parameters = list(model.named_parameters())
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
    """Units of a model in order of definition, or with an example of execution."""
    atoms = find_atoms(model)
    if example is None:
        return group(atoms), None
    seen = trace(model, [atom.unit for atom in atoms], example)
    placed = [(seen.position(atom.unit), atom) for atom in atoms]
    ran = sorted(((t, atom) for t, atom in placed if t is not None), key=lambda pair: pair[0])
    units = group([atom for _, atom in ran])
    if units:
        units[-1].idle += [(atom.name, atom.module) for t, atom in placed if t is None]
    return units, seen


def _in_order(units: Sequence[Unit], seen: Trace) -> list[Unit]:
    """Units by their last use; those that never ran join the last one, which never freezes."""
    placed = [(seen.position(unit), unit) for unit in units]
    ran = sorted(((t, u) for t, u in placed if t is not None), key=lambda pair: pair[0])
    ordered = [unit for _, unit in ran]
    if ordered:
        ordered[-1].idle += [part for t, unit in placed if t is None for part in unit.parts]
    return ordered


def _assign(
    model: nn.Module, units: Sequence[Unit], seen: Trace | None
) -> tuple[list[Layer], list[tuple[str, ...]]]:
    """Gives every parameter and module to one unit and numbers the units that got parameters."""
    last = len(units) - 1
    owner: dict[int, int] = {}  # id(parameter) -> position in units
    names: dict[int, list[str]] = {}
    for position, unit in enumerate(units):
        for name, p in unit.named_parameters():
            owner[id(p)] = position  # a later unit takes a tied weight over
            names.setdefault(id(p), []).append(name)
    if seen is not None:
        for p in model.parameters():
            # One on a container that only training uses (a mask token) goes where its place says.
            if id(p) in owner or seen.used(p):
                owner[id(p)] = seen.owner(p, units, default=owner.get(id(p)))
    for name, p in model.named_parameters(remove_duplicate=False):
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
    for name, p in model.named_parameters():
        parameters_of[owner[id(p)]].append((name, p))
    modules_of: list[list[nn.Module]] = [[] for _ in units]
    for module in model.modules():
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
    """Joins layers that have nothing to learn to one that does, as long as two are left."""
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
    """Gives opened containers, and loose modules inside them, to the last unit within.

    A container may use its own mode, for functional dropout or a buffer; once all that it holds is
    frozen, so is the container. The model itself stays as it is.
    """

    def last_inside(module: nn.Module) -> int | None:
        inside = [owner[id(p)] for p in module.parameters()]
        inside += [modules[id(m)] for m in module.modules() if id(m) in modules]
        return max(inside, default=None)

    parents: dict[int, list[nn.Module]] = {}
    for parent in model.modules():
        for child in parent._modules.values():
            if child is not None:
                parents.setdefault(id(child), []).append(parent)
    found = {id(m): last_inside(m) for m in model.modules() if m is not model}
    modules.update({i: last for i, last in found.items() if i not in modules and last is not None})
    for module in model.modules():  # parents come before children
        around = [modules.get(id(parent)) for parent in parents.get(id(module), [])]
        known = [index for index in around if index is not None]
        if module is not model and id(module) not in modules and known == around and known:
            modules[id(module)] = max(known)


def _main_part(unit: Unit, owned: set[int]) -> str:
    """Name of the part with the most parameters among those that the layer owns."""
    sizes = [sum(p.numel() for p in m.parameters() if id(p) in owned) for _, m in unit.parts]
    return unit.names[sizes.index(max(sizes))]


def _first_inside(parameter_name: str, units: Sequence[Unit], last: int) -> int:
    """The first unit within the container that a parameter sits on."""
    prefix = parameter_name.rpartition(".")[0]
    prefix = prefix + "." if prefix else ""
    return next(
        (i for i, unit in enumerate(units) if any(n.startswith(prefix) for n in unit.names)), last
    )


def _too_few(model: nn.Module, built: Sequence[Layer]) -> str:
    found = f"one layer ({built[0].name or 'the model itself'!r})" if built else "no layer"
    children = [
        name for name, child in model.named_children() if any(True for _ in child.parameters())
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
