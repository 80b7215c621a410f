"""Finding blocks in a module tree: the part of `layers` that needs no example input."""

from __future__ import annotations

import difflib
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise

from torch import nn
from torch.nn.utils.parametrize import is_parametrized

from freezeout.errors import SplitError

__all__ = ["Atom", "Unit", "cut_by_names", "find_atoms", "group"]

_CONTAINERS = (nn.Sequential, nn.ModuleList, nn.ModuleDict)
_EACH = "Each entry is one layer, or with a pattern one layer for each match."
_STOCK_BLOCKS = (nn.TransformerEncoderLayer, nn.TransformerDecoderLayer, nn.MultiheadAttention)
_WRAPPERS = (nn.DataParallel, nn.parallel.DistributedDataParallel)


@dataclass(eq=False)
class Unit:
    """Modules that will freeze as one, before parameters are given out.

    Attributes:
        parts: Qualified name and module, in order of definition.
        idle: Further modules, which never ran on the example, that it takes along.
    """

    parts: list[tuple[str, nn.Module]] = field(default_factory=list)
    idle: list[tuple[str, nn.Module]] = field(default_factory=list)

    @property
    def names(self) -> list[str]:
        """Qualified names of the parts."""
        return [name for name, _ in self.parts]

    def named_parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        """Every parameter under every name it has here."""
        for name, module in (*self.parts, *self.idle):
            yield from module.named_parameters(prefix=name, remove_duplicate=False)

    def all_modules(self) -> Iterator[nn.Module]:
        """Its parts, what it takes along, and all modules inside them."""
        for _, module in (*self.parts, *self.idle):
            yield from module.modules()


@dataclass(frozen=True)
class Atom:
    """A module that is not opened further.

    Attributes:
        name: Qualified name.
        module: The module.
        sequence: Name of the ``nn.Sequential`` that it sits in, ``None`` elsewhere: only there is
            it certain when a module without parameters runs.
    """

    name: str
    module: nn.Module
    sequence: str | None

    @property
    def unit(self) -> Unit:
        """A unit of this module alone."""
        return Unit([(self.name, self.module)])


def find_atoms(model: nn.Module) -> list[Atom]:
    """The modules that make up a model: its blocks and what lies between, as they are defined."""
    opened = {id(model)}
    kinds = _block_kinds(model)
    while True:
        atoms = _latest_only(list(_walk(model, "", opened, kinds)))
        block = _too_large(atoms, model)
        if block is None:
            return atoms
        opened.add(id(block))


def group(atoms: Sequence[Atom]) -> list[Unit]:
    """Makes units of modules in order: norms and what has no parameters join a neighbour."""
    units: list[Unit] = []
    waiting: list[tuple[str, nn.Module]] = []  # what belongs to the next unit
    for atom in atoms:
        part = (atom.name, atom.module)
        if _is_companion(atom.module):
            if not waiting and units and _is_plain(units[-1]):
                units[-1].parts.append(part)
            else:
                waiting.append(part)
        elif _size(atom.module) > 0:
            feeds = not isinstance(atom.module, nn.Embedding)  # that takes numbers of tokens
            if units and not feeds and all(_is_companion(module) for _, module in waiting):
                units[-1].parts += waiting
                waiting = []
            units.append(Unit([*waiting, part]))
            waiting = []
        elif atom.sequence is not None:
            if not waiting and units and _is_inside(units[-1].names[-1], atom.sequence):
                units[-1].parts.append(part)
            else:  # at the start of a sequence, such as the dropout of a head
                waiting.append(part)
        # Elsewhere it may be used anywhere, several times: it stays in training mode.
    if units:
        units[-1].parts += waiting
        return units
    return [Unit([part]) for part in waiting if _size(part[1]) > 0]


def cut_by_names(
    model: nn.Module, layers: Sequence[str | nn.Module | Sequence[str | nn.Module]]
) -> list[Unit]:
    """Units as the user names them.

    Raises:
        SplitError: If a name matches nothing, layers overlap, or parameters are left over.
        TypeError: If an entry is neither a name, nor a module, nor a sequence of these.
        ValueError: If there is no entry, or an empty one.
    """
    if isinstance(layers, str) or not isinstance(layers, Sequence):
        raise TypeError(
            f"layers must be a sequence of names or modules, got {layers!r}. "
            "Put a single name in a list."
        )
    if not layers:
        raise ValueError(
            "layers must name at least two layers, got none. Give them from input to output, or "
            "leave layers out to have them found."
        )
    by_name = dict(model.named_modules(remove_duplicate=False))
    names = {id(module): name for name, module in reversed(by_name.items())}
    units: list[Unit] = []
    for entry in layers:
        if isinstance(entry, str):
            units += [Unit([(n, by_name[n])]) for n in _match(entry, by_name)]
        elif isinstance(entry, nn.Module):
            units.append(Unit([(_name_of(entry, names), entry)]))
        elif isinstance(entry, Sequence):
            if not entry:
                raise ValueError(
                    "layers must not hold an empty sequence. Each entry is one layer: a name, a "
                    "module, or a sequence of at least one of these."
                )
            unit = Unit()
            for part in entry:
                found = _match(part, by_name) if isinstance(part, str) else [_name_of(part, names)]
                unit.parts += [(n, by_name[n]) for n in found]
            units.append(unit)
        else:
            raise TypeError(
                f"layers must hold names, modules or sequences of these, got {entry!r}. {_EACH}"
            )
    _check_disjoint(units)
    _check_complete(model, units)
    return units


def _walk(module: nn.Module, name: str, opened: set[int], kinds: frozenset[type]) -> Iterator[Atom]:
    for child_name, child in _children(module):
        full = f"{name}.{child_name}" if name else child_name
        if id(child) in opened or _opens(child, kinds):
            yield from _walk(child, full, opened, kinds)
        else:
            yield Atom(full, child, name if isinstance(module, nn.Sequential) else None)


def _children(module: nn.Module) -> list[tuple[str, nn.Module]]:
    """Name and module of each child, shared ones every time; parametrizations are no children."""
    return [
        (name, child)
        for name, child in module._modules.items()
        if child is not None and not (name == "parametrizations" and is_parametrized(module))
    ]


def _opens(module: nn.Module, kinds: frozenset[type]) -> bool:
    if isinstance(module, _CONTAINERS):
        return True
    inner = module.module if isinstance(module, _WRAPPERS) else getattr(module, "_orig_mod", None)
    if isinstance(inner, nn.Module):  # wrapped or compiled
        return _opens(inner, kinds)
    if type(module) in kinds:
        return False
    return any(
        isinstance(stack, _CONTAINERS) and sum(map(_is_block, stack.children())) > 1
        for stack in module.modules()
    )


def _block_kinds(model: nn.Module) -> frozenset[type]:
    """Classes of which one container holds two with parameters of the same shapes.

    These are blocks, whatever lists they have inside (experts, attention heads). The stages of a
    network also sit in one container, but each has another width.
    """
    kinds = set()
    for container in model.modules():
        if isinstance(container, _CONTAINERS):
            blocks = [child for child in container.children() if _is_block(child)]
            shapes = Counter((type(block), tuple(_shapes(block).items())) for block in blocks)
            kinds |= {kind for (kind, _), count in shapes.items() if count > 1}
            kinds |= {type(one) for one, other in pairwise(blocks) if _alike(one, other)}
    return frozenset(kinds)


def _alike(one: nn.Module, other: nn.Module) -> bool:
    """Whether two modules are of one kind, though one holds a further parameter deep inside.

    The first block of T5 holds the table of positions for all. A further child, or more items in a
    list, make another module of it: stages differ so.
    """
    children = [[(name, type(child)) for name, child in _children(m)] for m in (one, other)]
    lengths = [
        {name: len(inner) for name, inner in m.named_modules() if isinstance(inner, _CONTAINERS)}
        for m in (one, other)
    ]
    shapes = [_shapes(m) for m in (one, other)]
    return (
        type(one) is type(other)
        and children[0] == children[1]
        and lengths[0] == lengths[1]
        and all(shapes[0][name] == shapes[1][name] for name in shapes[0].keys() & shapes[1].keys())
    )


def _shapes(module: nn.Module) -> dict[str, tuple[int, ...]]:
    return {name: tuple(p.shape) for name, p in module.named_parameters()}


def _is_block(module: nn.Module) -> bool:
    """Whether a module is more than one convolution, linear map or the like with its norm."""
    inside = [m for m in module.modules() if any(True for _ in m.parameters(recurse=False))]
    weights = [m for m in inside if not _is_companion(m)]
    starts_with_norm = bool(inside) and _is_companion(inside[0])
    return bool(_children(module)) and (
        len(weights) > 1 or (len(weights) == 1 and starts_with_norm)
    )


def _latest_only(atoms: list[Atom]) -> list[Atom]:
    """A module that occurs several times keeps its last place: it belongs to its last user."""
    last = {id(atom.module): i for i, atom in enumerate(atoms)}
    free = {id(atom.module) for atom in atoms if atom.sequence is None}
    return [
        replace(atom, sequence=None) if id(atom.module) in free else atom
        for i, atom in enumerate(atoms)
        if last[id(atom.module)] == i
    ]


def _is_inside(name: str, container: str) -> bool:
    return not container or name.startswith(container + ".")


def _is_companion(module: nn.Module) -> bool:
    """Whether a module with parameters or statistics only adjusts the output of another one."""
    is_kind = "Norm" in type(module).__name__ or isinstance(module, nn.PReLU)
    has_state = any(True for _ in (*module.parameters(), *module.buffers()))
    return is_kind and has_state and not _children(module)


def _is_plain(unit: Unit) -> bool:
    """Whether a unit is a bare convolution, linear map or the like, not a block."""
    return not any(_children(module) for _, module in unit.parts)


def _too_large(atoms: Sequence[Atom], model: nn.Module) -> nn.Module | None:
    """A block with more than half of all parameters that is not one of several alike."""
    total = _size(model)
    kinds = Counter(type(atom.module) for atom in atoms)
    for module in (atom.module for atom in atoms):
        inside = [child for _, child in _children(module) if _size(child) > 0]
        only_embeds = all(isinstance(m, nn.Embedding) or _is_companion(m) for m in inside)
        if isinstance(module, _STOCK_BLOCKS):
            continue
        if not only_embeds and kinds[type(module)] == 1 and 2 * _size(module) > total:
            return module
    return None


def _size(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def _match(pattern: str, by_name: dict[str, nn.Module]) -> list[str]:
    regex = re.compile(
        "".join(
            r"[^.]*" if part == "*" else r"[^.]" if part == "?" else re.escape(part)
            for part in re.split(r"([*?])", pattern)
        )
    )
    found = [name for name in by_name if name and regex.fullmatch(name)]
    if not found:
        near = difflib.get_close_matches(pattern, list(filter(None, by_name)), n=3, cutoff=0.3)
        hint = f" Did you mean {', '.join(map(repr, near))}?" if near else ""
        raise SplitError(
            f"no module is named {pattern!r}.{hint} Names are those of model.named_modules(); "
            "'*' stands for anything within one part of a dotted name."
        )
    return found


def _name_of(module: object, names: dict[int, str]) -> str:
    if not isinstance(module, nn.Module):
        raise TypeError(
            f"layers must hold names, modules or sequences of these, got {module!r}. {_EACH}"
        )
    if id(module) not in names:
        raise SplitError(
            f"layers holds a {type(module).__name__} that is not part of the model. "
            "Pass modules of the very model that is trained, or their names."
        )
    return names[id(module)]


def _check_disjoint(units: list[Unit]) -> None:
    """A part may not be another part or lie inside one; what two parts share is no overlap."""
    parts = [part for unit in units for part in unit.parts]
    inside: dict[int, list[str]] = {}
    for name, module in parts:
        for inner in module.modules():
            inside.setdefault(id(inner), []).append(name)
    for name, module in parts:
        around = [other for other in inside[id(module)] if other != name]
        if around or len(inside[id(module)]) > 1:
            raise SplitError(
                f"layers {(around or [name])[0]!r} and {name!r} overlap. "
                "Name each module once, and not both a module and one inside it."
            )


def _check_complete(model: nn.Module, units: list[Unit]) -> None:
    covered = {id(p) for unit in units for _, p in unit.named_parameters()}
    inside = {id(m) for unit in units for m in unit.all_modules()}
    missing = []
    for name, module in model.named_modules():
        holds_units = any(id(m) in inside for m in module.modules())
        if id(module) in inside or holds_units:
            continue  # parameters directly on a container that holds layers are given out later
        missing += [name for p in module.parameters(recurse=False) if id(p) not in covered]
    missing = list(dict.fromkeys(missing))
    if missing:
        shown = ", ".join(map(repr, missing[:5]))
        raise SplitError(
            f"layers must cover every parameter, but these modules are in none of them: {shown}"
            f"{' and more' if len(missing) > 5 else ''}. Add them, in order from input to output."
        )
