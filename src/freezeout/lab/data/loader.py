"""Batches from a split that lies on the device as one tensor."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence

import torch
import torch.nn.functional as F

from freezeout.errors import check_whole
from freezeout.lab.data.augmentation import Augmentation
from freezeout.lab.data.dataset import check_images, check_labels
from freezeout.lab.data.statistics import channel_statistics

__all__ = ["TensorLoader"]


class TensorLoader:
    r"""Batches of normalised images, augmented on the device, the same in every run.

    The split is held on ``device`` as one uint8 tensor, padded once. A batch is one gather, one
    flip and one normalisation, $x' = (x/255 - \mu_c)/\sigma_c$, for all images at once: no worker
    processes, and no Python per image. Padding is black before normalisation.

    What happens to an image depends on the seed, the epoch and its index in the split alone: not
    on the batch size, its place in the order, the device, or how often an epoch was iterated. The
    random numbers are drawn on the CPU from separate generators; PyTorch's global one is neither
    read nor moved.

    The last batch may be smaller. When shuffling, a single image left over for the last batch is
    left out of that epoch, for BatchNorm cannot normalise a batch of one; the next epoch leaves
    out another. Without shuffling, as in evaluation, every image is kept.

    Args:
        images: uint8 tensor of shape (N, C, H, W). Not copied where it already lies on ``device``
            and is not padded.
        labels: int64 tensor of shape (N,).
        batch_size: Images a batch, at least 1. More than N makes one batch of N.
        device: Where the split is held and the batches are made.
        seed: Seed of order and augmentation, any integer.
        augmentation: How images are varied; ``None`` leaves them as they are.
        shuffle: Whether every epoch has another order; otherwise it is that of the split.
        channels_last: Whether batches are laid out in memory as (B, H, W, C).
        mean: Mean of every channel in [0, 1]. ``None`` measures mean and std of ``images``, which
            is right for training images only: give a test split those of the training split.
        std: Standard deviation of every channel, above 0. Given if and only if ``mean`` is.
        part: (k, n) yields of every batch only the k-th of n parts, counted from 0 and as equal as
            possible: all parts of a batch together are the batch. For training in n processes. A
            part is empty where a batch has fewer than n images.

    Raises:
        TypeError: If an argument is of another type.
        ValueError: If an argument is outside its range.

    Example:
        >>> images = torch.arange(6, dtype=torch.uint8).view(6, 1, 1, 1)
        >>> loader = TensorLoader(
        ...     images, torch.arange(6), batch_size=4, device="cpu", shuffle=False
        ... )
        >>> [y.tolist() for x, y in loader.epoch(0)]
        [[0, 1, 2, 3], [4, 5]]
    """

    def __init__(
        self,
        images: torch.Tensor,
        labels: torch.Tensor,
        *,
        batch_size: int,
        device: str | torch.device,
        seed: int = 0,
        augmentation: Augmentation | None = None,
        shuffle: bool = True,
        channels_last: bool = False,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        part: tuple[int, int] = (0, 1),
    ) -> None:
        check_images(images, "images")
        check_labels(labels, len(images), "labels")
        check_whole("batch_size", batch_size, "It counts the images of a step.", least=1)
        check_whole("seed", seed, "Give a whole number.", least=None)
        check_whole("part[1]", part[1], "It is the number of processes.", least=1)
        check_whole("part[0]", part[0], "It is the rank of this process.", most=part[1] - 1)
        self.augmentation = Augmentation() if augmentation is None else augmentation
        if not isinstance(self.augmentation, Augmentation):
            raise TypeError(
                f"augmentation must be an Augmentation or None, got {augmentation!r}. Give "
                "freezeout.lab.data.Augmentation(padding=..., flip=...)."
            )
        padding = self.augmentation.padding
        if padding >= min(images.shape[2:]):
            raise ValueError(
                f"padding must be smaller than the image, got {padding} for images of "
                f"{images.shape[2]}x{images.shape[3]}: some crops would be all black. Use less."
            )
        self.mean, self.std = _normalisation(images, mean, std)
        self.batch_size = batch_size
        self.device = torch.device(device)
        self.seed = seed
        self.shuffle = shuffle
        self.channels_last = channels_last
        self.part = part
        self._size = (images.shape[2], images.shape[3])
        images = images.to(self.device)
        self._images = F.pad(images, (padding,) * 4) if padding else images
        self._labels = labels.to(self.device)
        # (x/255 - mean)/std = x * scale + shift; worked out in double precision, per channel.
        scale = [1 / (255 * deviation) for deviation in self.std]
        shift = [-mean / deviation for mean, deviation in zip(self.mean, self.std, strict=True)]
        self._scale = torch.tensor(scale, device=self.device).view(-1, 1, 1)
        self._shift = torch.tensor(shift, device=self.device).view(-1, 1, 1)

    @property
    def num_images(self) -> int:
        """Return how many images an epoch yields: all, or all but a single one left over."""
        count = len(self._labels)
        lone = self.shuffle and count > self.batch_size and count % self.batch_size == 1
        return count - lone

    def __len__(self) -> int:
        """Return the number of batches in an epoch."""
        return -(-self.num_images // self.batch_size)

    def images_in(self, batch: int) -> int:
        """Return how many images a batch of an epoch has, in all its parts.

        Args:
            batch: Index of the batch, from 0 to ``len(self) - 1``.
        """
        return min(self.batch_size, self.num_images - batch * self.batch_size)

    def epoch(self, epoch: int, start: int = 0) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """Iterate over the batches of an epoch, from the beginning or from the middle.

        Args:
            epoch: Which epoch, counted from 0.
            start: Index of the first batch to yield, from 0 to ``len(self)``. The batches from
                there on are those of a full pass, so an interrupted epoch can be taken up again.

        Returns:
            An iterator over pairs: images, normalised, float32 of shape (B, C, H, W), and labels,
            int64 of shape (B,), both on the device. They are new tensors; changing them in place
            is safe.

        Raises:
            TypeError: If an argument is not an integer.
            ValueError: If an argument is outside its range.
        """
        check_whole("epoch", epoch, "Count epochs from 0.")
        check_whole("start", start, "It is the first batch to give.", most=len(self))
        return self._batches(epoch, start)

    def _batches(self, epoch: int, start: int) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        order = self._order(epoch)
        crops, flips = self._crops(epoch), self._flips(epoch)
        number, parts = self.part
        for begin in range(start * self.batch_size, self.num_images, self.batch_size):
            # A lone image left out would be a batch by itself, so it is in no slice.
            chosen = order[begin : begin + self.batch_size]
            if parts > 1:
                count = len(chosen)
                chosen = chosen[count * number // parts : count * (number + 1) // parts]
            pixels = self._images.index_select(0, chosen)
            if crops is not None or flips is not None:
                pixels = self._augment(
                    pixels,
                    None if crops is None else crops[chosen],
                    None if flips is None else flips[chosen],
                )
            yield self._normalise(pixels), self._labels[chosen]

    def _augment(
        self, padded: torch.Tensor, crops: torch.Tensor | None, flips: torch.Tensor | None
    ) -> torch.Tensor:
        """Crop and flip a batch in one gather; the work is in finding where each pixel is from."""
        height, width = self._size
        rows = torch.arange(height, device=self.device).view(1, -1, 1)
        columns = torch.arange(width, device=self.device).view(1, 1, -1)
        if flips is not None:
            columns = torch.where(flips.view(-1, 1, 1), width - 1 - columns, columns)
        if crops is not None:
            rows = rows + crops[:, 0].view(-1, 1, 1)
            columns = columns + crops[:, 1].view(-1, 1, 1)
        batch, channels = padded.shape[:2]
        source = (rows * padded.shape[3] + columns).view(batch, 1, -1)
        pixels = padded.flatten(2).gather(2, source.expand(-1, channels, -1))
        return pixels.view(batch, channels, height, width)

    def _normalise(self, pixels: torch.Tensor) -> torch.Tensor:
        values = pixels.to(torch.float32).mul_(self._scale).add_(self._shift)
        # Laid out last: on a CPU, arithmetic per channel is slow where channels lie innermost.
        return (
            values.contiguous(memory_format=torch.channels_last) if self.channels_last else values
        )

    def _order(self, epoch: int) -> torch.Tensor:
        count = len(self._labels)
        if not self.shuffle:
            return torch.arange(count, device=self.device)
        generator = _generator(self.seed, epoch, "order")
        return torch.randperm(count, generator=generator).to(self.device)

    # Row i belongs to sample i, and is drawn for all samples in every epoch, whoever uses it.
    def _crops(self, epoch: int) -> torch.Tensor | None:
        padding = self.augmentation.padding
        if not padding:
            return None
        generator = _generator(self.seed, epoch, "crop")
        size = (len(self._labels), 2)
        return torch.randint(2 * padding + 1, size, generator=generator).to(self.device)

    def _flips(self, epoch: int) -> torch.Tensor | None:
        if not self.augmentation.flip:
            return None
        generator = _generator(self.seed, epoch, "flip")
        draws = torch.randint(2, (len(self._labels),), generator=generator)
        return draws.to(self.device, torch.bool)


def _generator(seed: int, epoch: int, purpose: str) -> torch.Generator:
    """Return a separate generator for each purpose in each epoch.

    The three are hashed together: sums or products would give seed 0, epoch 1 the same numbers as
    seed 1, epoch 0, and generators with neighbouring seeds resemble each other.
    """
    digest = hashlib.blake2b(f"{purpose} {seed} {epoch}".encode(), digest_size=8).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest, "big"))


def _normalisation(
    images: torch.Tensor, mean: Sequence[float] | None, std: Sequence[float] | None
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    if (mean is None) != (std is None):
        raise ValueError(
            f"mean and std must be given together, got mean={mean!r} and std={std!r}. Give both, "
            "or neither to measure them."
        )
    if mean is None or std is None:
        mean, std = channel_statistics(images)
    channels = images.shape[1]
    for name, values in (("mean", mean), ("std", std)):
        if len(values) != channels:
            raise ValueError(
                f"{name} must have one value for each of the {channels} channels, got "
                f"{len(values)}. Use freezeout.lab.data.channel_statistics."
            )
    if not all(deviation > 0 for deviation in std):
        raise ValueError(
            f"std must be above 0 in every channel, got {tuple(std)}. A channel that never varies "
            "cannot be normalised: leave it out, or give mean and std yourself."
        )
    return tuple(float(value) for value in mean), tuple(float(value) for value in std)
