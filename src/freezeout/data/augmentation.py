"""How training images are varied."""

from __future__ import annotations

from dataclasses import dataclass

from freezeout.data.names import canonical_name

__all__ = ["Augmentation", "default_augmentation"]


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
        if isinstance(self.padding, bool) or not isinstance(self.padding, int):
            raise TypeError(
                f"padding must be an integer, got {self.padding!r}. Give a number of pixels."
            )
        if self.padding < 0:
            raise ValueError(
                f"padding must be at least 0, got {self.padding}. It is the number of pixels "
                "added on every side; 0 does not crop."
            )
        if not isinstance(self.flip, bool):
            raise TypeError(f"flip must be True or False, got {self.flip!r}. Choose one.")


_DEFAULTS = {
    "digits": Augmentation(padding=1),  # a mirrored digit is another sign
    "fashion-mnist": Augmentation(padding=2, flip=True),
    "cifar10": Augmentation(padding=4, flip=True),
    "cifar100": Augmentation(padding=4, flip=True),
}


def default_augmentation(name: str) -> Augmentation:
    """Return the customary augmentation of a data set; for CIFAR it is the paper's.

    Args:
        name: A name that :func:`freezeout.data.load` knows. Data of your own are not varied.

    Raises:
        TypeError: If ``name`` is not a string.
        ValueError: If there is no such data set.

    Example:
        >>> default_augmentation("cifar10")
        Augmentation(padding=4, flip=True)

    Reference:
        Brock et al., "FreezeOut", 2017, section 3 (arXiv:1706.04983).
    """
    return _DEFAULTS.get(canonical_name(name), Augmentation())
