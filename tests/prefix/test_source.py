"""What a source serves is put into the form of the plain run."""

from __future__ import annotations

import pytest
import torch

from freezeout.prefix.nodes import Node
from freezeout.prefix.source import as_described


@pytest.mark.parametrize(
    "like",
    [
        torch.randn(4, 6),
        torch.randn(6, 4).t(),
        torch.randn(4, 3, 8, 8).contiguous(memory_format=torch.channels_last),
        torch.randn(4, 12)[:, ::2],
        torch.randn(5, 6)[1:],
        torch.randn(4, 1).expand(4, 6),
        torch.randn(1, 6, dtype=torch.float64).expand(4, 6),
        torch.randn(4, 6).bfloat16(),
        torch.randn(0, 6),
        torch.tensor(3.0),
        torch.arange(4),
    ],
    ids=lambda t: f"{tuple(t.shape)}-{t.stride()}-{t.storage_offset()}-{t.dtype}",
)
def test_type_strides_and_place_are_those_of_the_plain_run(like: torch.Tensor) -> None:
    node = Node("node", like)
    for given in (like.clone(), like.contiguous(), like.double().contiguous(), like):
        value = as_described(given, node)
        assert value is not None
        assert torch.equal(value, like)
        assert value.stride() == like.stride()
        assert (value.dtype, value.device) == (like.dtype, like.device)
        assert value.data_ptr() % 64 == like.data_ptr() % 64 or not like.numel()


def test_a_fitting_value_is_taken_as_it_is_and_another_shape_is_not_taken() -> None:
    value = torch.randn(4, 6)
    node = Node("node", value)
    assert as_described(value, node) is value
    assert as_described(torch.nn.Parameter(value), node) is not value
    assert as_described(value[:3], node) is None
    assert as_described(None, node) is None
