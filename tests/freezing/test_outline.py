"""The structure of outputs, and classes that read their mode."""

from __future__ import annotations

import functools
from collections import OrderedDict
from dataclasses import dataclass
from typing import Any, NamedTuple

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations

from freezeout.freezing.outline import Outlines, alike, is_of_torch, outline, reads_mode

T = torch.ones(2, 3)


class Pair(NamedTuple):
    x: Any
    y: Any


@dataclass
class Record:
    x: Any
    y: Any = None


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (T, torch.zeros(5, 1)),
        ((T, None), (T + 1, None)),
        ([T], [T, T, T]),
        ([], [T]),
        ({"a": [{"b": T}]}, {"a": []}),
        ([(T, [])], [(T, [T])]),
        (Pair(T, 1), Pair(T, 2)),
        (Record(T), Record(T + 1)),
    ],
)
def test_alike(one: Any, other: Any) -> None:
    assert alike(outline(one), outline(other))
    assert alike(outline(other), outline(one))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (T, (T,)),
        (T, T[0]),
        (T, T.half()),
        ((T, None), (T, T)),
        ((T, T), (T, T, T)),
        ([T], [T, None]),
        ({"a": T}, {"b": T}),
        ({"a": T}, OrderedDict(a=T)),
        (Pair(T, 1), (T, 1)),
        (Pair(T, 1), Pair(T, "1")),
        (Record(T), Record(T, T)),
        (None, T),
    ],
)
def test_not_alike(one: Any, other: Any) -> None:
    assert not alike(outline(one), outline(other))
    assert not alike(outline(other), outline(one))


def test_every_outline_that_was_seen_fits() -> None:
    outlines, module, other = Outlines(), nn.Linear(1, 1), nn.Linear(1, 1)
    outlines.note(module, T)
    outlines.note(module, (T, T))
    assert outlines.fits(module, outline(T))
    assert outlines.fits(module, outline((T, T)))
    assert not outlines.fits(module, outline((T, T, T)))
    assert outlines.has(module)
    assert not outlines.has(other)


def decorated(function: Any) -> Any:
    @functools.wraps(function)
    def around(*args: Any) -> Any:
        return function(*args)

    return around


class Reads(nn.Module):
    @decorated
    def forward(self, x: Any) -> Any:
        return [x for _ in range(2) if self.training]


class ByName(nn.Module):
    def forward(self, x: Any) -> Any:
        return self.helper(x)

    def helper(self, x: Any) -> Any:
        return x if getattr(self, "training", False) else None


class Inherits(Reads):
    pass


class Weighted(nn.Linear):
    def forward(self, x: Any) -> Any:
        return (x, x) if self.training else x


class Silent(nn.Sequential):
    def forward(self, x: Any) -> Any:
        return x


@pytest.mark.parametrize("kind", [Reads, ByName, Inherits])
def test_classes_that_read_their_mode(kind: type[nn.Module]) -> None:
    assert reads_mode(kind)


def test_a_class_that_is_parametrized_is_still_its_own() -> None:
    for made, own in ((nn.Linear(2, 2), False), (Weighted(2, 2), True)):
        assert is_of_torch(made) is not own
        parametrizations.weight_norm(made)
        assert is_of_torch(made) is not own
        assert reads_mode(type(made)) is own


@pytest.mark.parametrize("kind", [Silent, nn.Sequential, nn.Dropout, nn.Module])
def test_classes_that_do_not(kind: type[nn.Module]) -> None:
    assert not reads_mode(kind)


def test_sizes_count_where_asked() -> None:
    for one, other in [(T, T[:1]), ([T], [T, T[:1]]), (Record(T), Record(T[:, :1]))]:
        assert alike(outline(one), outline(other))
        assert not alike(outline(one, sizes=True), outline(other, sizes=True))
    assert alike(outline([T, T], sizes=True), outline([T + 1], sizes=True))
