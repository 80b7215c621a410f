"""Mean and standard deviation of images."""

from __future__ import annotations

import math

import torch

from freezeout.lab.data.dataset import check_images

__all__ = ["channel_statistics"]

_CHUNK = 4096  # images at a time


def channel_statistics(
    images: torch.Tensor,
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return the mean and standard deviation of every channel, exactly, without a float copy.

    Values are counted, then added up as whole numbers, so the result is the same on every machine
    and in every order.

    Args:
        images: uint8 tensor of shape (N, C, H, W).

    Returns:
        The means and the standard deviations (of the population, not of a sample) of the values
        divided by 255, so between 0 and 1; one of each for every channel.

    Raises:
        TypeError: If ``images`` is not a uint8 tensor.
        ValueError: If ``images`` has another shape or is empty.

    Example:
        >>> channel_statistics(torch.tensor([[[[0, 255]]]], dtype=torch.uint8))
        ((0.5,), (0.5,))
    """
    check_images(images, "images")
    pairs = [_statistics(_histogram(images[:, channel])) for channel in range(images.shape[1])]
    return tuple(mean for mean, _ in pairs), tuple(std for _, std in pairs)


def _histogram(plane: torch.Tensor) -> list[int]:
    counts = torch.zeros(256, dtype=torch.int64, device=plane.device)
    for start in range(0, len(plane), _CHUNK):
        counts += torch.bincount(plane[start : start + _CHUNK].reshape(-1), minlength=256)
    return [int(count) for count in counts.tolist()]


def _statistics(histogram: list[int]) -> tuple[float, float]:
    count = sum(histogram)
    total = sum(value * times for value, times in enumerate(histogram))
    squares = sum(value * value * times for value, times in enumerate(histogram))
    # In whole numbers nothing cancels: variance = (count * squares - total^2) / count^2.
    return total / (255 * count), math.sqrt(count * squares - total * total) / (255 * count)
