"""Find the blocks in a module tree."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

from torch import nn

from freezeout.layers.kinds import children, is_block, is_companion, is_norm, size
from freezeout.layers.stacks import Stacks
from freezeout.layers.trace import Trace
from freezeout.layers.units import Atom, Unit

__all__ = ["find_atoms", "group"]

_STOCK_BLOCKS = (nn.TransformerEncoderLayer, nn.TransformerDecoderLayer, nn.MultiheadAttention)


def find_atoms(model: nn.Module, seen: Trace | None = None) -> list[Atom]:
    """Return the modules that make up a model: its blocks and what lies between, as defined.

    Args:
        model: The model.
        seen: A forward pass; it shows which blocks run in turn, and what each costs.
    """
    stacks = Stacks(model, None if seen is None else seen.ran_in_turn)
    opened = {id(model)}
    while True:
        atoms = _latest_only(list(_walk(model, "", opened, stacks)))
        block = _too_large(atoms, model, stacks, seen)
        if block is None:
            return atoms
        opened.add(id(block))


def group(atoms: Sequence[Atom]) -> list[Unit]:
    """Group modules into units: norms and modules without parameters join a neighbour."""
    units = _group(atoms, is_companion)
    return units if len(units) > 1 else _group(atoms, is_norm)  # a scale may be all there is


def _group(atoms: Sequence[Atom], joins: Callable[[nn.Module], bool]) -> list[Unit]:
    units: list[Unit] = []
    waiting: list[tuple[str, nn.Module]] = []  # what belongs to the next unit
    for atom in atoms:
        part = (atom.name, atom.module)
        if joins(atom.module):
            if not waiting and units and _is_plain(units[-1]):
                units[-1].parts.append(part)
            else:
                waiting.append(part)
        elif size(atom.module) > 0:
            feeds = not isinstance(atom.module, nn.Embedding)  # that takes numbers of tokens
            if units and not feeds and all(joins(module) for _, module in waiting):
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
    return [Unit([part]) for part in waiting if size(part[1]) > 0]


def _walk(module: nn.Module, name: str, opened: set[int], stacks: Stacks) -> Iterator[Atom]:
    for child_name, child in children(module):
        full = f"{name}.{child_name}" if name else child_name
        if id(child) in opened or stacks.opens(child):
            yield from _walk(child, full, opened, stacks)
        else:
            yield Atom(full, child, name if isinstance(module, nn.Sequential) else None)


def _latest_only(atoms: list[Atom]) -> list[Atom]:
    """Keep only the last place of a module that occurs several times: its last user owns it."""
    last = {id(atom.module): i for i, atom in enumerate(atoms)}
    free = {id(atom.module) for atom in atoms if atom.sequence is None}
    return [
        replace(atom, sequence=None) if id(atom.module) in free else atom
        for i, atom in enumerate(atoms)
        if last[id(atom.module)] == i
    ]


def _is_inside(name: str, container: str) -> bool:
    return not container or name.startswith(container + ".")


def _is_plain(unit: Unit) -> bool:
    """Return whether a unit is a bare convolution, linear map or the like, not a block."""
    return not any(children(module) for _, module in unit.parts if not is_companion(module))


def _too_large(
    atoms: Sequence[Atom], model: nn.Module, stacks: Stacks, seen: Trace | None
) -> nn.Module | None:
    """Return what has more than half of all parameters, or of the cost, and can be opened.

    That is a stack of blocks, or a block with no other like it; but not one that runs several
    times, because its parts take turns and none of them is done before the others.
    """
    kinds = Counter(type(atom.module) for atom in atoms)
    for module in (atom.module for atom in atoms):
        if isinstance(module, _STOCK_BLOCKS) or not is_block(module):
            continue
        if seen is not None and seen.is_called_again(module):
            continue
        inside = [child for _, child in children(module) if size(child) > 0]
        only_embeds = all(isinstance(m, nn.Embedding) or is_companion(m) for m in inside)
        alone = kinds[type(module)] == 1 and not only_embeds
        if (alone or stacks.is_stack(module)) and _is_most(module, model, seen):
            return module
    return None


def _is_most(module: nn.Module, model: nn.Module, seen: Trace | None) -> bool:
    most_parameters = 2 * size(module) > size(model)
    return most_parameters or (seen is not None and 2 * seen.cost(module) > seen.cost(model))
