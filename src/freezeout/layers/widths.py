"""What widths tell without an example: whose output nothing that is defined could take."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from itertools import pairwise

from torch import nn

from freezeout.errors import FrozenPrefixWarning
from freezeout.layers.heads import as_one, unit_learns
from freezeout.layers.kinds import is_companion, is_map
from freezeout.layers.members import modules_in, parameters_in
from freezeout.layers.units import Unit

__all__ = ["join_bare_heads", "warn_of_heads"]


def join_bare_heads(model: nn.Module, units: Sequence[Unit]) -> list[Unit]:
    """Make one last unit of the linear maps at the end whose output nothing can take.

    What is defined next to the last one, takes or gives as many features, but gives a number that
    no other map takes, is a head beside it.
    """
    last = len(units) - 1
    taken = {width for unit in units for width, _ in map(_widths, _maps(unit))}
    heads = [last] if units else []
    for i in range(last - 1, -1, -1):
        if not _are_bare_heads(model, units[i], units[last], taken):
            break
        heads.insert(0, i)
    return as_one(units, heads) if len(heads) > 1 else list(units)


def warn_of_heads(model: nn.Module, units: Sequence[Unit], *, stacklevel: int) -> None:
    """Warn if the order of definition seems to end, or to begin, with the wrong head.

    Args:
        model: The model.
        units: The units as defined.
        stacklevel: Whose line the warning names, 1 for the caller of this.
    """
    learning = [unit for unit in units if unit_learns(model, unit)]
    message = _first_is_head(learning) or _other_head(learning) or _stack_beside(model, learning)
    if message:
        warnings.warn(message, FrozenPrefixWarning, stacklevel=stacklevel + 1)


def _are_bare_heads(model: nn.Module, unit: Unit, last: Unit, taken: set[int]) -> bool:
    one, other = _only_map(unit), _only_map(last)
    if one is None or other is None or type(one[1]) is not type(other[1]):
        return False
    around = [model.get_submodule(name.rpartition(".")[0]) for name, _ in (one, other)]
    if any(isinstance(module, nn.Sequential) for module in around):
        return False
    if not (unit_learns(model, unit) and unit_learns(model, last)):
        return False
    (takes, gives), (last_takes, last_gives) = _widths(one[1]), _widths(other[1])
    return gives not in taken and (takes == last_takes or gives == last_gives)


def _other_head(units: Sequence[Unit]) -> str | None:
    """Return what to say if a unit gives what the last one does, but nothing can take it."""
    maps = [_maps(unit) for unit in units]
    if len(units) < 2 or not maps[-1]:
        return None
    taken = {width for found in maps for width, _ in map(_widths, found)}
    width = _widths(maps[-1][-1])[1]
    for i in range(len(units) - 2, -1, -1):
        if not maps[i] or _widths(maps[i][-1])[1] in taken:
            continue
        next_to_it = i == len(units) - 2 and _take_the_same(maps[i], maps[-1])
        if _widths(maps[i][-1])[1] == width or next_to_it:
            one, other = _main_name(units[i]), _main_name(units[-1])
            return (
                f"{one!r} looks like a head beside {other!r}, and only the last layer never "
                "freezes. Give example=, which shows what it is, or if it is a head name both as "
                f"the last layer: layers=[..., ({one!r}, {other!r})]."
            )
    return None


def _stack_beside(model: nn.Module, units: Sequence[Unit]) -> str | None:
    """Return what to say if two parts of a model start at the same place, each with its own end.

    That is an actor beside a critic, with nothing before them or behind the same trunk.
    """
    if isinstance(model, nn.Sequential):
        return None
    stacks = list(_stacks(model, units).items())
    for i, (one, maps) in enumerate(stacks[:-1]):
        other, others = stacks[i + 1]
        if len(maps) < 2 or len(others) < 2:
            continue
        takes, gives = _widths(maps[0])[0], _widths(maps[-1])[1]
        before = stacks[i - 1][1] if i else []
        if i and not (before and _widths(before[-1])[1] == takes):
            continue
        behind = {_widths(module)[0] for _, found in stacks[i + 1 :] for module in found}
        if _widths(others[0])[0] == takes and gives not in behind:
            return (
                f"{one!r} looks like it stands beside {other!r}: both take {takes} features, and "
                f"nothing takes the {gives} that {one!r} gives. Without an example, all of it "
                "freezes first. Give example=, which shows what it is, or name both together: "
                f"layers=[..., ({one!r}, {other!r})], or layer by layer in pairs."
            )
    return None


def _stacks(model: nn.Module, units: Sequence[Unit]) -> dict[str, list[nn.Module]]:
    """Return the chain of maps in each part of a model that learns; none if it is no chain."""
    parts: dict[str, list[nn.Module]] = {}
    for unit in units:
        parts.setdefault(unit.names[0].partition(".")[0], []).extend(_maps(unit))
    return {
        name: maps if all(_widths(a)[1] == _widths(b)[0] for a, b in pairwise(maps)) else []
        for name, maps in parts.items()
    }


def _take_the_same(one: Sequence[nn.Module], last: Sequence[nn.Module]) -> bool:
    """Return whether a chain of maps takes as much as the last, and gives what cannot feed it."""
    widths = [_widths(module) for module in one]
    takes = _widths(last[0])[0]
    is_chain = all(given == taken for (_, given), (taken, _) in pairwise(widths))
    return is_chain and widths[0][0] == takes and widths[-1][1] % takes != 0


def _first_is_head(units: Sequence[Unit]) -> str | None:
    """Return what to say if a linear map is defined first that no other one can follow."""
    head = _only_map(units[0]) if len(units) > 2 else None
    if head is None or not isinstance(head[1], nn.Linear) or _only_map(units[-1]) is not None:
        return None
    others = [_widths(module) for unit in units[1:] for module in _maps(unit)]
    takes, gives = _widths(head[1])
    if gives in (width for width, _ in others) or takes not in (width for _, width in others):
        return None
    return (
        f"{head[0]!r} is defined first but looks like the head: nothing takes its {gives} "
        "features. Without an example, layers are in the order of definition. Give example=, "
        "which shows the order, or name the layers from input to output with layers=."
    )


def _main_name(unit: Unit) -> str:
    weighty = [name for name, module in unit.parts if not is_companion(module)]
    return (weighty or unit.names)[-1]


def _only_map(unit: Unit) -> tuple[str, nn.Module] | None:
    """Return the one linear map or convolution of a unit that has nothing else but norms."""
    weighty = [
        (name, module)
        for name, module in unit.parts
        if any(True for _ in parameters_in(module)) and not is_companion(module)
    ]
    return weighty[0] if len(weighty) == 1 and is_map(weighty[0][1]) else None


def _maps(unit: Unit) -> list[nn.Module]:
    return [m for _, part in unit.parts for m in modules_in(part) if is_map(m)]


def _widths(module: nn.Module) -> tuple[int, int]:
    """Return how many features or channels a map takes and gives."""
    if isinstance(module, nn.Linear):
        return module.in_features, module.out_features
    # A convolution: to the type checker its attributes may be modules.
    return int(module.in_channels), int(module.out_channels)  # type: ignore[arg-type]
