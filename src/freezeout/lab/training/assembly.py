"""The parts of a training run, made from its settings: device, network, batches, optimizer."""

from __future__ import annotations

import torch
from torch import nn
from torch.optim import SGD, AdamW, Optimizer

from freezeout.errors import RunError
from freezeout.lab import models
from freezeout.lab.data import Augmentation, Dataset, TensorLoader, channel_statistics
from freezeout.lab.importing import is_custom
from freezeout.lab.training.custom import CustomNetwork
from freezeout.lab.training.processes import ALONE, Processes
from freezeout.lab.training.settings import Settings

__all__ = [
    "build_loaders",
    "build_model",
    "build_optimizer",
    "custom_network",
    "device_of",
    "pick_device",
]

_TEST_BATCH = 250


def pick_device(name: str) -> torch.device:
    """Return the device that a setting names.

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


def device_of(name: str, processes: Processes) -> torch.device:
    """Return the device of one of several processes: each takes a GPU of its own.

    Args:
        name: As for `pick_device`.
        processes: Who this process is among them.

    Raises:
        RunError: If there is no GPU for it, or one GPU is named for all.
    """
    if processes.size == 1:
        return pick_device(name)
    if name.startswith("cuda:"):
        raise RunError(
            f"device must be cuda or cpu for {processes.size} processes, got {name!r}: each "
            "process takes a GPU of its own. Give --device cuda."
        )
    device = pick_device(name)
    if device.type == "cuda":
        count = torch.cuda.device_count()
        if processes.local_rank >= count:
            raise RunError(
                f"process {processes.local_rank} of this machine has no GPU of its own: torch sees "
                f"{count}. Start at most {count} with --nproc-per-node, or give --device cpu."
            )
        device = torch.device("cuda", processes.local_rank)
        torch.cuda.set_device(device)
    return device


def custom_network(settings: Settings, dataset: Dataset) -> CustomNetwork | None:
    """Return what stands between the loop and a custom network; ``None`` for a built-in one."""
    custom = is_custom(settings.model)
    return CustomNetwork(settings.model, dataset.num_classes) if custom else None


def build_model(settings: Settings, dataset: Dataset) -> nn.Module:
    """Return the network of the settings for a data set, on the CPU.

    Raises:
        RunError: If it cannot be made, or does not fit the data.
    """
    try:
        return models.build(
            settings.model,
            num_classes=dataset.num_classes,
            in_channels=dataset.channels,
            image_size=dataset.image_size,
        )
    except (ValueError, TypeError) as error:
        raise RunError(str(error)) from error


def build_loaders(
    settings: Settings, dataset: Dataset, device: torch.device, processes: Processes = ALONE
) -> tuple[TensorLoader, TensorLoader]:
    """Return batches for training and for testing; of each batch the part of this process.

    Raises:
        RunError: If batches are too small, or settings and data do not fit together.
    """
    if settings.padding is None or settings.flip is None:
        raise ValueError("padding and flip must be resolved before training; see prepare().")
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
            part=processes.part,
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
    if min(*sizes, train.num_images) < processes.size:
        raise RunError(
            f"every training batch must hold at least an image for each of the {processes.size} "
            f"processes, got {min(*sizes, train.num_images)} in the smallest, with batch_size="
            f"{settings.batch_size} for {train.num_images} images. --batch-size counts the images "
            "of all processes: use larger batches, or fewer processes."
        )
    test = TensorLoader(
        dataset.test_images,
        dataset.test_labels,
        batch_size=_TEST_BATCH * processes.size,
        device=device,
        shuffle=False,
        channels_last=settings.channels_last,
        mean=mean,
        std=std,
        part=processes.part,
    )
    return train, test


def build_optimizer(settings: Settings, model: nn.Module) -> Optimizer:
    """Return the optimizer of the settings, for all parameters of a model."""
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
