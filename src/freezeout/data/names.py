"""The names of the data sets."""

from __future__ import annotations

from freezeout.data.own import check_own

__all__ = ["NAMES", "canonical_name"]

NAMES: tuple[str, ...] = ("digits", "fashion-mnist", "cifar10", "cifar100")


def canonical_name(name: str) -> str:
    """Return the name in :data:`NAMES` that ``name`` spells.

    Case, hyphens, underscores and spaces do not matter. ``"module:function"``, which names data of
    your own, stays as it is; nothing is imported.

    Raises:
        TypeError: If ``name`` is not a string.
        ValueError: If there is no such data set, or it has a colon and another form.

    Example:
        >>> canonical_name("CIFAR-10"), canonical_name("fashion_mnist")
        ('cifar10', 'fashion-mnist')
    """
    if not isinstance(name, str):
        raise TypeError(
            f"the data set must be a string, got {name!r}. Choose one of {', '.join(NAMES)}."
        )
    if check_own(name):
        return name
    known = {_bare(each): each for each in NAMES}
    if _bare(name) not in known:
        raise ValueError(
            f"the data set must be one of {', '.join(NAMES)}, got {name!r}. Case, hyphens and "
            "underscores do not matter; data of your own are named as in mypackage.data:load."
        )
    return known[_bare(name)]


def _bare(name: str) -> str:
    return name.lower().replace("-", "").replace("_", "").replace(" ", "")
