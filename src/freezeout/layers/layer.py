"""What a layer is: a unit that freezes as one, at its place in the order of execution."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias, overload

from torch import nn

from freezeout.layers.live import Live
from freezeout.layers.marks import is_ours
from freezeout.layers.members import modules_in, named_parameters, parameters_in, wrapped_in
from freezeout.text import plain_table

__all__ = ["Layer", "LayerSpec", "Layers", "learns_at_all", "unwrap"]

LayerSpec: TypeAlias = str | nn.Module | Sequence[str | nn.Module]
"""One layer, or with a pattern one layer per match: a module, a name, or several of these."""


@dataclass(frozen=True, eq=False)
class Layer:
    """A unit that freezes as one.

    Attributes:
        index: Position in execution order, 0 at the input.
        name: Qualified name of its main module.
        modules: Every module it owns, each once, submodules included. `Layers.to_inference` says
            which of them change their mode when it freezes.
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

    What belongs to each follows the model when parts of it are replaced, wrapped, pruned or
    parametrized: at every freeze, and with `refresh`. The number of layers and their names stay.

    Attributes:
        model: The model they belong to, without wrappers.
        ties: For every tied weight, its names; it belongs to the layer of its last user.
        idle: Names of parameters that the example input never reached. They belong to the last
            layer, which never freezes; parameters on a container, or in a block that ran without
            them (an expert that got no token), stay with it.
    """

    def __init__(
        self,
        model: nn.Module,
        layers: Sequence[Layer],
        *,
        ties: Sequence[tuple[str, ...]] = (),
        idle: Sequence[str] = (),
        kept: Sequence[Layer] = (),
    ) -> None:
        self.model = model
        self.ties = tuple(ties)
        self.idle = tuple(idle)
        self._layers = tuple(layers)
        self._index = _index(self)
        self._kept = [frozenset(id(p) for _, p in part.parameters) for part in kept]
        parameters = [[p for _, p in layer.parameters] for layer in layers]
        self._live = Live(model, [layer.modules for layer in layers], parameters)

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
        """Return the index of a parameter's layer; ``None`` if it is not in the model."""
        return self._index.get(id(parameter))

    def to_inference(self, layers: Iterable[Layer]) -> list[nn.Module]:
        """Return the modules of some layers that go to inference mode when these freeze.

        Those are all but the parts that had nothing to learn when the model was cut, and still have
        not: their modes are their owner's business (a momentum encoder keeps its statistics).

        Args:
            layers: Some of these layers.
        """
        apart = self._apart() if self._kept else ()
        return [m for layer in layers for m in layer.modules if id(m) not in apart]

    def _apart(self) -> set[int]:
        """Return the modules, by ``id``, of parts that have never had anything to learn."""
        named = [entry for layer in self for entry in layer.parameters]
        may_learn = frozenset().union(*self._kept)
        learning = {id(p) for n, p in named if id(p) in may_learn and _learns(self.model, n, p)}
        still: set[int] = set().union(*filter(learning.isdisjoint, self._kept))
        found: set[int] = set()
        for module in modules_in(self.model):  # parents come before children
            inside = {id(p) for p in parameters_in(module)}
            if id(module) not in found and inside and inside <= still:
                found.update(map(id, modules_in(module)))
        return found

    def refresh(self, stand_ins: Mapping[int, nn.Parameter] | None = None) -> bool:
        """Look the layers up in the model as it is now. What is gone from it is forgotten.

        Args:
            stand_ins: The parameter for which another one stands in at present, by the ``id`` of
                that other one (while ``fully_shard`` has gathered a layer).

        Returns:
            Whether any module or parameter is another than at the last look.
        """
        if not self._live.look(stand_ins or {}):
            return False
        live = self._live
        self._layers = tuple(
            Layer(old.index, old.name, live.modules_of(old.index), live.parameters_of(old.index))
            for old in self
        )
        self._index = _index(self)
        self._kept = [part & self._index.keys() for part in self._kept]
        return True

    def early_ties(self) -> list[tuple[tuple[str, ...], int, int]]:
        """Return tied weights with an earlier user than the layer that owns them.

        Until its owner freezes, such a weight makes the output of its first user need a gradient.

        Returns:
            For each its names, the index of its first user, and the index of its owner.
        """
        of_module = {id(m): layer.index for layer in self for m in layer.modules}
        present = dict(named_parameters(self.model, remove_duplicate=False))
        found = []
        for ties in self.ties:
            names = tuple(name for name in ties if name in present)
            if not names or not _learns(self.model, names[0], present[names[0]]):
                continue
            around = [m for name in names for m in _modules_around(self.model, name)]
            users = [of_module[id(m)] for m in around if id(m) in of_module]
            index = self.index_of(present[names[0]])
            if index is not None and users and min(users) < index:
                found.append((names, min(users), index))
        return found

    def table(self, times: Sequence[float] | None = None) -> str:
        """Return a plain-text table: index, name, parameters and, if given, freeze time.

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
        return "\n".join(plain_table(columns))

    def __str__(self) -> str:
        return self.table()

    def __repr__(self) -> str:
        return f"Layers({len(self)} layers of {type(self.model).__name__})"


def unwrap(model: nn.Module) -> nn.Module:
    """Return the model inside ``DistributedDataParallel``, ``DataParallel`` and ``torch.compile``.

    Args:
        model: A module, wrapped or not.
    """
    while isinstance(model, nn.Module) and (inner := wrapped_in(model)) is not None:
        model = inner
    return model


def learns_at_all(model: nn.Module, layer: Layer) -> bool:
    """Return whether anything in a layer is to learn, even if an earlier run has frozen it.

    Args:
        model: The model, without wrappers.
        layer: One of its layers.
    """
    return any(_learns(model, *entry) for entry in layer.parameters)


def _learns(model: nn.Module, name: str, parameter: nn.Parameter) -> bool:
    return parameter.requires_grad or is_ours(model, name, parameter)


def _index(layers: Sequence[Layer]) -> dict[int, int]:
    return {id(p): layer.index for layer in layers for _, p in layer.parameters}


def _modules_around(model: nn.Module, parameter_name: str) -> list[nn.Module]:
    """Return the module that holds a parameter and those around it, without the model itself."""
    path = parameter_name.split(".")[:-1]
    return [model.get_submodule(".".join(path[: i + 1])) for i in range(len(path))]
