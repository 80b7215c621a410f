"""What a run tells whoever watches it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType

from freezeout.freezing import FreezeEvent

__all__ = ["EpochRecord", "Observer", "Progress", "RunStart"]


@dataclass(frozen=True)
class RunStart:
    """What is known of a run when it begins or goes on.

    Attributes:
        title: What runs, in a few words.
        layer_names: One name per layer, input first.
        freeze_steps: Step at which each layer freezes; ``None`` for one that never does.
        total_steps: Steps of the whole run.
        epochs: Epochs of the whole run.
        done_steps: Steps done before.
    """

    title: str
    layer_names: Sequence[str]
    freeze_steps: Sequence[int | None]
    total_steps: int
    epochs: int
    done_steps: int


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
        test_error: Test error in percent; ``None`` too.
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
    """Watch a run; every method does nothing here.

    A context manager: leaving it, also by an exception, calls `close`.

    Attributes:
        waited: Seconds for which it has held the run up, which are not counted as the run's.
    """

    waited: float = 0.0

    def start(self, run: RunStart) -> None:
        """Take note that a run begins, or goes on after `done_steps` optimizer steps."""

    def progress(self, progress: Progress) -> None:
        """Take note of some more steps. Called after every few of them, so it must be cheap."""

    def freeze(self, event: FreezeEvent) -> None:
        """Take note of a layer that froze or unfroze."""

    def epoch(self, record: EpochRecord) -> None:
        """Take note of a finished epoch."""

    def message(self, text: str) -> None:
        """Take note of something worth saying."""

    def close(self) -> None:
        """End watching. May be called again, and without a start."""

    def __enter__(self) -> Observer:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
