"""Find the blocks in a module tree, without an example input."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import pairwise

from torch import nn
from torch.nn.utils.parametrize import is_parametrized

from freezeout.layers.units import Atom, Unit

__all__ = ["find_atoms", "group"]

_CONTAINERS = (nn.Sequential, nn.ModuleList, nn.ModuleDict)
_STOCK_BLOCKS = (nn.TransformerEncoderLayer, nn.TransformerDecoderLayer, nn.MultiheadAttention)
_WRAPPERS = (nn.DataParallel, nn.parallel.DistributedDataParallel)


def find_atoms(model: nn.Module) -> list[Atom]:
    """Return the modules that make up a model: its blocks and what lies between, as defined."""
    opened = {id(model)}
    kinds = _block_kinds(model)
    while True:
        atoms = _latest_only(list(_walk(model, "", opened, kinds)))
        block = _too_large(atoms, model)
        if block is None:
            return atoms
        opened.add(id(block))


def group(atoms: Sequence[Atom]) -> list[Unit]:
    """Group modules into units: norms and modules without parameters join a neighbour."""
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


def _walk(module: nn.Module, name: str, opened: set[int], kinds: frozenset[type]) -> Iterator[Atom]:
    for child_name, child in _children(module):
        full = f"{name}.{child_name}" if name else child_name
        if id(child) in opened or _opens(child, kinds):
            yield from _walk(child, full, opened, kinds)
        else:
            yield Atom(full, child, name if isinstance(module, nn.Sequential) else None)


def _children(module: nn.Module) -> list[tuple[str, nn.Module]]:
    """Return name and module of each child, shared ones every time, without parametrizations."""
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
    """Return the classes of which one container holds two with parameters of the same shapes.

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
    """Return whether two modules are alike, even if one holds a further parameter deep inside.

    The first block of T5 holds the table of positions for all. A further child, or more items in a
    list, make it a different module: that is how stages differ.
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
    """Return whether a module is more than one convolution or linear map with its norm."""
    inside = [m for m in module.modules() if any(True for _ in m.parameters(recurse=False))]
    weights = [m for m in inside if not _is_companion(m)]
    starts_with_norm = bool(inside) and _is_companion(inside[0])
    return bool(_children(module)) and (
        len(weights) > 1 or (len(weights) == 1 and starts_with_norm)
    )


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


def _is_companion(module: nn.Module) -> bool:
    """Return whether a module with parameters or statistics only adjusts another one's output."""
    is_kind = "Norm" in type(module).__name__ or isinstance(module, nn.PReLU)
    has_state = any(True for _ in (*module.parameters(), *module.buffers()))
    return is_kind and has_state and not _children(module)


def _is_plain(unit: Unit) -> bool:
    """Return whether a unit is a bare convolution, linear map or the like, not a block."""
    return not any(_children(module) for _, module in unit.parts)


def _too_large(atoms: Sequence[Atom], model: nn.Module) -> nn.Module | None:
    """Return a block that has more than half of all parameters and no other like it."""
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
