"""Optimizers of others: their steps are seen without a search, and leftovers do not count."""

from __future__ import annotations

import gc
from typing import Any

import pytest
from torch import nn
from torch.optim import SGD, Adam, Optimizer
from torch.optim import optimizer as torch_optimizer

from freezeout.freezing import others as others_module
from freezeout.freezing.others import Others
from tests.freezing.optimizers import Lookahead, loss_of, make_net
from tests.freezing.test_holders import ByValue, ByValueWithHash, Handmade


def step(model: nn.Module, optimizer: Any) -> None:
    loss_of(model, 0).backward()
    optimizer.step()


def watching() -> Others:
    others = Others()
    others.watch()
    return others


@pytest.mark.parametrize("kind", [SGD, Adam, ByValue, ByValueWithHash])
def test_what_steps_is_known_and_what_lies_around_is_not(kind: type[Optimizer]) -> None:
    model = make_net()
    make: Any = kind
    early, idle, busy = (make(model.parameters(), lr=0.1) for _ in range(3))
    step(model, early)
    others = Others()
    step(model, early)
    others.watch()
    assert others.stepping([]) == []
    step(model, busy)
    [found] = others.stepping([])
    assert found is busy
    assert others.stepping([busy]) == []
    first = others.alive([early, idle, busy])
    assert [id(o) for o in first] == [id(early), id(idle), id(busy)]  # what is new counts
    [left] = others.alive([early, idle, busy])
    assert left is busy
    step(model, idle)
    again = others.alive([early, idle, busy])
    assert [id(o) for o in again] == [id(idle), id(busy)]


def test_each_remembers_from_its_own_beginning() -> None:
    model = make_net()
    optimizer = SGD(model.parameters(), lr=0.1)
    before = watching()
    step(model, optimizer)
    after = watching()
    assert before.stepping([]) == [optimizer]
    assert after.stepping([]) == []
    step(model, optimizer)
    assert after.stepping([]) == [optimizer]


class Around(Optimizer):
    """Wrap an optimizer, and be made as one."""

    def __init__(self, inner: Optimizer) -> None:
        super().__init__(inner.param_groups, {})
        self.optimizer = inner

    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        self.optimizer.step()


@pytest.mark.parametrize("kind", [Lookahead, Around])
def test_a_step_of_a_wrapper_is_one_of_what_is_inside(kind: Any) -> None:
    model = make_net()
    inner = SGD(model.parameters(), lr=0.1)
    outer = kind(inner)
    others = watching()
    step(model, outer)
    assert others.stepping([]) == [inner]
    assert others.stepping([inner]) == []


def test_steps_that_cannot_be_seen_count_as_done() -> None:
    others = watching()
    optimizer = Handmade(make_net().parameters())
    assert others.alive([optimizer]) == others.alive([optimizer]) == [optimizer]


def test_what_is_gone_is_not_mixed_up_with_what_takes_its_place() -> None:
    """Python gives the place of an object, which is its ``id``, to another one."""
    model = make_net()
    gone, new = (SGD(model.parameters(), lr=0.1) for _ in range(2))
    others = watching()
    step(model, gone)
    others.alive([gone])
    for seen in (others._stepped, others._found):
        seen[id(new)] = seen.pop(id(gone))
    del gone
    gc.collect()
    assert others.alive([new]) == [new]
    assert others.alive([new]) == []
    assert others.stepping([]) == []
    step(model, new)
    assert others.stepping([]) == [new]


def test_nothing_is_kept_alive_and_hooks_go_when_the_next_one_comes() -> None:
    hooks: Any = torch_optimizer._global_optimizer_post_hooks
    others = watching()
    _, handle = others_module._HANDLES[-1]
    others.watch()  # does nothing
    assert others_module._HANDLES[-1][1] is handle
    model = make_net()
    optimizer = SGD(model.parameters(), lr=0.1)
    step(model, optimizer)
    del optimizer
    gc.collect()
    assert others.stepping([]) == []
    one_more = watching()
    assert handle.id in hooks
    del others
    assert handle.id in hooks  # PyTorch may be going through them
    last = watching()
    assert handle.id not in hooks
    assert all(known[1].id in hooks for known in others_module._HANDLES)
    assert one_more.stepping([]) == last.stepping([]) == []
