"""Finding blocks in a module tree: the part of `layers` that needs no example input."""

from __future__ import annotations

import difflib
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from torch import nn

from freezeout.errors import SplitError

__all__ = ["Unit", "cut", "cut_by_names"]

_CONTAINERS = (nn.Sequential, nn.ModuleList, nn.ModuleDict)


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

    @property
    def name(self) -> str:
        """Name of the part with the most parameters."""
        return max(self.parts, key=lambda part: _size(part[1]))[0]

    def named_parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        """Every parameter under every name it has here."""
        for name, module in (*self.parts, *self.idle):
            yield from module.named_parameters(prefix=name, remove_duplicate=False)

    def all_modules(self) -> Iterator[nn.Module]:
        """Its parts, what it takes along, and all modules inside them."""
        for _, module in (*self.parts, *self.idle):
            yield from module.modules()


@dataclass(frozen=True)
class _Atom:
    """A module that is not opened further."""

    name: str
    module: nn.Module
    in_sequence: bool  # sits directly in a container whose order of execution is certain


def cut(model: nn.Module) -> list[Unit]:
    """Cuts a model into units by its module tree, in order of definition."""
    opened = {id(model)}
    while True:
        units = _group(_latest_only(list(_walk(model, "", opened))))
        block = _too_large(units, model)
        if block is None:
            return units
        opened.add(id(block))


def cut_by_names(
    model: nn.Module, layers: Sequence[str | nn.Module | Sequence[str | nn.Module]]
) -> list[Unit]:
    """Units as the user names them.

    Raises:
        SplitError: If a name matches nothing, layers overlap, or parameters are left over.
        TypeError: If an entry is neither a name, nor a module, nor a sequence of these.
    """
    if isinstance(layers, str) or not isinstance(layers, Sequence):
        raise TypeError(f"layers must be a sequence of names or modules, got {layers!r}.")
    by_name = dict(model.named_modules(remove_duplicate=False))
    names = {id(module): name for name, module in reversed(by_name.items())}
    units: list[Unit] = []
    for entry in layers:
        if isinstance(entry, str):
            units += [Unit([(n, by_name[n])]) for n in _match(entry, by_name)]
        elif isinstance(entry, nn.Module):
            units.append(Unit([(_name_of(entry, names), entry)]))
        elif isinstance(entry, Sequence):
            unit = Unit()
            for part in entry:
                found = _match(part, by_name) if isinstance(part, str) else [_name_of(part, names)]
                unit.parts += [(n, by_name[n]) for n in found]
            units.append(unit)
        else:
            raise TypeError(
                f"layers must hold names, modules or sequences of these, got {entry!r}."
            )
    _check_disjoint(units)
    _check_complete(model, units)
    return units


def _walk(module: nn.Module, name: str, opened: set[int]) -> Iterator[_Atom]:
    for child_name, child in module.named_children():
        full = f"{name}.{child_name}" if name else child_name
        if _opens(child) or id(child) in opened:
            yield from _walk(child, full, opened)
        else:
            yield _Atom(full, child, isinstance(module, nn.Sequential))


def _opens(module: nn.Module) -> bool:
    if isinstance(module, _CONTAINERS):
        return True
    return any(
        isinstance(inner, _CONTAINERS)
        and sum(
            any(True for _ in block.children()) and _size(block) > 0 for block in inner.children()
        )
        > 1
        for inner in module.modules()
    )


def _latest_only(atoms: list[_Atom]) -> list[_Atom]:
    """A module that occurs several times keeps its last place: it belongs to its last user."""
    last = {id(atom.module): i for i, atom in enumerate(atoms)}
    return [atom for i, atom in enumerate(atoms) if last[id(atom.module)] == i]


def _group(atoms: list[_Atom]) -> list[Unit]:
    units: list[Unit] = []
    waiting: list[tuple[str, nn.Module]] = []  # norms that belong to what follows
    for atom in atoms:
        part = (atom.name, atom.module)
        if _size(atom.module) == 0:
            if atom.in_sequence and units and not waiting:
                units[-1].parts.append(part)
            elif atom.in_sequence and waiting:
                waiting.append(part)
            # Elsewhere it may be used anywhere, several times: it stays in training mode.
        elif not _is_companion(atom.module):
            units.append(Unit([*waiting, part]))
            waiting = []
        elif not waiting and units and _is_plain(units[-1]):
            units[-1].parts.append(part)
        else:
            waiting.append(part)
    if waiting and units:
        units[-1].parts += waiting
    elif waiting:
        units = [Unit([part]) for part in waiting if _size(part[1])]
    return units


def _is_companion(module: nn.Module) -> bool:
    """Whether a module with parameters only adjusts the output of another one."""
    kind = type(module).__name__
    return not any(True for _ in module.children()) and (
        "Norm" in kind or isinstance(module, nn.PReLU)
    )


def _is_plain(unit: Unit) -> bool:
    """Whether a unit is a bare convolution, linear map or the like, not a block."""
    return all(not any(True for _ in module.children()) for _, module in unit.parts)


def _too_large(units: list[Unit], model: nn.Module) -> nn.Module | None:
    """A block with more than half of all parameters that is not one of several alike."""
    total = _size(model)
    kinds = Counter(type(module) for unit in units for _, module in unit.parts)
    for unit in units:
        for _, module in unit.parts:
            inside = [child for child in module.children() if _size(child) > 0]
            if inside and kinds[type(module)] == 1 and 2 * _size(module) > total:
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
        near = difflib.get_close_matches(pattern, list(by_name), n=3, cutoff=0.3)
        hint = f" Did you mean {', '.join(map(repr, near))}?" if near else ""
        raise SplitError(
            f"no module is named {pattern!r}.{hint} Names are those of model.named_modules(); "
            "'*' stands for anything within one part of a dotted name."
        )
    return found


def _name_of(module: object, names: dict[int, str]) -> str:
    if not isinstance(module, nn.Module):
        raise TypeError(f"layers must hold names, modules or sequences of these, got {module!r}.")
    if id(module) not in names:
        raise SplitError(
            f"layers holds a {type(module).__name__} that is not part of the model. "
            "Pass modules of the very model that is trained, or their names."
        )
    return names[id(module)]


def _check_disjoint(units: list[Unit]) -> None:
    where: dict[int, str] = {}
    for unit in units:
        for name, module in unit.parts:
            for inner in module.modules():
                if id(inner) in where:
                    raise SplitError(
                        f"layers {where[id(inner)]!r} and {name!r} overlap. "
                        "Name each module once, and not both a module and one inside it."
                    )
            where.update((id(inner), name) for inner in module.modules())


def _check_complete(model: nn.Module, units: list[Unit]) -> None:
    covered = {id(p) for unit in units for _, p in unit.named_parameters()}
    inside = {id(m) for unit in units for m in unit.all_modules()}
    missing = []
    for name, module in model.named_modules():
        holds_units = any(id(m) in inside for m in module.modules())
        if id(module) in inside or holds_units:
            continue  # parameters directly on a container that holds layers are given out later
        missing += [name for p in module.parameters(recurse=False) if id(p) not in covered]
    if missing:
        shown = ", ".join(map(repr, dict.fromkeys(missing[:5])))
        raise SplitError(
            f"layers must cover every parameter, but these modules are in none of them: {shown}"
            f"{' and more' if len(missing) > 5 else ''}. Add them, in order from input to output."
        )
