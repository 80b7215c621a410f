"""What a run tells whoever watches it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from freezeout.freezing import FreezeEvent

__all__ = ["EpochRecord", "Observer", "Progress"]


@dataclass(frozen=True)
class Progress:
    """One moment of a run.

    Attributes:
        step: Optimizer steps done.
        epoch: Epoch under way, counted from 1.
        loss: Mean training loss of this epoch so far.
        accuracy: Training accuracy of this epoch so far, in percent.
        frozen: Length of the frozen prefix.
        seconds_left: Estimated seconds to the end; ``None`` while unknown.
        saved_seconds: Seconds saved so far; ``None`` while unknown.
    """

    step: int
    epoch: int
    loss: float
    accuracy: float
    frozen: int
    seconds_left: float | None
    saved_seconds: float | None


@dataclass(frozen=True)
class EpochRecord:
    """One finished epoch.

    Attributes:
        epoch: Counted from 1.
        step: Optimizer steps done at its end.
        train_loss: Mean loss over its training images.
        train_error: Training error in percent.
        test_loss: Mean test loss; ``None`` if this epoch was not tested.
        test_error: Test error in percent; ``None`` likewise.
        seconds: Seconds in its training steps.
        frozen: Length of the frozen prefix at its end.
        saved_seconds: Seconds saved since the start of the run; ``None`` while unknown.
        memory: Peak bytes during the epoch (see `MemoryMeter`); ``None`` where nothing tells.
    """

    epoch: int
    step: int
    train_loss: float
    train_error: float
    test_loss: float | None
    test_error: float | None
    seconds: float
    frozen: int
    saved_seconds: float | None
    memory: int | None = None


class Observer:
    """Watches a run; every method does nothing here.

    Attributes:
        waited: Seconds for which it has held the run up, which are not counted as the run's.
    """

    waited: float = 0.0

    def start(
        self,
        title: str,
        layer_names: Sequence[str],
        freeze_steps: Sequence[int | None],
        total_steps: int,
        epochs: int,
        done_steps: int,
    ) -> None:
        """The run begins, or goes on after `done_steps` optimizer steps."""

    def progress(self, progress: Progress) -> None:
        """Some steps are done."""

    def freeze(self, event: FreezeEvent) -> None:
        """A layer froze or unfroze."""

    def epoch(self, record: EpochRecord) -> None:
        """An epoch is done."""

    def message(self, text: str) -> None:
        """There is something to say."""
