"""Cut a model as its user names the layers."""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence

from torch import nn

from freezeout.errors import SplitError
from freezeout.layers.members import modules_in, named_modules
from freezeout.layers.units import Unit

__all__ = ["cut_by_names"]

_EACH = "Each entry is one layer, or with a pattern one layer for each match."


def cut_by_names(
    model: nn.Module, layers: Sequence[str | nn.Module | Sequence[str | nn.Module]]
) -> list[Unit]:
    """Return the units that the user names.

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
    by_name = dict(named_modules(model, remove_duplicate=False))
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
            "Pass modules of the model that is trained, or their names."
        )
    return names[id(module)]


def _check_disjoint(units: list[Unit]) -> None:
    """Raise if a part is another part or lies inside one; what two parts share is no overlap."""
    parts = [part for unit in units for part in unit.parts]
    inside: dict[int, list[str]] = {}
    for name, module in parts:
        for inner in modules_in(module):
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
    for name, module in named_modules(model):
        holds_units = any(id(m) in inside for m in modules_in(module))
        if id(module) in inside or holds_units:
            continue  # parameters directly on a container that holds layers are given out later
        own = (p for p in module._parameters.values() if p is not None)
        missing += [name for p in own if id(p) not in covered]
    missing = list(dict.fromkeys(missing))
    if missing:
        shown = ", ".join(map(repr, missing[:5]))
        raise SplitError(
            f"layers must cover every parameter, but these modules are in none of them: {shown}"
            f"{' and more' if len(missing) > 5 else ''}. Add them, in order from input to output."
        )
