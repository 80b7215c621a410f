"""How training images are varied."""

from __future__ import annotations

from dataclasses import dataclass

from freezeout.errors import check_bool, check_whole

__all__ = ["Augmentation"]


@dataclass(frozen=True)
class Augmentation:
    """A random crop after padding with black, and a random left-right flip.

    Attributes:
        padding: Black pixels added on every side before a crop of the original size is drawn, at
            least 0. 0 does not crop.
        flip: Whether an image is flipped with probability one half.

    Raises:
        TypeError: If an attribute is of another type.
        ValueError: If ``padding`` is negative.

    Example:
        >>> Augmentation(padding=4, flip=True)
        Augmentation(padding=4, flip=True)
    """

    padding: int = 0
    flip: bool = False

    def __post_init__(self) -> None:
        hint = "It is the number of pixels added on every side; 0 does not crop."
        check_whole("padding", self.padding, hint)
        check_bool("flip", self.flip, "Choose one.")
