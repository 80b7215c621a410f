"""Expressions: what has the same hash, and what must not."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn

from freezeout.prefix import Capture
from tests.layers.test_networks import NETWORKS
from tests.prefix.dictionary import Dictionary
from tests.prefix.small import Small, batch, model, small_twins, split
from tests.prefix.steps import network

Forward = Callable[[Small, torch.Tensor], torch.Tensor]


def expressions(forward: Forward, rows: int = 4) -> list[str]:
    """Those of the boundary, in order."""
    both = small_twins(forward)
    for _ in range(2):
        both.captured(batch(1, rows))
    assert both.capture.last is not None
    found = [node.expression for node in both.capture.last.boundary]
    both.close()
    return found


def between(change: Callable[[torch.Tensor], torch.Tensor]) -> Forward:
    return lambda m, x: m.c(m.b(change(m.a(x))))


DIFFERENT = [
    lambda h: h,
    lambda h: h * 1,
    lambda h: h * 1.0,
    lambda h: h * True,
    lambda h: h * 0.0,
    lambda h: h * -0.0,
    lambda h: h + 1,
    lambda h: h.mul_(1),
    lambda h: h.T.contiguous().T,
    lambda h: h.mT.contiguous().mT,
    lambda h: h.softmax(0),
    lambda h: h.softmax(1),
    lambda h: h.view(-1, 6),
    lambda h: h.view((-1, 6)),
    lambda h: h.flip([0]),
    lambda h: h + torch.ones(6),
    lambda h: h + torch.ones(1),
    lambda h: h.to(torch.float64).float(),
    lambda h: h.to(torch.bfloat16).float(),
]


def test_different_expressions_have_different_hashes() -> None:
    found = [expressions(between(change))[0] for change in DIFFERENT]
    assert len({*found}) == len(found)


def test_equal_expressions_have_equal_hashes_in_other_models() -> None:
    for change in DIFFERENT:
        assert expressions(between(change)) == expressions(between(change))


@pytest.mark.parametrize(
    ("change", "same"),
    [
        (lambda h: h, True),
        (lambda h: h.view(len(h), 2, 3).reshape(len(h), -1), True),
        (lambda h: h + torch.zeros(1, 6).expand(len(h), -1), True),
        (lambda h: h + h.new_ones(len(h), 6), True),
        (lambda h: h + torch.zeros((len(h), 6)), True),
        (lambda h: h * len(h), False),
        (lambda h: h + torch.arange(len(h))[:, None], False),
        (lambda h: h / h.shape[0], False),
    ],
)
def test_a_hash_leaves_the_batch_size_out_where_it_is_the_number_of_rows(
    change: Callable[[torch.Tensor], torch.Tensor], same: bool
) -> None:
    assert (expressions(between(change), 4) == expressions(between(change), 3)) == same


@pytest.mark.parametrize("name", ["resnet", "vit", "vit-timm", "swin"])
def test_smaller_batches_of_real_networks_have_the_same_boundary(name: str) -> None:
    depth = 2
    both = network(name, depth)
    found = []
    for rows in (4, 3):
        for _ in range(2):
            both.captured(NETWORKS[name].batch(1)[:rows])
        assert both.capture.last is not None
        found.append([n.expression for n in both.capture.last.boundary if n.uses_layers])
    both.close()
    if name != "swin":  # which folds windows into rows: batch times a number
        assert found[0] == found[1]


def test_modes_and_moved_weights_are_in_a_hash() -> None:
    forward = between(lambda h: h)
    both = small_twins(forward, Dictionary())

    def now() -> str:
        for _ in range(2):
            both.captured(batch(1))
        assert both.capture.last is not None
        return both.capture.last.boundary[0].expression

    first = now()
    assert now() == first
    with torch.no_grad():
        both.captured.a.weight.mul_(2)
    assert now() != first


def test_a_deep_expression_is_hashed_without_recursion() -> None:
    def forward(m: Small, x: torch.Tensor) -> torch.Tensor:
        h = m.a(x)
        for _ in range(3000):
            h = h + 1
        return m.c(m.b(h))

    assert len(expressions(forward)[0]) == 32


def test_an_expression_does_not_depend_on_the_boundary() -> None:
    both = small_twins(between(lambda h: h * 2), depth=1)
    seen: list[dict[str, str]] = []

    class Asked(Dictionary):
        def get(self, node):  # type: ignore[no-untyped-def]
            seen[-1][node.name] = node.expression
            return

    both.capture.source = Asked()
    for depth in (1, 2):
        both.set_depth(depth)
        seen.append({})
        for _ in range(2):
            both.captured(batch(1))
    assert seen[0]["mul"] == seen[1]["mul"]
    assert "b" not in seen[0]
    assert seen[1]["b"]


def test_depth_must_leave_the_last_layer_out() -> None:
    net: nn.Module = model(between(lambda h: h))
    layers = split(net)
    with pytest.raises(ValueError, match="depth must"):
        Capture(net, layers, 3)
    with pytest.raises(TypeError, match="depth must"):
        Capture(net, layers, 1.5)  # type: ignore[arg-type]
    assert not net._forward_hooks
