"""From a network's name to the network."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable
from dataclasses import dataclass

from torch import nn

from freezeout.lab.models.building_blocks import check_image_size
from freezeout.lab.models.custom import MODEL, build_custom
from freezeout.lab.models.densenet import DenseNet
from freezeout.lab.models.resnet import ResNet
from freezeout.lab.models.vgg import VGG
from freezeout.lab.models.wide_resnet import WideResNet

__all__ = ["available", "build", "check_name"]

# One spelling per network: a name ends up in file names and reports, so `resnet-020` is refused.
_NUMBER = "(0|[1-9][0-9]{0,3})"


@dataclass(frozen=True, kw_only=True)
class _Family:
    """One family: how its names look and what they build.

    Attributes:
        grammar: The form of a name, for people.
        example: A name of that form.
        forms: The form for machines, one per count of numbers; ``{}`` is a number.
        spellings: Words by which people call the family, the right one first.
        network: The class; takes the numbers of the name by position.
        sized: Whether the class wants ``image_size``.
    """

    grammar: str
    example: str
    forms: tuple[str, ...]
    spellings: tuple[str, ...]
    network: Callable[..., nn.Module]
    sized: bool

    def numbers(self, name: str) -> tuple[int, ...] | None:
        """Read the numbers out of ``name``, or None if it is of another form."""
        for form in self.forms:
            match = re.fullmatch(form.replace("{}", _NUMBER), name)
            if match:
                return tuple(int(number) for number in match.groups())
        return None


_FAMILIES = (
    _Family(
        grammar="densenet-<depth>-<growth>",
        example="densenet-76-12",
        forms=("densenet-{}-{}",),
        spellings=("densenet", "densenetbc"),
        network=DenseNet,
        sized=True,
    ),
    _Family(
        grammar="resnet-<depth>[-<base width>]",
        example="resnet-20",
        forms=("resnet-{}", "resnet-{}-{}"),
        spellings=("resnet",),
        network=ResNet,
        sized=False,
    ),
    _Family(
        grammar="vgg<depth>[-<base width>]",
        example="vgg16",
        forms=("vgg{}", "vgg{}-{}"),
        spellings=("vgg", "vggbn"),
        network=VGG,
        sized=True,
    ),
    _Family(
        grammar="wrn-<depth>-<widen>",
        example="wrn-40-4",
        forms=("wrn-{}-{}",),
        spellings=("wrn", "wideresnet"),
        network=WideResNet,
        sized=False,
    ),
)


def available() -> tuple[str, ...]:
    """Describe the names that :func:`build` knows, one line per family.

    Numbers in a name have one to four digits and no leading zero; what stands in brackets may be
    left out.

    Example:
        >>> available()[0]
        'densenet-<depth>-<growth>, such as densenet-76-12'
    """
    return tuple(f"{family.grammar}, such as {family.example}" for family in _FAMILIES)


def build(
    name: str,
    *,
    num_classes: int,
    in_channels: int = 3,
    image_size: tuple[int, int] | int = 32,
) -> nn.Module:
    """Make the network called ``name``, with fresh weights, in training mode.

    Weights are drawn from torch's global generator, so the same ``torch.manual_seed`` just before
    gives the same network.

    Args:
        name: Such as ``"densenet-76-12"``, ``"wrn-40-4"``, ``"vgg16"`` or ``"resnet-20-32"``; see
            :func:`available`. ``"module:function"`` names a custom function that returns the
            network; it is called with those of the other arguments that it takes by name.
        num_classes: Number of logits, at least 1.
        in_channels: Channels of an image, at least 1.
        image_size: (height, width) in pixels, or one number for both; at least 1. It decides which
            pools a small image has room for, and changes no parameter.

    Returns:
        A module from images (batch, ``in_channels``, height, width) to logits (batch,
        ``num_classes``).

    Raises:
        ValueError: If the name is unknown or a number, in it or beside it, is outside its range.
        TypeError: If an argument is of the wrong kind.
        RunError: If a custom function cannot be found or called, or returns something else.

    Example:
        >>> model = build("resnet-20", num_classes=10)
        >>> sum(parameter.numel() for parameter in model.parameters())
        269722
    """
    size = check_image_size(image_size)
    if isinstance(name, str) and MODEL.check(name):
        return build_custom(name, num_classes=num_classes, in_channels=in_channels, image_size=size)
    family, numbers = _parse(name)
    options: dict[str, object] = {"num_classes": num_classes, "in_channels": in_channels}
    if family.sized:
        options["image_size"] = size
    return family.network(*numbers, **options)


def check_name(name: str) -> None:
    """Raise unless ``name`` has a form that :func:`build` knows; nothing is made or imported.

    Raises:
        ValueError: If the name is unknown.
        TypeError: If it is no string.

    Example:
        >>> check_name("wrn-40-4")
        >>> check_name("mypackage.nets:make_net")
    """
    if not (isinstance(name, str) and MODEL.check(name)):
        _parse(name)


def _parse(name: str) -> tuple[_Family, tuple[int, ...]]:
    """Split a name into its family and its numbers."""
    if not isinstance(name, str):
        raise TypeError(f"name must be a string, got {name!r}. Give one such as 'resnet-20'.")
    for family in _FAMILIES:
        numbers = family.numbers(name)
        if numbers is not None:
            return family, numbers
    known = ", ".join(family.grammar for family in _FAMILIES)
    raise ValueError(f"unknown network {name!r}: the names are {known}. {_advice(name)}")


def _advice(name: str) -> str:
    """Say what to write instead of an unknown name."""
    before, dot, last = name.rpartition(".")
    if dot and before and last:
        return f"A custom network is named with a colon: '{before}:{last}'."
    words = "".join(re.findall("[a-z]+", name.lower()))
    spellings = {word: family for family in _FAMILIES for word in family.spellings}
    close = difflib.get_close_matches(words, spellings, n=1)
    if not close:
        return "Numbers have one to four digits; 'resnet-20' is a good start."
    family = spellings[close[0]]
    numbers = [digits.lstrip("0") or "0" for digits in re.findall("[0-9]+", name)]
    for form in family.forms:
        meant = form.format(*numbers) if form.count("{}") == len(numbers) else ""
        if family.numbers(meant):
            return f"Did you mean {meant!r}?"
    return f"Write it as {family.grammar}, such as {family.example!r}, with up to four digits each."
