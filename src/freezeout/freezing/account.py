"""Account for every parameter of a model: who moves it, who froze it, who has forgotten it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias
from weakref import WeakKeyDictionary, WeakSet

from torch import nn
from torch.optim import Optimizer

from freezeout.freezing.holders import held_by, other_holders
from freezeout.layers import is_ours, named_parameters
from freezeout.text import plain_table
from freezeout.wrappers import gathered_forms

__all__ = [
    "Account",
    "Entry",
    "Kind",
    "check_thawed",
    "name_some",
    "note_run",
    "take_account",
]

Kind: TypeAlias = Literal["learns", "frozen", "frozen by hand", "in no optimizer", "held elsewhere"]
"""What becomes of a parameter; each is exactly one of these."""

_RUNS: WeakKeyDictionary[nn.Module, WeakSet[Optimizer]] = WeakKeyDictionary()
"""The optimizers of every run of a model so far."""


@dataclass(frozen=True)
class Entry:
    """One parameter of a model.

    Attributes:
        name: Its qualified name.
        kind: What becomes of it.
        size: Its number of scalars.
        holder: Class name of the other optimizer that holds it, if there is one.
    """

    name: str
    kind: Kind
    size: int
    holder: str | None = None


@dataclass(frozen=True)
class Account:
    """What becomes of every parameter of a model.

    A parameter ``"learns"`` if it requires a gradient and one of the freezer's optimizers holds it;
    is ``"frozen"`` by a freezer or ``"frozen by hand"``; or it requires a gradient and is ``"in no
    optimizer"``, or ``"held elsewhere"``: by an optimizer that the freezer does not know.

    Attributes:
        entries: One for each parameter, in the order of ``named_parameters()``.

    Example:
        >>> import torch
        >>> from freezeout import Freezer, split_layers
        >>> net = nn.Sequential(nn.Linear(4, 8), nn.Linear(8, 2))
        >>> optimizer = torch.optim.SGD(net[1].parameters(), lr=0.1)
        >>> account = Freezer(split_layers(net), optimizer).account()
        >>> account.names("in no optimizer")
        ('0.weight', '0.bias')
        >>> round(account.share("learns"), 2)
        0.31
    """

    entries: tuple[Entry, ...]

    def names(self, kind: Kind) -> tuple[str, ...]:
        """Return the names of the parameters of one kind.

        Args:
            kind: One of the five kinds.
        """
        return tuple(entry.name for entry in self.entries if entry.kind == kind)

    def share(self, kind: Kind) -> float:
        """Return how much of the model is of one kind, as a fraction of its scalars.

        Args:
            kind: One of the five kinds.
        """
        whole = sum(entry.size for entry in self.entries)
        return sum(e.size for e in self.entries if e.kind == kind) / whole if whole else 0.0

    def __str__(self) -> str:
        kinds: dict[Kind, list[Entry]] = {}
        for entry in self.entries:
            kinds.setdefault(entry.kind, []).append(entry)
        rows = [("parameters", "tensors", "share", "such as")]
        for kind, found in kinds.items():
            share = f"{100 * self.share(kind):.1f} %"
            rows.append((kind, str(len(found)), share, name_some([e.name for e in found])))
        return "\n".join(plain_table(rows))


def take_account(
    model: nn.Module, optimizers: Sequence[Optimizer], others: Iterable[Optimizer] | None = None
) -> Account:
    """Return what becomes of every parameter of a model.

    Args:
        model: The model, without wrappers.
        optimizers: Those of the freezer.
        others: The other live optimizers; by default they are searched for.
    """
    forms = gathered_forms(model)
    parameters = [(n, p, id(forms.get(id(p), p))) for n, p in named_parameters(model)]
    mine = held_by(optimizers)
    if others is None:
        left = [p for _, p, known in parameters if p.requires_grad and known not in mine]
        others = other_holders(optimizers, left) if left else ()
    elsewhere = {
        id(p): type(other).__name__
        for other in others
        for group in other.param_groups
        for p in group["params"]
    }

    def kind_of(name: str, parameter: nn.Parameter, known: int) -> Kind:
        if not parameter.requires_grad:
            return "frozen" if is_ours(model, name, parameter) else "frozen by hand"
        if known in mine:
            return "learns"
        return "held elsewhere" if known in elsewhere else "in no optimizer"

    entries = []
    for name, parameter, known in parameters:
        kind = kind_of(name, parameter, known)
        holder = elsewhere.get(known) if kind == "held elsewhere" else None
        entries.append(Entry(name, kind, parameter.numel(), holder))
    return Account(tuple(entries))


def note_run(model: nn.Module, optimizer: Optimizer) -> None:
    """Remember that an optimizer has been used to freeze a model.

    Args:
        model: The model, without wrappers.
        optimizer: One that a freezer was given.
    """
    _RUNS.setdefault(model, WeakSet()).add(optimizer)


def check_thawed(model: nn.Module, optimizer: Optimizer) -> None:
    """Raise where a freezer would make parameters learn again that no optimizer holds.

    The usual optimizer of a second run takes what requires a gradient; if the model was still
    frozen from the first run, most of it is missing, and would never learn.

    Args:
        model: The model, without wrappers.
        optimizer: The one that a freezer is to be made with.

    Raises:
        ValueError: If there are such parameters.
    """
    mine = held_by([optimizer])
    named = [
        (name, p)
        for name, p in named_parameters(model)
        if id(p) not in mine and is_ours(model, name, p)
    ]
    if not named:
        return
    earlier = _RUNS.get(model, WeakSet())
    others = other_holders([optimizer], [p for _, p in named])
    if optimizer not in earlier:  # those of an earlier run may still be there, and do nothing
        others = [other for other in others if all(other is not e for e in earlier)]
    held = held_by(others)
    missing = [name for name, p in named if id(p) not in held]
    if missing:
        raise ValueError(
            f"the optimizer lacks {len(missing)} parameters that an earlier run left frozen "
            f"({name_some(missing)}): they would learn again now, but nothing would move them. "
            "Call freezeout.unfreeze(model) before you make the optimizer."
        )


def name_some(names: Sequence[str]) -> str:
    """Return the first three names and how many more there are.

    Args:
        names: At least one.
    """
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return f"{', '.join(map(repr, names[:3]))}{more}"
