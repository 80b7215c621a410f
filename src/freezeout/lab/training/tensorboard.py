"""An observer that writes TensorBoard events."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING

from freezeout.errors import RunError
from freezeout.freezing import FreezeEvent
from freezeout.lab.training.observer import EpochRecord, Observer, Progress, RunStart

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

__all__ = ["TensorBoardObserver"]


class TensorBoardObserver(Observer):
    """Write scalars per epoch, the frozen depth at every freeze, and running loss and accuracy.

    Args:
        folder: Where the event files go.
        every: Steps between two points of the running loss, at least 1.

    Raises:
        RunError: If TensorBoard is not installed.
    """

    def __init__(self, folder: Path, every: int = 10) -> None:
        if importlib.util.find_spec("tensorboard") is None:
            raise RunError(
                "--tensorboard needs the package tensorboard, which is not installed. "
                "Run: pip install 'freezeout[tensorboard]'"
            )
        self._folder = folder
        self._every = every
        self._layers = 1
        self._latest = 0
        self._writer: SummaryWriter

    def start(self, run: RunStart) -> None:
        """Open the files; hide what an earlier attempt wrote of steps that are done again."""
        from torch.utils.tensorboard import SummaryWriter

        self._layers, self._latest = len(run.layer_names), run.done_steps
        self._writer = SummaryWriter(self._folder, purge_step=run.done_steps + 1)

    def progress(self, progress: Progress) -> None:
        """Write running loss and accuracy, every few steps."""
        if progress.step - self._latest >= self._every:
            self._latest = progress.step
            self._writer.add_scalar("train/running_loss", progress.loss, progress.step)
            self._writer.add_scalar("train/running_accuracy", progress.accuracy, progress.step)

    def freeze(self, event: FreezeEvent) -> None:
        """Write the depth after a freeze or unfreeze."""
        depth = event.index + 1 if event.frozen else event.index
        self._writer.add_scalar("freezeout/depth", depth, event.step)
        self._writer.add_scalar("freezeout/frozen_fraction", depth / self._layers, event.step)

    def epoch(self, record: EpochRecord) -> None:
        """Write losses, errors, seconds and seconds saved."""
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
        """Write what is left and close the files."""
        if hasattr(self, "_writer"):
            self._writer.close()
