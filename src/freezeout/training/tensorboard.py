"""An observer that writes TensorBoard events."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from freezeout.errors import RunError
from freezeout.freezing import FreezeEvent
from freezeout.training.observer import EpochRecord, Observer, Progress

__all__ = ["TensorBoardObserver"]


class TensorBoardObserver(Observer):
    """Writes scalars per epoch, the frozen depth at every freeze, and running loss and accuracy.

    Args:
        folder: Where the event files go.
        every: Steps between two points of the running loss, at least 1.

    Raises:
        RunError: If TensorBoard is not installed.
    """

    def __init__(self, folder: Path, every: int = 10) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise RunError(
                "--tensorboard needs the package tensorboard, which is not installed. "
                "Run: pip install 'freezeout[tensorboard]'"
            ) from error
        self._writer = SummaryWriter(folder)
        self._every = every
        self._layers = 1

    def start(
        self,
        title: str,
        layer_names: Sequence[str],
        freeze_steps: Sequence[int | None],
        total_steps: int,
        epochs: int,
    ) -> None:
        """Notes how many layers there are."""
        self._layers = len(layer_names)

    def progress(self, progress: Progress) -> None:
        """Running loss and accuracy, every few steps."""
        if progress.step % self._every == 0:
            self._writer.add_scalar("train/running_loss", progress.loss, progress.step)
            self._writer.add_scalar("train/running_accuracy", progress.accuracy, progress.step)

    def freeze(self, event: FreezeEvent) -> None:
        """The depth after a freeze or unfreeze."""
        depth = event.index + 1 if event.frozen else event.index
        self._writer.add_scalar("freezeout/depth", depth, event.step)
        self._writer.add_scalar("freezeout/frozen_fraction", depth / self._layers, event.step)

    def epoch(self, record: EpochRecord) -> None:
        """Losses, errors, seconds and seconds saved."""
        values = {
            "train/loss": record.train_loss,
            "train/error": record.train_error,
            "test/loss": record.test_loss,
            "test/error": record.test_error,
            "freezeout/epoch_seconds": record.seconds,
            "freezeout/saved_seconds": record.saved_seconds,
        }
        for name, value in values.items():
            if value is not None:
                self._writer.add_scalar(name, value, record.step)
        self._writer.flush()

    def close(self) -> None:
        """Writes what is left and closes the files."""
        self._writer.close()
