"""A plain, fast training loop: model, task, optimizer and scheduler, one step at a time.

It knows how to step, test, save and restore itself. `task` has the data, the loss and the error;
folders, logs and signals are in `run`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from itertools import islice
from typing import Any, cast

import torch

from freezeout.errors import CheckpointError, DivergenceError, RunError
from freezeout.lab.data import Dataset
from freezeout.lab.training.assembly import build_model, build_optimizer, device_of
from freezeout.lab.training.clock import StepClock
from freezeout.lab.training.memory import MemoryMeter
from freezeout.lab.training.observer import EpochRecord
from freezeout.lab.training.processes import (
    ALONE,
    Processes,
    check_alike,
    draw_apart,
    random_states,
    restore_random,
    share_buffers,
    spread,
)
from freezeout.lab.training.saved_state import (
    check_clock,
    check_generators,
    check_history,
    check_position,
    check_tensors,
    sound_optimizer,
)
from freezeout.lab.training.settings import Settings
from freezeout.lab.training.task import Classification
from freezeout.reference import RateOnly
from freezeout.scheduler import FreezeOut
from freezeout.text import one_line

__all__ = ["Trainer"]


@dataclass
class _EpochSoFar:
    """Sums over the epoch under way."""

    loss: float = 0.0
    correct: int = 0
    images: int = 0


class Trainer:
    """Train one network on one data set with FreezeOut.

    Construction seeds torch's global generator, builds everything and takes no step. A custom
    network is cut into layers in the order of execution, for which it runs once.

    Several processes, each with its trainer, train one network: they share out every
    batch and add up their gradients, and all end a step with the same weights. What `state_dict`
    returns fits any number of processes.

    Args:
        settings: What to train and how; `padding` and `flip` must be resolved.
        dataset: The data.
        processes: Who this process is among those that train together. All of them must construct
            a trainer and call its methods alike.

    Attributes:
        task: The data, the loss and the error.
        model: The network.
        network: The same, as it is called in training: wrapped where processes train together.
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

    def __init__(self, settings: Settings, dataset: Dataset, processes: Processes = ALONE) -> None:
        self.settings = settings
        self.processes = processes
        self.device = device_of(settings.device, processes)
        torch.manual_seed(settings.seed)
        self.task = Classification(settings, dataset, self.device, processes)
        custom = self.task.custom
        model = build_model(settings, dataset)
        self.model = model.to(self.device) if custom is None else custom.move(model, self.device)
        if settings.channels_last:
            cast("Any", self.model).to(memory_format=torch.channels_last)  # missing from its types
        whole = settings.epochs * len(self.task.train_data)
        self.total_steps = whole if settings.steps is None else settings.steps
        self.epochs = -(-self.total_steps // len(self.task.train_data))
        layers = self.task.layers(self.model)
        self.optimizer = build_optimizer(settings, self.model)
        self.network = self.model
        if processes.size > 1:
            check_alike(self.model, settings.model, processes)
            self.network = spread(
                self.model,
                self.device,
                unused=bool(layers.idle) or custom is not None,
                same_bits=settings.deterministic,
            )
            draw_apart(settings.seed, processes)
        try:
            kind = FreezeOut if settings.freeze else RateOnly
            self.scheduler: FreezeOut | RateOnly = kind(
                self.optimizer,
                self.network,
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
        length = len(self.task.train_data)
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
        """Return the batches left in the epoch under way."""
        self.model.train()
        self.meter.start()
        left = max(0, self.epoch_steps - self.batch)
        return islice(self.task.train_data.epoch(self.epoch, self.batch), left)

    def take_step(self, images: torch.Tensor, labels: torch.Tensor) -> None:
        """Take one optimizer step; `read` collects its loss later, so that a GPU is not held up."""
        count = self.task.images_in(self.batch, labels)
        logits, loss = self.task.loss(self.network, images, labels, count)
        loss.backward()
        self.meter.note()
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.scheduler.step()
        self._unread.append((loss.detach(), self.task.correct(logits, labels), count))
        self.step += 1
        self.batch += 1

    def read(self, *wishes: bool) -> tuple[bool, ...]:
        """Add losses and accuracies of the latest steps to the sums of the epoch.

        Args:
            wishes: What this process wants, such as to stop. They travel with the losses, because
                every message between processes takes time.

        Returns:
            For each wish whether any process has it.

        Raises:
            DivergenceError: If a loss is not finite; it names the first such step.
        """
        if not self._unread:
            return self.processes.any(*wishes)
        values = torch.stack([torch.stack((loss, c.to(loss))) for loss, c, _ in self._unread])
        first = self.step - len(self._unread) + 1
        results, wanted = self._summed(values, wishes)
        for i, (loss, correct) in enumerate(results):
            if not math.isfinite(loss):
                raise _diverged(first + i, f"the loss became {loss}")
            size = self._unread[i][2]
            self._sums.loss += loss * size
            self._sums.correct += round(correct)
            self._sums.images += size
        self._unread.clear()
        return wanted

    def finish_epoch(self) -> EpochRecord:
        """Test where it is due, and close the epoch.

        Raises:
            DivergenceError: If the weights or the test loss are not finite.
        """
        self.read()
        memory = self._peak()  # before testing, which needs some of its own
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
            seconds=self.clock.total_since(self.epoch * len(self.task.train_data)),
            frozen=self.frozen,
            saved_seconds=self.clock.saved_seconds(),
            memory=memory,
        )
        self.history.append(record)
        self.epoch, self.batch, self._sums = number, 0, _EpochSoFar()
        return record

    def test(self) -> tuple[float, float]:
        """Return mean loss and error in percent on the test data, in evaluation mode."""
        self.model.eval()
        if self.processes.size > 1:
            share_buffers(self.model)
        loss, correct = self.task.test(self.model)
        self.model.train()
        count = self.task.test_data.num_images
        found = self.processes.gather((loss, correct))
        total, right = (sum(column) for column in zip(*found, strict=True))
        return total / count, 100.0 * (1.0 - right / count)

    def check_finite(self) -> None:
        """Raise `DivergenceError` if a weight or buffer is not finite."""
        tensors = [*self.model.parameters(), *self.model.buffers()]
        bad = torch.stack([(~torch.isfinite(t.detach())).any() for t in tensors])
        if bool(bad.any()):
            raise _diverged(self.step, "a weight became infinite or NaN")

    def state_dict(self) -> dict[str, Any]:
        """Return all that a bit-exact continuation needs: tensors and plain values.

        Raises:
            DivergenceError: If a loss, a weight or a buffer is not finite: not worth keeping.
        """
        self.read()
        self.check_finite()
        cuda = self.device.type == "cuda"
        several = {}
        if self.processes.size > 1:
            several["generators"] = random_states(self.device, self.processes)
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
            **several,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Put everything back to where `state_dict` was taken.

        After an error the trainer may hold a part of it, and must not train.

        Raises:
            CheckpointError: If it is of another network, other data or other settings.
        """
        try:
            self._check(state)
            optimizer = sound_optimizer(self.optimizer, state["optimizer"])
            self.scheduler.load_state_dict(state["scheduler"])  # freezes first, then loads
            self.model.load_state_dict(state["model"])
            self.optimizer.load_state_dict(optimizer)
            restore_random(
                _generators(state),
                self.device,
                self.processes,
                seed=self.settings.seed,
                step=state["step"],
            )
            self.clock.load_state_dict(state["clock"])
            self.step, self.epoch, self.batch = state["step"], state["epoch"], state["batch"]
            self.elapsed = state["elapsed"]
            self._sums = _EpochSoFar(**state["sums"])
            self._unread.clear()
            self.history = [EpochRecord(**record) for record in state["history"]]
        except CheckpointError as error:
            raise CheckpointError(f"the checkpoint does not fit: {one_line(error)}") from error
        except Exception as error:  # whatever a state made by hand leads to
            raise CheckpointError(
                "the checkpoint belongs to another network, other data or another version: "
                f"{one_line(error).rstrip(' .:')}. Resume it with the settings it was saved with."
            ) from error

    def _check(self, state: dict[str, Any]) -> None:
        """Raise `ValueError` where loading would take what no run of these settings has saved."""
        check_tensors(self.model.state_dict(), state["model"])
        length, step = len(self.task.train_data), state["step"]
        check_position(
            *(step, state["epoch"], state["batch"]),
            total_steps=self.total_steps,
            epochs=self.epochs,
            length=length,
        )
        check_history(state["history"], state["sums"], state["elapsed"], state["epoch"])
        check_clock(state["clock"], step, len(self.scheduler.layers))
        check_generators(_generators(state))
        scheduler = state["scheduler"]
        if scheduler["last_epoch"] != step or scheduler.get("turn") is not None:
            raise ValueError("its scheduler is at another step")

    def _summed(
        self, values: torch.Tensor, wishes: tuple[bool, ...]
    ) -> tuple[list[list[float]], tuple[bool, ...]]:
        """Return loss and correct images of each step over all processes, and what any wants."""
        if self.processes.size == 1:
            return values.tolist(), wishes
        if self.device.type == "cuda":
            self.processes.meet()  # where one is gone, that shows here; on the GPU it would hang
        rows = self.processes.gather([*values.flatten().tolist(), *wishes])
        added = [sum(column) for column in zip(*rows, strict=True)]  # in the order of ranks
        results = [added[2 * i : 2 * i + 2] for i in range(len(values))]
        return results, tuple(count > 0 for count in added[2 * len(values) :])

    def _peak(self) -> int:
        """Return the peak of memory of the process that needs most."""
        return int(max(row[0] for row in self.processes.gather([self.meter.peak()])))


def _generators(state: dict[str, Any]) -> Any:
    """Return the saved states of random generators, of each process."""
    return state.get("generators", [(state["generator"], state["device_generator"])])


def _diverged(step: int, what: str) -> DivergenceError:
    return DivergenceError(
        step,
        f"training diverged: {what} at step {step}. The last checkpoint, from before, is kept, but "
        "going on from it would diverge again: start a new run with a lower --lr, with the scaled "
        "rates capped by --scale-cap, or with --warmup-steps.",
    )
