"""Other learning-rate schedulers, and other hands, on the rates that FreezeOut sets."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch.optim import Optimizer
from torch.optim import lr_scheduler as lrs

from freezeout import FreezeOut
from tests.compatibility.outcome import Outcome

Step = Callable[[float], None]
"""Is called after each update with its loss; steps all schedulers there are."""


@dataclass(frozen=True)
class Beside:
    """Something that sets rates beside FreezeOut, and what comes of it.

    Attributes:
        name: For the table.
        build: From an optimizer and a function that makes its FreezeOut to what steps both.
        outcome: See `outcome.MEANING`.
        words: Where told or refused: a part of what is said.
        note: What a user should know, for the table.
        anneal: As for `FreezeOut`.
        warmup: Updates before those that FreezeOut counts.
        cut: By what the rates are multiplied in the end, beside the schedule.
    """

    name: str
    build: Callable[[Optimizer, Callable[[], FreezeOut]], tuple[FreezeOut, Step]]
    outcome: Outcome = "works"
    words: str = ""
    note: str = ""
    anneal: Any = "cosine"
    warmup: int = 0
    cut: float = 1.0


def _after(kind: Callable[[Optimizer], Any]) -> Any:
    """Made after FreezeOut, and stepped beside it."""

    def build(optimizer: Optimizer, make: Callable[[], FreezeOut]) -> tuple[FreezeOut, Step]:
        scheduler = make()
        other = kind(optimizer)

        def step(loss: float) -> None:
            scheduler.step()
            other.step()

        return scheduler, step

    return build


def _before(kind: Callable[[Optimizer], Any], *, stepped: bool) -> Any:
    def build(optimizer: Optimizer, make: Callable[[], FreezeOut]) -> tuple[FreezeOut, Step]:
        other = kind(optimizer)
        scheduler = make()

        def step(loss: float) -> None:
            scheduler.step()
            assert other.optimizer is optimizer  # it lives
            if stepped:
                other.step()

        return scheduler, step

    return build


def _plateau(optimizer: Optimizer, make: Callable[[], FreezeOut]) -> tuple[FreezeOut, Step]:
    scheduler = make()
    other = lrs.ReduceLROnPlateau(optimizer, factor=0.5, patience=0)
    losses = iter([1.0, 1.0])  # no progress once

    def step(loss: float) -> None:
        scheduler.step()
        for one in losses:
            other.step(one)

    return scheduler, step


def _by_hand(optimizer: Optimizer, make: Callable[[], FreezeOut]) -> tuple[FreezeOut, Step]:
    scheduler = make()

    def step(loss: float) -> None:
        scheduler.step()
        if scheduler.last_epoch == 3:
            for group in optimizer.param_groups:
                group["lr"] *= 0.5

    return scheduler, step


def _in_sequence(optimizer: Optimizer, make: Callable[[], FreezeOut]) -> tuple[FreezeOut, Step]:
    scheduler = make()
    warm_up = lrs.LinearLR(optimizer, 0.1, total_iters=2)
    both = lrs.SequentialLR(optimizer, [warm_up, scheduler], milestones=[2])
    return scheduler, lambda loss: both.step()


def _cosine(optimizer: Optimizer) -> Any:
    return lrs.CosineAnnealingLR(optimizer, T_max=12)


def _one_cycle(optimizer: Optimizer) -> Any:
    return lrs.OneCycleLR(optimizer, max_lr=0.1, total_steps=20)


def _lambda(optimizer: Optimizer) -> Any:
    return lrs.LambdaLR(optimizer, lambda n: min(1.0, (n + 1) / 4))


_BOTH = "sets the rates of the same optimizer"

BESIDE = [
    Beside("`CosineAnnealingLR` beside it", _after(_cosine), "told", _BOTH),
    Beside("`OneCycleLR` beside it", _after(_one_cycle), "told", _BOTH),
    Beside("`LambdaLR` made before, and stepped", _before(_lambda, stepped=True), "told", _BOTH),
    Beside("`LambdaLR` made before, and left", _before(_lambda, stepped=False)),
    Beside("`ReduceLROnPlateau` beside it", _plateau, note="its cuts are followed", cut=0.5),
    Beside("rates cut by hand", _by_hand, note="the cut is followed", cut=0.5),
    Beside("`SequentialLR` with a warm-up before it", _in_sequence, warmup=2),
    Beside("`CosineAnnealingLR` with `anneal=None`", _after(_cosine), anneal=None),
    Beside("`OneCycleLR` with `anneal=None`", _after(_one_cycle), anneal=None),
    Beside("`ReduceLROnPlateau` with `anneal=None`", _plateau, anneal=None, cut=0.5),
]
