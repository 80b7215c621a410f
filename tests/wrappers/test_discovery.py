"""A search finds what a look at every object finds, whatever the garbage collector did since."""

from __future__ import annotations

import gc
import random
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from torch import nn
from torch.optim import SGD, Optimizer

from freezeout.wrappers import instances_of
from freezeout.wrappers.discovery import _Search


class Thing:
    """What is searched for; equal to any other, as some optimizers are."""

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Thing)

    __hash__ = None  # type: ignore[assignment]


class Special(Thing):
    """A subclass."""


EVENTS: dict[str, Callable[[list[Thing]], Any]] = {
    "made": lambda kept: kept.append(Thing()),
    "dropped": lambda kept: kept.pop(0) if kept else None,
    "young collected": lambda kept: gc.collect(0),
    "middle collected": lambda kept: gc.collect(1),
    "frozen": lambda kept: gc.freeze(),
    "unfrozen": lambda kept: gc.unfreeze(),
}


@pytest.fixture(autouse=True)
def _collector_is_quiet() -> Iterator[None]:
    gc.collect()
    gc.disable()
    yield
    gc.unfreeze()
    gc.enable()


def whole_searches(monkeypatch: pytest.MonkeyPatch) -> list[None]:
    """Return a list that gets an entry for each look at every object."""
    found: list[None] = []
    plain = gc.get_objects

    def get_objects(generation: int | None = None) -> list[Any]:
        if generation is None:
            found.append(None)
        return plain(generation=generation)

    monkeypatch.setattr(gc, "get_objects", get_objects)
    return found


def check(search: _Search, kept: list[Thing]) -> None:
    assert {id(o) for o in search.instances_of(Thing)} == set(map(id, kept))


def test_nothing_is_missed_whatever_happens_between_two_searches() -> None:
    search, kept = _Search(), [Thing(), Special()]
    order = random.Random(1)
    for _ in range(60):
        for name in order.choices(list(EVENTS), k=order.randint(0, 3)):
            EVENTS[name](kept)
        check(search, kept)


@pytest.mark.parametrize("listed", [None, 1, 0])
@pytest.mark.parametrize("collected", [0, 1])
def test_the_collector_may_run_in_the_middle_of_a_search(
    collected: int, listed: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Just before or after objects of some age are listed, they become older than they were."""
    plain = gc.get_objects

    def get_objects(generation: int | None = None) -> list[Any]:
        if generation == listed:
            gc.collect(collected)
        found = plain(generation=generation)
        if generation == listed:
            gc.collect(collected)
        return found

    for between in ("nothing", "mark is older", "all are older"):
        search, kept = _Search(), [Thing()]
        check(search, kept)
        if between == "mark is older":
            gc.collect(0)
        kept.append(Special())
        if between == "all are older":
            gc.collect(0)
        with monkeypatch.context() as patch:
            patch.setattr(gc, "get_objects", get_objects)
            check(search, kept)
            kept.append(Special())
            check(search, kept)
        kept.append(Thing())
        check(search, kept)


def test_every_object_is_looked_at_once_only_while_the_rest_is_young(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    search, kept = _Search(Thing, nn.Module), [Thing()]
    looks = whole_searches(monkeypatch)
    check(search, kept)
    assert len(looks) == 1
    for collected in (0, 0, 0):
        kept.append(Thing())
        model = nn.Linear(1, 1)
        check(search, kept)
        assert any(found is model for found in search.instances_of(nn.Module))
        gc.collect(collected)
    assert len(looks) == 1
    gc.collect(1)  # now what was made since is among the old
    kept.append(Thing())
    check(search, kept)
    check(search, kept)
    assert len(looks) == 2
    optimizer = SGD(model.parameters(), lr=0.1)
    assert optimizer in search.instances_of(Optimizer)  # another kind than those so far
    assert len(looks) == 3
    assert optimizer in search.instances_of(SGD)
    assert len(looks) == 4


def test_classes_of_later_and_leftovers_in_circles_are_found() -> None:
    optimizers = instances_of(Optimizer)
    kind = type("Later", (SGD,), {})
    left = kind(nn.Linear(1, 1).parameters(), lr=0.1)
    left.myself = left
    found = [id(o) for o in instances_of(Optimizer) if type(o) is kind]
    assert found == [id(left)]
    assert instances_of(kind) == [left]
    del left
    assert len(instances_of(kind)) == 1
    gc.collect()
    assert instances_of(kind) == []
    assert {id(o) for o in optimizers} >= {id(o) for o in instances_of(Optimizer)}
