"""What a row of the table of optimizers is."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from torch import nn
from torch.optim import Optimizer

from freezeout import FreezeOut
from freezeout.reference import RateOnly
from freezeout.schedule import Anneal
from tests.compatibility.outcome import Outcome
from tests.compatibility.small_run import FREEZES, STEPS, Update, make_net, plain, train

Kind: TypeAlias = type[FreezeOut] | type[RateOnly]

Twin: TypeAlias = Literal["rates", "no gradients", "neither"]


@dataclass(frozen=True)
class Row:
    """One optimizer, and what comes of it.

    Attributes:
        name: Shown in the table; the class's own name.
        make: From a model to its optimizer.
        outcome: See `outcome.MEANING`.
        words: Where told or refused: a part of what is said.
        note: What a user should know, for the table.
        net: The network it trains.
        update: How one update is done.
        anneals: The curves that it is tried with; ``None`` freezes and leaves rates alone.
        counted: Whether its updates are counted; if not, the loop says how many are done.
        twin: What a run ends as: one of the same rates in which nothing ever freezes, one without
            the gradients of layers that are done, or neither.
        why: Why it does not end as the first of these.
        keeps_state: Whether it makes state for what is frozen again, which changes nothing.
        resume_differs: Why a resumed run does not go on as the uninterrupted one; empty where it
            does.
    """

    name: str
    make: Callable[[nn.Module], Any]
    outcome: Outcome = "works"
    words: str = ""
    note: str = ""
    net: str = "mlp"
    update: Update = plain
    anneals: tuple[Anneal | None, ...] = ("cosine", None)
    counted: bool = True
    twin: Twin = "rates"
    why: str = ""
    keeps_state: bool = False
    resume_differs: str = ""

    def bare(self, *, seed: int = 0) -> tuple[nn.Module, Any]:
        """A model and its optimizer."""
        model = make_net(self.net, seed=seed)
        return model, self.make(model)

    def schedule(
        self, model: nn.Module, optimizer: Any, kind: Kind = FreezeOut, **given: Any
    ) -> Any:
        """The scheduler of both."""
        settings = {**FREEZES, "anneal": self.anneals[0], **given}
        if settings["anneal"] is None:
            del settings["scale_cap"]
        return kind(optimizer, model, STEPS, **settings)

    def set_up(
        self, kind: Kind = FreezeOut, *, seed: int = 0, **given: Any
    ) -> tuple[nn.Module, Any, Any]:
        """A model, its optimizer and the scheduler of both."""
        model, optimizer = self.bare(seed=seed)
        return model, optimizer, self.schedule(model, optimizer, kind, **given)

    def train(self, run: tuple[nn.Module, Any, Any], **given: Any) -> None:
        """Do the updates of a run; see `small_run.train`."""
        train(*run, net=self.net, update=self.update, counted=self.counted, **given)


def of_class(kind: type[Optimizer], settings: Mapping[str, Any]) -> Callable[[nn.Module], Any]:
    """Make an optimizer of a class over all parameters of a model."""

    def make(model: nn.Module) -> Optimizer:
        return kind(model.parameters(), **settings)

    return make
