"""Before a run: the settings filled in, and the data loaded and cut."""

from __future__ import annotations

import os
import zlib
from collections.abc import Sequence
from dataclasses import replace

import torch

from freezeout.errors import RunError
from freezeout.lab.data import Dataset, default_augmentation, hold_out, load, shrink
from freezeout.lab.importing import is_custom
from freezeout.lab.training.assembly import pick_device
from freezeout.lab.training.observer import Observer
from freezeout.lab.training.processes import Processes
from freezeout.lab.training.settings import Settings
from freezeout.lab.training.stretch import tell

__all__ = ["prepare", "ready", "resolve", "resolve_machine"]


def resolve_machine(settings: Settings, *, threads: int | None = None) -> Settings:
    """Return settings with `device`, `threads` and `data_dir` decided.

    Args:
        settings: What was asked for.
        threads: Threads where they do not say; by default torch's number.

    Raises:
        RunError: If the device is not there.
    """
    return replace(
        settings,
        device=str(pick_device(settings.device)),
        threads=settings.threads or threads or torch.get_num_threads(),
        data_dir=None if settings.data_dir is None else os.path.realpath(settings.data_dir),
    )


def resolve(settings: Settings) -> Settings:
    """Return settings as `resolve_machine`, and with the customary `padding` and `flip`."""
    customary = default_augmentation(settings.data)
    return replace(
        resolve_machine(settings),
        padding=customary.padding if settings.padding is None else settings.padding,
        flip=customary.flip if settings.flip is None else settings.flip,
    )


def prepare(settings: Settings, dataset: Dataset | None = None) -> tuple[Settings, Dataset]:
    """Load the data and fill in what depends on it or on the machine.

    Args:
        settings: What was asked for.
        dataset: The data, where it was prepared before for the same settings of data; it is then
            neither loaded nor cut again.

    Returns:
        The full settings (see `resolve`), and the data.

    Raises:
        DataError: If the data is missing or damaged.
        RunError: If settings and data do not fit together.
    """
    settings = resolve(settings)
    return settings, _data(settings) if dataset is None else dataset


def _data(settings: Settings) -> Dataset:
    dataset = load(settings.data, data_dir=settings.data_dir)
    try:
        if settings.holdout:
            dataset = hold_out(dataset, settings.holdout)
    except ValueError as error:
        raise RunError(str(error)) from error
    size = settings.train_size
    if size is not None:
        if size > len(dataset.train_images):
            raise RunError(
                f"train_size must be at most {len(dataset.train_images)}, the training images of "
                f"{dataset.name}, got {size}. Leave it out to use all."
            )
        dataset = replace(
            dataset,
            train_images=dataset.train_images[:size],
            train_labels=dataset.train_labels[:size],
        )
    try:
        return shrink(dataset, settings.shrink)  # last, when there is least left to do
    except ValueError as error:
        raise RunError(str(error)) from error


def ready(
    settings: Settings,
    dataset: Dataset | None,
    observers: Sequence[Observer],
    processes: Processes,
) -> tuple[Settings, Dataset]:
    """Call `prepare` in one process or several, which must come to the same."""
    if dataset is None:
        _announce(settings, observers)
    if processes.size == 1:
        return prepare(settings, dataset)
    settings, dataset = processes.in_turn(lambda: prepare(settings, dataset))
    if is_custom(settings.data):
        sums = processes.gather_objects(_check_sum(dataset))
        other = next((rank for rank, found in enumerate(sums) if found != sums[0]), None)
        if other is not None:
            raise RunError(
                f"{settings.data} gives other data in process {other} than in process 0. It must "
                "return the same at every call: seed what it draws, and sort what it lists."
            )
    return processes.from_main(lambda: settings), dataset


def _check_sum(dataset: Dataset) -> int:
    total = 0
    for name in ("train_images", "train_labels", "test_images", "test_labels"):
        total = zlib.crc32(getattr(dataset, name).contiguous().numpy(), total)
    return total


def _announce(settings: Settings, observers: Sequence[Observer]) -> None:
    """Say that data is read, because reading or fetching a large data set takes a while."""
    if settings.data != "digits":
        tell(observers, f"reading {settings.data} ...")
