"""Modules that will freeze as one, before parameters are given out."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from torch import nn

from freezeout.layers.members import modules_in, named_parameters

__all__ = ["Atom", "Unit"]


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
        """Yield every parameter under every name it has here."""
        for name, module in (*self.parts, *self.idle):
            yield from named_parameters(module, prefix=name, remove_duplicate=False)

    def all_modules(self) -> Iterator[nn.Module]:
        """Yield its parts, what it takes along, and all modules inside them."""
        for _, module in (*self.parts, *self.idle):
            yield from modules_in(module)


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
