"""Which modules are stacks of blocks, to be opened, and which are blocks, to be kept whole."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from itertools import pairwise

from torch import nn

from freezeout.layers.kinds import CONTAINERS, children, is_block, size
from freezeout.layers.members import modules_in, named_modules, named_parameters, wrapped_in

__all__ = ["Stacks"]


class Stacks:
    """The stacks of blocks in a model.

    Args:
        model: The model.
        in_turn: Whether modules run one after the other, each fed by the one before; by default
            it is taken to be so.
    """

    def __init__(
        self, model: nn.Module, in_turn: Callable[[Sequence[nn.Module]], bool] | None = None
    ) -> None:
        self._in_turn = in_turn
        self._is_block = {id(module): is_block(module) for module in modules_in(model)}
        self._blocks = {id(module): self._find_blocks(module) for module in modules_in(model)}
        self._kinds = self._block_kinds(model)
        self._opened_too = self._siblings_of_opened(model)

    def opens(self, module: nn.Module) -> bool:
        """Return whether a module is to be opened: it holds a stack, and is no block itself.

        So is one beside such a module that is of the same class, as the stages of a network are,
        even if it holds one block only.
        """
        return self._holds_stack(module) or id(module) in self._opened_too

    def is_stack(self, module: nn.Module) -> bool:
        """Return whether a module itself is a stack of blocks, or of sequences of one make.

        Convolutions with their norms are no blocks, so the second is opened only for its size.
        """
        return self._has_blocks(module) or _is_of_sequences(module)

    def _has_blocks(self, module: nn.Module) -> bool:
        return len(self._blocks[id(module)]) > 1

    def _holds_stack(self, module: nn.Module) -> bool:
        if isinstance(module, CONTAINERS):
            return True
        inner = wrapped_in(module)
        if inner is not None:  # wrapped or compiled
            return self._holds_stack(inner)
        if type(module) in self._kinds:
            return False
        return any(self._has_blocks(inside) for inside in modules_in(module))

    def _find_blocks(self, module: nn.Module) -> list[nn.Module]:
        """Return the blocks that a container holds, or that a module holds as a container would."""
        if isinstance(module, CONTAINERS):
            return [child for child in module.children() if self._is_block[id(child)]]
        numbered: dict[tuple[object, ...], list[nn.Module]] = defaultdict(list)
        for name, child in children(module):
            if _unnumbered(name) != name:
                numbered[type(child), _unnumbered(name)].append(child)
        stacks = [blocks for blocks in numbered.values() if self._are_most(blocks, module)]
        if len(stacks) == 1 and (self._in_turn is None or self._in_turn(stacks[0])):
            return stacks[0]
        return []

    def _are_most(self, blocks: Sequence[nn.Module], module: nn.Module) -> bool:
        """Return whether alike children are blocks that have most of a module's parameters."""
        if isinstance(blocks[0], CONTAINERS) or len(blocks) < 2:
            return False
        are_blocks = all(self._is_block[id(block)] for block in blocks)
        return are_blocks and 3 * sum(map(size, blocks)) > 2 * size(module)

    def _block_kinds(self, model: nn.Module) -> frozenset[type]:
        """Return the classes that are blocks, whatever they have inside (experts, heads).

        Those of which one stack holds two with parameters of the same shapes, and those that
        alone make up three or more containers, as the blocks of short stages do. (The stages of a
        network also sit in one container, but each has another width.)
        """
        kinds: set[type] = set()
        alone: Counter[type] = Counter()
        for stack in modules_in(model):
            blocks = self._blocks[id(stack)]
            shapes = Counter((type(block), tuple(_shapes(block).items())) for block in blocks)
            kinds |= {kind for (kind, _), count in shapes.items() if count > 1}
            kinds |= {type(one) for one, other in pairwise(blocks) if _alike(one, other)}
            if isinstance(stack, CONTAINERS) and len({type(m) for m in stack.children()}) == 1:
                alone.update({type(block) for block in blocks})
        kinds |= {
            kind for kind, count in alone.items() if count > 2 and not issubclass(kind, CONTAINERS)
        }
        return frozenset(kind for kind in kinds if not _nests(kind, model))

    def _siblings_of_opened(self, model: nn.Module) -> frozenset[int]:
        """Return those that hold no stack, but are of the same class as one beside that does."""
        found: set[int] = set()
        for parent in modules_in(model):
            beside = [child for _, child in children(parent) if not isinstance(child, CONTAINERS)]
            opened = {type(child) for child in beside if self._holds_stack(child)}
            found |= {
                id(child)
                for child in beside
                if type(child) in opened and self._has_lists_like(child, beside)
            }
        return frozenset(found)

    def _has_lists_like(self, module: nn.Module, beside: Sequence[nn.Module]) -> bool:
        """Return whether it holds containers under the same names as an opened one beside it."""
        lists = _lists(module)
        return bool(lists) and any(
            type(other) is type(module) and lists <= _lists(other) and self._holds_stack(other)
            for other in beside
        )


def _nests(kind: type, model: nn.Module) -> bool:
    """Return whether one of a class holds others of it, as a tree does: that is no block."""
    return any(
        type(inside) is kind
        for module in modules_in(model)
        if type(module) is kind
        for inside in modules_in(module)
        if inside is not module
    )


def _lists(module: nn.Module) -> frozenset[str]:
    """Return the names under which a module holds containers, or blocks by number."""
    held = [(_unnumbered(name), name, child) for name, child in children(module)]
    return frozenset(
        plain
        for plain, name, child in held
        if isinstance(child, CONTAINERS) or (plain != name and is_block(child))
    )


def _is_of_sequences(module: nn.Module) -> bool:
    """Return whether all parameters are in three or more numbered sequences of one make."""
    inside = [(name, child) for name, child in children(module) if size(child) > 0]
    makes = {tuple(map(type, child.children())) for _, child in inside}
    return (
        len(inside) > 2
        and len(makes) == 1
        and all(isinstance(child, nn.Sequential) for _, child in inside)
        and len({_unnumbered(name) for name, _ in inside}) == 1
    )


def _unnumbered(name: str) -> str:
    return re.sub(r"\d+", "#", name)


def _alike(one: nn.Module, other: nn.Module) -> bool:
    """Return whether two modules are alike, even if one holds a further parameter deep inside.

    The first block of T5 holds the table of positions for all. A further child, or more items in a
    list, make it a different module: that is how stages differ.
    """
    named = [[(name, type(child)) for name, child in children(m)] for m in (one, other)]
    lengths = [
        {name: len(inner) for name, inner in named_modules(m) if isinstance(inner, CONTAINERS)}
        for m in (one, other)
    ]
    shapes = [_shapes(m) for m in (one, other)]
    return (
        type(one) is type(other)
        and named[0] == named[1]
        and lengths[0] == lengths[1]
        and all(shapes[0][name] == shapes[1][name] for name in shapes[0].keys() & shapes[1].keys())
    )


def _shapes(module: nn.Module) -> dict[str, tuple[int, ...]]:
    return {name: tuple(p.shape) for name, p in named_parameters(module)}
