"""A plain, fast training loop: model, data, optimizer and scheduler, one step at a time.

It knows how to step, test, save and restore itself. Folders, logs and signals are in `run`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass
from itertools import islice
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import nn
from torch.optim import SGD, AdamW, Optimizer

from freezeout import models
from freezeout.data import Augmentation, Dataset, TensorLoader, channel_statistics
from freezeout.errors import CheckpointError, DivergenceError, RunError
from freezeout.importing import is_target
from freezeout.layers import Layers, split_layers
from freezeout.reference import RateOnly
from freezeout.scheduler import FreezeOut
from freezeout.training.clock import StepClock
from freezeout.training.memory import MemoryMeter
from freezeout.training.observer import EpochRecord
from freezeout.training.own import OwnNetwork
from freezeout.training.settings import Settings

__all__ = ["Trainer", "build_optimizer", "pick_device"]

_TEST_BATCH = 250


@dataclass
class _EpochSoFar:
    """Sums over the epoch under way."""

    loss: float = 0.0
    correct: int = 0
    images: int = 0


class Trainer:
    """Trains one network on one data set with FreezeOut.

    Construction seeds torch's global generator, builds everything and takes no step. A network of
    the user's own is cut into layers in the order of execution, for which it runs once.

    Args:
        settings: What to train and how; `padding` and `flip` must be resolved.
        dataset: The data.

    Attributes:
        model: The network.
        total_steps: Length of the run in optimizer steps.
        epochs: Length of the run in epochs; the last one is cut short where `steps` says so.
        scheduler: The `FreezeOut` scheduler, with layers and freezer; for a control `RateOnly`.
        clock: Times the steps.
        meter: Reads the peak of memory, epoch by epoch.
        history: The finished epochs.
        step: Optimizer steps done.
        epoch: Finished epochs.

    Raises:
        RunError: If network, data and settings do not fit together.
    """

    def __init__(self, settings: Settings, dataset: Dataset) -> None:
        self.settings = settings
        self.device = pick_device(settings.device)
        torch.manual_seed(settings.seed)
        self._own = _own_network(settings, dataset)
        model = _build_model(settings, dataset)
        self.model = (
            model.to(self.device) if self._own is None else self._own.move(model, self.device)
        )
        if settings.channels_last:
            cast("Any", self.model).to(memory_format=torch.channels_last)  # missing from its types
        self.train_data, self.test_data = _loaders(settings, dataset, self.device)
        whole = settings.epochs * len(self.train_data)
        self.total_steps = whole if settings.steps is None else settings.steps
        self.epochs = -(-self.total_steps // len(self.train_data))
        layers = self._cut(dataset)
        self.optimizer = build_optimizer(settings, self.model)
        try:
            kind = FreezeOut if settings.freeze else RateOnly
            self.scheduler: FreezeOut | RateOnly = kind(
                self.optimizer,
                self.model,
                self.total_steps,
                schedule=settings.schedule,
                layers=layers,
            )
        except ValueError as error:
            raise RunError(str(error)) from error
        self.clock = StepClock(self.device)
        self.meter = MemoryMeter(self.device)
        self.history: list[EpochRecord] = []
        self.step = 0
        self.epoch = 0
        self.batch = 0  # next batch of the epoch under way
        self.elapsed = 0.0  # wall seconds before the last resume
        self._sums = _EpochSoFar()
        self._unread: list[tuple[torch.Tensor, torch.Tensor, int]] = []

    @property
    def finished(self) -> bool:
        """Whether all epochs are done and closed, and so all `total_steps` taken."""
        return self.epoch >= self.epochs

    @property
    def epoch_steps(self) -> int:
        """Steps in the epoch under way: as many as it has batches, or fewer in the last one."""
        length = len(self.train_data)
        return max(0, min(length, self.total_steps - self.epoch * length))

    @property
    def frozen(self) -> int:
        """Length of the frozen prefix."""
        return self.scheduler.frozen

    @property
    def running_loss(self) -> float:
        """Mean training loss of the epoch under way, as far as it has been read."""
        return self._sums.loss / self._sums.images if self._sums.images else math.nan

    @property
    def running_error(self) -> float:
        """Training error in percent of the epoch under way, as far as it has been read."""
        if not self._sums.images:
            return math.nan
        return 100.0 * (1.0 - self._sums.correct / self._sums.images)

    def batches(self) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """The batches left in the epoch under way."""
        self.model.train()
        self.meter.start()
        left = max(0, self.epoch_steps - self.batch)
        return islice(self.train_data.epoch(self.epoch, self.batch), left)

    def take_step(self, images: torch.Tensor, labels: torch.Tensor) -> None:
        """One optimizer step. `read` collects loss and accuracy, so that a GPU is not held up."""
        with self._autocast():
            logits = self._logits(images)
            loss = F.cross_entropy(logits, labels)
        loss.backward()
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.scheduler.step()
        correct = (logits.detach().argmax(1) == labels).sum()
        self._unread.append((loss.detach(), correct, len(labels)))
        self.step += 1
        self.batch += 1

    def read(self) -> None:
        """Adds losses and accuracies of the latest steps to the sums of the epoch.

        Raises:
            DivergenceError: If a loss is not finite; it names the first such step.
        """
        if not self._unread:
            return
        values = torch.stack([torch.stack((loss, c.to(loss))) for loss, c, _ in self._unread])
        first = self.step - len(self._unread) + 1
        for i, (loss, correct) in enumerate(values.tolist()):
            if not math.isfinite(loss):
                raise _diverged(first + i, f"the loss became {loss}")
            size = self._unread[i][2]
            self._sums.loss += loss * size
            self._sums.correct += round(correct)
            self._sums.images += size
        self._unread.clear()

    def finish_epoch(self) -> EpochRecord:
        """Tests where it is due, and closes the epoch.

        Raises:
            DivergenceError: If the weights or the test loss are not finite.
        """
        self.read()
        memory = self.meter.peak()  # before testing, which needs some of its own
        self.check_finite()
        number = self.epoch + 1
        due = number % self.settings.evaluate_every == 0 or number == self.epochs
        test_loss, test_error = self.test() if due else (None, None)
        if test_loss is not None and not math.isfinite(test_loss):
            raise _diverged(self.step, f"the test loss became {test_loss}")
        record = EpochRecord(
            epoch=number,
            step=self.step,
            train_loss=self.running_loss,
            train_error=self.running_error,
            test_loss=test_loss,
            test_error=test_error,
            seconds=self.clock.total_since(self.epoch * len(self.train_data)),
            frozen=self.frozen,
            saved_seconds=self.clock.saved_seconds(),
            memory=memory,
        )
        self.history.append(record)
        self.epoch, self.batch, self._sums = number, 0, _EpochSoFar()
        return record

    def test(self) -> tuple[float, float]:
        """Mean loss and error in percent on the test data, in evaluation mode."""
        loss = torch.zeros((), device=self.device, dtype=torch.float64)
        correct = torch.zeros((), device=self.device, dtype=torch.int64)
        self.model.eval()
        with torch.no_grad():
            for images, labels in self.test_data.epoch(0):
                with self._autocast():
                    logits = self._logits(images)
                    loss += F.cross_entropy(logits, labels, reduction="sum")
                correct += (logits.argmax(1) == labels).sum()
        self.model.train()
        count = self.test_data.num_images
        return float(loss) / count, 100.0 * (1.0 - int(correct) / count)

    def check_finite(self) -> None:
        """Raises `DivergenceError` if a weight or buffer is not finite."""
        tensors = [*self.model.parameters(), *self.model.buffers()]
        bad = torch.stack([(~torch.isfinite(t.detach())).any() for t in tensors])
        if bool(bad.any()):
            raise _diverged(self.step, "a weight became infinite or NaN")

    def state_dict(self) -> dict[str, Any]:
        """All that a bit-exact continuation needs: tensors and plain values.

        Raises:
            DivergenceError: If a loss, a weight or a buffer is not finite: not worth keeping.
        """
        self.read()
        self.check_finite()
        cuda = self.device.type == "cuda"
        return {
            "settings": self.settings.to_dict(),
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scheduler": self.scheduler.state_dict(),
            "generator": torch.get_rng_state(),
            "device_generator": torch.cuda.get_rng_state(self.device) if cuda else None,
            "step": self.step,
            "epoch": self.epoch,
            "batch": self.batch,
            "sums": asdict(self._sums),
            "history": [asdict(record) for record in self.history],
            "clock": self.clock.state_dict(),
            "elapsed": self.elapsed,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Puts everything back to where `state_dict` was taken.

        Raises:
            CheckpointError: If it is of another network, other data or other settings.
        """
        try:
            self.scheduler.load_state_dict(state["scheduler"])  # freezes first, then loads
            self.model.load_state_dict(state["model"])
            self.optimizer.load_state_dict(state["optimizer"])
            torch.set_rng_state(state["generator"])
            if state["device_generator"] is not None and self.device.type == "cuda":
                torch.cuda.set_rng_state(state["device_generator"], self.device)
            self.clock.load_state_dict(state["clock"])
            position = state["step"], state["epoch"], state["batch"]
            if not all(type(number) is int and number >= 0 for number in position):
                raise ValueError(f"its position {position} is none.")
            self.step, self.epoch, self.batch = position
            self.elapsed = state["elapsed"]
            self._sums = _EpochSoFar(**state["sums"])
            self.history = [EpochRecord(**record) for record in state["history"]]
        except CheckpointError as error:
            raise CheckpointError(f"the checkpoint does not fit: {error}") from error
        except (
            KeyError,
            ValueError,
            TypeError,
            RuntimeError,
            AttributeError,
            AssertionError,
        ) as error:
            raise CheckpointError(
                "the checkpoint belongs to another network, other data or another version: "
                f"{(str(error).splitlines() or ['?'])[0]} Resume it with the settings it was saved "
                "with."
            ) from error

    def _logits(self, images: torch.Tensor) -> torch.Tensor:
        if self._own is not None:
            return self._own.logits(self.model, images)
        logits: torch.Tensor = self.model(images)
        return logits

    def _cut(self, dataset: Dataset) -> Layers:
        """The layers: of a built-in network as defined, of the user's own as executed."""
        if self._own is None:
            return split_layers(self.model)
        example = torch.zeros(2, dataset.channels, *dataset.image_size, device=self.device)
        if self.settings.channels_last:
            example = example.contiguous(memory_format=torch.channels_last)
        with self._autocast():
            return self._own.cut(self.model, example)

    def _autocast(self) -> AbstractContextManager[Any]:
        if self.settings.precision == "bf16":
            return torch.autocast(self.device.type, dtype=torch.bfloat16)
        return nullcontext()


def pick_device(name: str) -> torch.device:
    """The device of a setting.

    Args:
        name: ``"auto"``, ``"cpu"``, ``"cuda"`` or ``"cuda:N"``.

    Raises:
        RunError: If it is a GPU that is not there.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    device = torch.device(name)
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if device.type == "cuda" and (device.index or 0) >= count:
        raise RunError(
            f"device {name!r} is not there: torch sees {count} CUDA devices. "
            "Give --device cpu, or install a torch that matches the driver."
        )
    return device


def _own_network(settings: Settings, dataset: Dataset) -> OwnNetwork | None:
    own = is_target(settings.model)
    return OwnNetwork(settings.model, dataset.num_classes) if own else None


def _build_model(settings: Settings, dataset: Dataset) -> nn.Module:
    try:
        return models.build(
            settings.model,
            num_classes=dataset.num_classes,
            in_channels=dataset.channels,
            image_size=dataset.image_size,
        )
    except (ValueError, TypeError) as error:
        raise RunError(str(error)) from error


def _loaders(
    settings: Settings, dataset: Dataset, device: torch.device
) -> tuple[TensorLoader, TensorLoader]:
    if settings.padding is None or settings.flip is None:
        raise ValueError("padding and flip must be resolved before training; see resolve().")
    mean, std = channel_statistics(dataset.train_images)
    try:
        train = TensorLoader(
            dataset.train_images,
            dataset.train_labels,
            batch_size=settings.batch_size,
            device=device,
            seed=settings.seed,
            augmentation=Augmentation(padding=settings.padding, flip=settings.flip),
            channels_last=settings.channels_last,
            mean=mean,
            std=std,
        )
    except (ValueError, TypeError) as error:
        raise RunError(str(error)) from error
    sizes = {settings.batch_size, train.num_images % settings.batch_size or settings.batch_size}
    if min(*sizes, train.num_images) < 2:
        raise RunError(
            f"every training batch must hold at least 2 images, got batch_size="
            f"{settings.batch_size} for {train.num_images} images: BatchNorm cannot normalise one. "
            "Use larger batches or more training images."
        )
    test = TensorLoader(
        dataset.test_images,
        dataset.test_labels,
        batch_size=_TEST_BATCH,
        device=device,
        shuffle=False,
        channels_last=settings.channels_last,
        mean=mean,
        std=std,
    )
    return train, test


def build_optimizer(settings: Settings, model: nn.Module) -> Optimizer:
    """The optimizer of the settings, for all parameters of a model."""
    if settings.optimizer == "adamw":
        return AdamW(
            model.parameters(),
            lr=settings.lr,
            betas=(settings.momentum, 0.999),
            weight_decay=settings.weight_decay,
        )
    return SGD(
        model.parameters(),
        lr=settings.lr,
        momentum=settings.momentum,
        nesterov=settings.nesterov,
        weight_decay=settings.weight_decay,
    )


def _diverged(step: int, what: str) -> DivergenceError:
    return DivergenceError(
        step,
        f"training diverged: {what} at step {step}. The last checkpoint, from before, is kept, but "
        "going on from it would diverge again: start a new run with a lower --lr, with the scaled "
        "rates capped by --scale-cap, or with --warmup-steps.",
    )
