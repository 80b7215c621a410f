"""What a network is trained for: the batches, the loss on one, and what counts as an error."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from freezeout.lab.data import Dataset
from freezeout.lab.training.assembly import build_loaders, custom_network
from freezeout.lab.training.processes import Processes
from freezeout.lab.training.settings import Settings
from freezeout.layers import Layers, split_layers

__all__ = ["Classification"]


class Classification:
    """Tell the class of every image of a data set.

    Args:
        settings: What to train and how; `padding` and `flip` must be resolved.
        dataset: The data.
        device: Where the network runs.
        processes: Those that train together. Each works on its part of every batch.

    Attributes:
        train_data: Batches to learn from.
        test_data: Batches to test on.
        custom: What stands between the loop and a custom network; ``None`` for a built-in one.

    Raises:
        RunError: If batches are too small, or settings and data do not fit together.
    """

    def __init__(
        self, settings: Settings, dataset: Dataset, device: torch.device, processes: Processes
    ) -> None:
        self._settings = settings
        self._dataset = dataset
        self._device = device
        self._alone = processes.size == 1
        self.train_data, self.test_data = build_loaders(settings, dataset, device, processes)
        self.custom = custom_network(settings, dataset)

    def layers(self, model: nn.Module) -> Layers:
        """Return the layers: of a built-in network as defined, of a custom one as executed."""
        if self.custom is None:
            return split_layers(model)
        example = torch.zeros(
            2, self._dataset.channels, *self._dataset.image_size, device=self._device
        )
        if self._settings.channels_last:
            example = example.contiguous(memory_format=torch.channels_last)
        with self.autocast():
            return self.custom.cut(model, example)

    def images_in(self, batch: int, labels: torch.Tensor) -> int:
        """Return the number of images in a batch, in all processes; `labels` are of this one."""
        return len(labels) if self._alone else self.train_data.images_in(batch)

    def loss(
        self, network: nn.Module, images: torch.Tensor, labels: torch.Tensor, count: int
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the logits for a training batch, and the mean loss over its `count` images.

        Where several processes train together, the loss is this one's share in the mean.
        """
        with self.autocast():
            logits = self._logits(network, images)
            if self._alone:
                return logits, F.cross_entropy(logits, labels)
            return logits, F.cross_entropy(logits, labels, reduction="sum") / count

    def test(self, model: nn.Module) -> tuple[float, int]:
        """Return the summed loss and the correct images over this process's test batches."""
        loss = torch.zeros((), device=self._device, dtype=torch.float64)
        correct = torch.zeros((), device=self._device, dtype=torch.int64)
        with torch.no_grad():
            for images, labels in self.test_data.epoch(0):
                with self.autocast():
                    logits = self._logits(model, images)
                    loss += F.cross_entropy(logits, labels, reduction="sum")
                correct += self.correct(logits, labels)
        return float(loss), int(correct)

    def correct(self, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Return how many images of a batch have their highest logit at their label."""
        return (logits.detach().argmax(1) == labels).sum()

    def autocast(self) -> AbstractContextManager[Any]:
        """Return the context of a forward pass in the precision of the settings."""
        if self._settings.precision == "bf16":
            return torch.autocast(self._device.type, dtype=torch.bfloat16)
        return nullcontext()

    def _logits(self, network: nn.Module, images: torch.Tensor) -> torch.Tensor:
        if self.custom is not None:
            return self.custom.logits(network, images)
        logits: torch.Tensor = network(images)
        return logits
