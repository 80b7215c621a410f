"""Heads side by side: none of them feeds another, so none may freeze before the last."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from torch import nn

from freezeout.layers.kinds import is_companion
from freezeout.layers.layer import Layer, learns_at_all
from freezeout.layers.members import parameters_in
from freezeout.layers.trace import Trace
from freezeout.layers.units import Unit

__all__ = ["as_one", "join_heads", "unit_learns"]


def join_heads(model: nn.Module, units: Sequence[Unit], seen: Trace) -> list[Unit]:
    """Make one last unit of all that give the model's output and feed no other unit.

    What runs after them and feeds nothing (a head of which only a loss is made) joins them.

    Args:
        model: The model.
        units: Its units, as executed.
        seen: The forward pass.
    """
    reach = _Reach(model, units, seen)
    heads = reach.heads()
    after = range(heads[-1] + 1 if heads else len(units), len(units))
    if all(reach.ends(i) for i in after):
        heads += after
    others = len(units) - len(heads)
    if len(heads) < 2 or not others or heads[-1] != len(units) - 1:
        return list(units)
    return as_one(units, heads)


def as_one(units: Sequence[Unit], heads: Sequence[int]) -> list[Unit]:
    """Return the units with those at these places as the last one."""
    one = Unit()
    for i in heads:
        one.parts += units[i].parts
        one.idle += units[i].idle
    return [*(unit for i, unit in enumerate(units) if i not in heads), one]


def unit_learns(model: nn.Module, unit: Unit) -> bool:
    """Return whether anything in a unit is to learn."""
    return learns_at_all(model, Layer(0, unit.names[0], (), tuple(unit.named_parameters())))


class _Reach:
    """Which units give the output, and which feed others.

    A parameter outside every unit (the scale of the logits) passes on what it gets. A norm at the
    start of a unit may feed several heads.
    """

    def __init__(self, model: nn.Module, units: Sequence[Unit], seen: Trace) -> None:
        self._seen = seen
        self._learns = [unit_learns(model, unit) for unit in units]
        self._times = [seen.position(unit) or 0 for unit in units]
        self._lead = [_ids(unit.parts[: _start(unit)]) for unit in units]
        self._core = [_ids(unit.parts[_start(unit) :]) for unit in units]
        inside = set().union(*self._lead, *self._core)
        self._loose = {id(p) for p in parameters_in(model)} - inside

    def heads(self) -> list[int]:
        """Return the places of the units that give output and feed none that runs later."""
        found = [
            i
            for i, core in enumerate(self._core)
            if self._learns[i] and self._gives(core) and self.ends(i)
        ]
        dead = [c for i, c in enumerate(self._core) if not self._gives(c) and self.ends(i)]
        while True:
            inside = set().union(*dead, *(self._lead[i] | self._core[i] for i in found))
            kept = [i for i in found if self._fed_later(self._lead[i], i) <= inside]
            if kept == found:
                return found
            found = kept

    def ends(self, index: int) -> bool:
        """Return whether a unit feeds none that runs later."""
        return self._fed_later(self._core[index], index) <= self._lead[index] | self._core[index]

    def _gives(self, parameters: set[int]) -> bool:
        reached = parameters | (self._fed(parameters) & self._loose)
        return not reached.isdisjoint(self._seen.flow.output)

    def _fed_later(self, parameters: set[int], index: int) -> set[int]:
        """Return what is fed after the unit last ran; an earlier use is that of a tied weight."""
        fed = self._fed(parameters) - self._loose
        return {p for p in fed if self._seen.uses[p][-1][0] > self._times[index]}

    def _fed(self, parameters: set[int]) -> set[int]:
        fed: set[int] = set()
        waiting = list(parameters)
        while waiting:
            for target in self._seen.flow.feeds.get(waiting.pop(), ()):
                if target not in fed:
                    fed.add(target)
                    waiting += [target] if target in self._loose else []
        return fed


def _start(unit: Unit) -> int:
    """Return the place of the first part that is more than a norm."""
    weighty = [
        any(True for _ in parameters_in(module)) and not is_companion(module)
        for _, module in unit.parts
    ]
    return weighty.index(True) if any(weighty) else 0


def _ids(parts: Iterable[tuple[str, nn.Module]]) -> set[int]:
    return {id(p) for _, module in parts for p in parameters_in(module)}
