"""The network that a plan is made for: on data, or a custom one on an example."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch.optim import Optimizer

from freezeout.costs import Costs, device_name, measure_costs, measure_threads
from freezeout.errors import CostError, RunError
from freezeout.lab.cli.options import setting_words
from freezeout.lab.data import Dataset, DataShape, data_shape
from freezeout.lab.models import load_custom
from freezeout.lab.training import (
    Settings,
    Threads,
    Trainer,
    build_optimizer,
    chosen_threads,
    cost_differences,
    most_threads,
    on_machine,
    pick_device,
    pick_threads,
    resolve,
    run_costs,
)
from freezeout.layers import Layers, split_layers
from freezeout.planning import densenet_costs
from freezeout.schedule import Schedule
from freezeout.tensors import tensors_in
from freezeout.text import command

__all__ = ["Subject", "load_subject"]

Progress = Callable[[int, int], None]

_STEPS = 10_000
"""Length of a run without data where ``--steps`` does not say."""

_BATCHES = 8  # of stand-in images


class Subject(ABC):
    """A network, and the run that is planned for it.

    Attributes:
        title: Network, data and batch in a few words.
        total_steps: Length of the run.
        notes: What the costs leave out or are disturbed by.
    """

    def __init__(
        self, settings: Settings, title: str, total_steps: int, notes: Sequence[str] = ()
    ) -> None:
        self.settings = settings
        self.title = title
        self.total_steps = total_steps
        self.notes = list(notes)

    @property
    @abstractmethod
    def layers(self) -> Layers:
        """The network's layers."""

    def _pick_threads(self, pick: Callable[[], Threads]) -> None:
        """Decide on the number of threads where nobody has, and note it."""
        if self.settings.threads is None:
            chosen = pick()
            self.settings = replace(self.settings, threads=chosen.count)
            self.notes.extend(filter(None, [chosen.text]))

    @abstractmethod
    def measure(self, rounds: int, progress: Progress | None) -> Costs:
        """Measure a training step.

        Raises:
            FreezeOutError: If it cannot be measured.
        """

    @abstractmethod
    def differences(self, costs: Costs) -> list[str]:
        """Say in what the step differs from the one whose costs these are."""

    @abstractmethod
    def usage(self, plan_file: Path) -> str:
        """Say in one or more lines how to train as a plan says."""

    @abstractmethod
    def paper_costs(self, costs: Costs) -> Sequence[float]:
        """Return the costs of layers that the paper's formula takes."""

    def read_costs(self, path: Path) -> Costs:
        """Read costs measured before.

        Raises:
            CostError: If they are of another network, or the file cannot be read or holds none.
        """
        costs = Costs.load(path)
        if self.settings.threads is None and costs.device.startswith("CPU"):
            self.settings = replace(self.settings, threads=costs.threads)
        differences = self.differences(costs)
        if differences:
            raise CostError(
                f"{path} was measured with {'; '.join(differences)}. Give the settings it was "
                "measured with, or measure again without --costs."
            )
        return costs


def load_subject(settings: Settings, *, on_data: bool = True, shape: str | None = None) -> Subject:
    """Make the network of the settings.

    Args:
        settings: Network, data, batch, optimizer, machine.
        on_data: Whether it runs on images as those of the data; a custom network may also run on
            an example that its function gives or that is drawn for it.
        shape: Shape of one input in such an example, or ``None``.

    Raises:
        RunError: If it cannot be made.
    """
    return _OnData(settings) if on_data else _OnExample(settings, shape)


class _OnData(Subject):
    """A network in the step that ``freezeout train`` takes."""

    def __init__(self, settings: Settings) -> None:
        shape = _shape(settings)
        count = shape.train_images - settings.holdout
        if settings.train_size is not None:
            count = min(count, settings.train_size)
        if count < 2:
            raise RunError(
                f"holdout={settings.holdout} leaves {max(count, 0)} of {shape.train_images} "
                "training images. Hold fewer out."
            )
        batch = min(settings.batch_size, count)
        total = settings.steps or settings.epochs * -(-count // batch)
        measured = replace(
            resolve(settings),
            threads=settings.threads,
            batch_size=batch,
            # The step is measured, not the schedule.
            steps=total,
            t0=1.0,
            times=None,
            warmup_steps=0,
        )
        self._asked = settings
        self._size = shape.image_size[0]
        self._trainer = Trainer(measured, _stand_in(settings, shape, batch))
        super().__init__(
            measured,
            f"{settings.model} on {settings.data}, batch {batch}, {settings.precision}",
            total,
        )

    @property
    def layers(self) -> Layers:
        return self._trainer.scheduler.layers

    def measure(self, rounds: int, progress: Progress | None) -> Costs:
        self._pick_threads(lambda: pick_threads(self._trainer))
        with on_machine(self.settings):
            return run_costs(self._trainer, rounds=rounds, progress=progress)

    def differences(self, costs: Costs) -> list[str]:
        return cost_differences(costs, self._trainer, self.settings.threads)

    def usage(self, plan_file: Path) -> str:
        plans = {*Schedule().to_dict(), "steps", "epochs", "const_time"}
        words = setting_words(self._asked, leave_out=plans)
        return "  " + command("train", *words, "--plan", plan_file)

    def paper_costs(self, costs: Costs) -> Sequence[float]:
        found = re.fullmatch(r"densenet-?(?:bc-?)?(\d+)-(\d+)", self.settings.model.lower())
        if found:  # the one network for which the released code has costs
            return densenet_costs(int(found[1]), int(found[2]), image_size=self._size)
        return _forward_flops(costs)


class _OnExample(Subject):
    """A custom network on an example, with the loss and the optimizer of its function."""

    def __init__(self, settings: Settings, shape: str | None) -> None:
        self._custom = load_custom(
            settings.model,
            shape=shape,
            batch_size=settings.batch_size,
            device=pick_device(settings.device),
            seed=settings.seed,
        )
        # In the order of execution, as FreezeOut(..., example=...) has them.
        self._layers = split_layers(self._custom.model, example=self._custom.example)
        steps = settings.steps or _STEPS
        notes = ["loading batches is not in the costs"]
        if settings.steps is None:
            notes.append(f"a run of {steps:,} steps is assumed (--steps)")
        if self._custom.loss is None:
            notes.append("a stand-in takes the loss's place unless the model has its own")
        title = f"{settings.model}, batch {self._batch or 0}, {settings.precision}"
        super().__init__(settings, title, steps, notes)

    @property
    def _batch(self) -> int | None:
        """Number of inputs in the example, if it has a tensor that tells."""
        return next((t.shape[0] for t in tensors_in(self._custom.example) if t.ndim), None)

    def _optimizer(self) -> Optimizer:
        return self._custom.optimizer or build_optimizer(self.settings, self._custom.model)

    @property
    def layers(self) -> Layers:
        return self._layers

    def measure(self, rounds: int, progress: Progress | None) -> Costs:
        custom = self._custom
        autocast = torch.bfloat16 if self.settings.precision == "bf16" else None
        try:
            self._pick_threads(lambda: self._fastest(autocast))
            with on_machine(self.settings):
                return measure_costs(
                    custom.model,
                    custom.example,
                    loss=custom.loss,
                    optimizer=self._optimizer(),
                    layers=self._layers,
                    autocast=autocast,
                    rounds=rounds,
                    progress=progress,
                )
        except (ValueError, TypeError) as error:
            raise RunError(str(error)) from error

    def _fastest(self, autocast: torch.dtype | None) -> Threads:
        """Return the threads that a step is fastest with."""
        custom, most = self._custom, most_threads()
        if pick_device(self.settings.device).type != "cpu" or most == 1:
            return Threads(torch.get_num_threads())
        return chosen_threads(
            measure_threads(
                custom.model,
                self._layers,
                custom.example,
                most=most,
                loss=custom.loss,
                optimizer=self._optimizer(),
                autocast=autocast,
            )
        )

    def usage(self, plan_file: Path) -> str:
        return (
            f"  plan = freezeout.Plan.load({str(plan_file)!r})\n"
            "  scheduler = plan.scheduler(optimizer, model, example=batch)"
        )

    def paper_costs(self, costs: Costs) -> Sequence[float]:
        return _forward_flops(costs)

    def differences(self, costs: Costs) -> list[str]:
        settings = self.settings
        dtype = str(next(self._custom.model.parameters()).dtype).removeprefix("torch.")
        return costs.differences(
            self._layers,
            batch_size=self._batch,
            precision="bfloat16" if settings.precision == "bf16" else dtype,
            optimizer=type(self._optimizer()).__name__,
            device=device_name(pick_device(settings.device), settings.threads),
        )


def _forward_flops(costs: Costs) -> list[float]:
    return [float(layer.forward_flops) for layer in costs.layers]


def _shape(settings: Settings) -> DataShape:
    """Return what the images of a run look like; only custom data are loaded for it."""
    shape = data_shape(settings.data)
    height, width = (side // settings.shrink for side in shape.image_size)
    if not min(height, width):
        raise RunError(
            f"shrink={settings.shrink} leaves nothing of images of {shape.image_size[0]}x"
            f"{shape.image_size[1]}. Shrink them less."
        )
    return replace(shape, image_size=(height, width))


def _stand_in(settings: Settings, shape: DataShape, batch: int) -> Dataset:
    """Draw images of a shape for a few batches; costs do not depend on pixels."""
    generator = torch.Generator().manual_seed(settings.seed)
    count = batch * _BATCHES
    size = (count, shape.channels, *shape.image_size)
    images = torch.randint(0, 256, size, dtype=torch.uint8, generator=generator)
    labels = torch.randint(0, shape.num_classes, (count,), generator=generator)
    classes = tuple(str(i) for i in range(shape.num_classes))
    return Dataset(settings.data, images, labels, images[:2], labels[:2], classes)
