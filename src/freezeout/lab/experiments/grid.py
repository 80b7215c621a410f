"""What an experiment consists of: cells, arms and seeds, from a file or from the command line."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from itertools import product
from pathlib import Path
from typing import Any

from freezeout.errors import RunError
from freezeout.lab.experiments.arms import Variant, variant_of
from freezeout.lab.experiments.entries import Entries, flag, listed, mapping, text, whole
from freezeout.lab.training import Settings, check_names, preset, read_toml

__all__ = ["Cell", "Grid"]

_OF_VARIANT = tuple(spec.name for spec in fields(Variant))
_MOST_RUNS = 100_000
_ARMS = ("baseline", "equal_time", "rates_only", "turns")


@dataclass(frozen=True, kw_only=True)
class Cell:
    """What is compared within: all settings but the way of freezing and the seed.

    Attributes:
        name: As shown.
        settings: The settings.
    """

    name: str
    settings: Settings


@dataclass(frozen=True, kw_only=True)
class Grid:
    """An experiment.

    Attributes:
        cells: What is compared within.
        variants: The ways of freezing, in every cell.
        seeds: The seeds, in every cell and for every arm.
        baseline: Whether every cell has a run to the full length without freezing.
        equal_time: Whether every variant has a baseline shortened to its time.
        rates_only: Whether every variant has a control with its rates in which nothing freezes.
        turns: Whether the arms of a cell and seed take turns on the same core.

    Raises:
        RunError: If there is nothing to run, or something twice.
    """

    cells: tuple[Cell, ...]
    variants: tuple[Variant, ...]
    seeds: tuple[int, ...]
    baseline: bool = True
    equal_time: bool = False
    rates_only: bool = False
    turns: bool = False

    def __post_init__(self) -> None:
        if not self.cells or not self.seeds or not (self.variants or self.baseline):
            raise RunError(
                "the experiment has nothing to run. Give at least one network, one seed, and one "
                "variant or the baseline."
            )
        _check_size("runs", self.size)
        for what, names in (
            ("cell", [cell.name for cell in self.cells]),
            ("variant", [variant.name for variant in self.variants]),
            ("seed", [str(seed) for seed in self.seeds]),
        ):
            twice = sorted(name for name, count in Counter(names).items() if count > 1)
            if twice:
                raise RunError(f"{what} {twice[0]!r} is given twice. Give it once.")
        for seed in self.seeds:
            Settings.from_dict({"seed": seed})  # refuses what is not a seed
        for cell in self.cells:
            if cell.settings.const_time or not cell.settings.freeze:
                name = "const_time" if cell.settings.const_time else "freeze"
                raise RunError(
                    f"{name} cannot be set in an experiment: it decides itself what each arm "
                    "freezes and how long it trains. Leave it out."
                )

    @property
    def needs_costs(self) -> bool:
        """Whether the length of some runs depends on measured costs."""
        return self.equal_time and bool(self.variants)

    @property
    def size(self) -> int:
        """Number of runs."""
        each = 1 + self.equal_time + self.rates_only
        return len(self.cells) * len(self.seeds) * (self.baseline + each * len(self.variants))

    @classmethod
    def load(cls, path: Path, given: Mapping[str, Any] | None = None) -> Grid:
        """Return the experiment that a TOML file describes.

        Settings at the top hold for all runs (``preset`` may stand among them); ``[grid]`` has a
        list for every setting that varies; ``[[cells]]`` has settings that vary together;
        ``[arms]`` says what is compared: ``baseline``, ``equal_time``, ``rates_only``, ``turns``.

        Args:
            path: The file.
            given: Settings for all runs that win over those of the file.

        Raises:
            RunError: If the file cannot be read or something in it is not allowed.
        """
        return cls.from_dict(read_toml(path), str(path), given)

    @classmethod
    def from_dict(
        cls, values: Mapping[str, Any], source: str, given: Mapping[str, Any] | None = None
    ) -> Grid:
        """Do as `load`, from the values of such a file; `source` is how errors name it."""
        values = dict(values)
        axes = _table(values.pop("grid", {}), "[grid]", source)
        arms = _table(values.pop("arms", {}), "[arms]", source)
        together = values.pop("cells", [{}])
        if not isinstance(together, list) or not all(isinstance(c, dict) for c in together):
            raise RunError(f"[[cells]] in {source} must be tables of settings. Write [[cells]].")
        name = values.pop("preset", None)
        base = {**({} if name is None else preset(name)), **values, **(given or {})}
        check_names(base, source)
        lists = {}
        if "times" in axes or ("times" in base and {"t0", "spacing"} & axes.keys()):
            raise RunError(
                f"explicit freeze times in {source} cannot vary, nor stand beside t0 or spacing in "
                "[grid]. Give times at the top, alone."
            )
        for key, options in axes.items():
            check_names({key: None}, f"[grid] of {source}")
            if not isinstance(options, list) or not options:
                raise RunError(
                    f"{key} in [grid] of {source} must be a list of at least one value, got "
                    f"{options!r}. Write a list of the values that it takes."
                )
            if key in (given or {}):
                raise RunError(
                    f"{key} varies in [grid] of {source}, and was given beside it. Give it once."
                )
            lists[key] = options
        for key, value in arms.items():
            if key not in _ARMS or not isinstance(value, bool):
                raise RunError(
                    f"[arms] of {source} takes {', '.join(_ARMS)} as true or false, got {key} = "
                    f"{value!r}. Correct or delete it."
                )
        return cls(
            cells=tuple(_cells(base, lists, together, given or {}, source)),
            variants=tuple(_variants(base, lists)),
            seeds=tuple(lists.get("seed", [base.get("seed", 0)])),
            **{"baseline": True, **arms},
        )

    def to_dict(self) -> dict[str, Any]:
        """Return plain values from which `from_plain` makes an equal grid."""
        return {
            "cells": [{"name": c.name, "settings": c.settings.to_dict()} for c in self.cells],
            "variants": [
                {
                    name: list(value) if isinstance(value, tuple) else value
                    for name, value in asdict(variant).items()
                    if (name, value) != ("max_freezes", None)  # it came later
                }
                for variant in self.variants
            ],
            "seeds": list(self.seeds),
            **{name: getattr(self, name) for name in _ARMS},
        }

    @classmethod
    def from_plain(cls, values: Mapping[str, Any]) -> Grid:
        """Return the grid that `to_dict` described.

        Raises:
            ValueError: If the values are of something else; the message has no full stop.
            RunError: If a setting is not allowed, or the grid has nothing to run.
        """
        found = Entries(values)
        found.only(("cells", "variants", "seeds", *_ARMS))
        return cls(
            cells=found.get("cells", lambda value: listed(value, _plain_cell)),
            variants=found.get("variants", lambda value: listed(value, _plain_variant)),
            seeds=found.get("seeds", lambda value: listed(value, _seed)),
            **{name: found.get(name, flag) for name in _ARMS},
        )


def _plain_cell(values: Any) -> Cell:
    cell = Entries(mapping(values), "a cell")
    cell.only(("name", "settings"))
    return Cell(
        name=cell.get("name", text), settings=Settings.from_dict(cell.get("settings", mapping))
    )


def _plain_variant(values: Any) -> Variant:
    variant = Entries(mapping(values), "a variant")
    variant.only(_OF_VARIANT)
    given = {name: value for name, value in values.items() if value is not None}
    found = variant_of(Settings.from_dict(given))
    if found is None:
        raise ValueError("a variant freezes nothing")
    return found


def _seed(value: Any) -> int:
    return whole(value, 2**63 - 1)


def _cells(
    base: Mapping[str, Any],
    lists: Mapping[str, list[Any]],
    together: Sequence[Mapping[str, Any]],
    given: Mapping[str, Any],
    source: str,
) -> Iterator[Cell]:
    axes = {k: v for k, v in lists.items() if k not in (*_OF_VARIANT, "seed")}
    varying = {*axes, *(name for part in together for name in part)}
    _check_size("cells", len(together) * math.prod(map(len, axes.values())))
    for part in together:
        check_names(part, f"[[cells]] of {source}")
        _check_part(part, lists, source)
        for choice in product(*axes.values()):
            values = {**base, **part, **dict(zip(axes, choice, strict=True)), **given}
            for name in _OF_VARIANT:
                values.pop(name, None)
            settings = replace(Settings.from_dict(values), seed=0)
            yield Cell(name=_cell_name(settings, varying, together, axes), settings=settings)


def _check_part(part: Mapping[str, Any], lists: Mapping[str, list[Any]], source: str) -> None:
    for name in part:
        if name in (*_OF_VARIANT, "seed"):
            raise RunError(
                f"{name} cannot stand in [[cells]] of {source}: ways of freezing and seeds are the "
                "same in all cells. Give it at the top or in [grid]."
            )
        if name in lists:
            raise RunError(f"{name} stands in [[cells]] and in [grid] of {source}. Give it once.")


def _cell_name(
    settings: Settings,
    varying: set[str],
    together: Sequence[Mapping[str, Any]],
    axes: Mapping[str, list[Any]],
) -> str:
    """Return network and data, and what else tells cells apart."""
    name = f"{settings.model} on {settings.data}"
    keys = [(part.get("model"), part.get("data")) for part in together]
    alone = len(set(keys)) == len(keys)  # then what else varies between the parts is told by these
    for spec in fields(Settings):
        if spec.name in ("model", "data") or spec.name not in varying:
            continue
        if spec.name in axes or not alone:
            name += f", {spec.name}={getattr(settings, spec.name)}"
    return name


def _variants(base: Mapping[str, Any], lists: Mapping[str, list[Any]]) -> Iterator[Variant]:
    """Yield every way of freezing once; nothing frozen is the baseline, not a variant."""
    idle = ("spacing", "t0") if "times" in base else ()
    axes = {
        name: lists[name] if name in lists else [base[name]]
        for name in _OF_VARIANT
        if name in {*lists, *base} and name not in idle
    }
    _check_size("variants", math.prod(map(len, axes.values())))
    for choice in product(*axes.values()):
        variant = variant_of(Settings.from_dict(dict(zip(axes, choice, strict=True))))
        if variant is not None:
            yield variant


def _check_size(what: str, count: int) -> None:
    """Refuse, before they are made, more than a folder and a memory can hold."""
    if count > _MOST_RUNS:
        raise RunError(
            f"an experiment may have at most {_MOST_RUNS:,} {what}, got {count:,}. Give shorter "
            "lists, or make several experiments."
        )


def _table(value: Any, name: str, source: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise RunError(f"{name} in {source} must be a table, got {value!r}. Write it as {name}.")
    return value
