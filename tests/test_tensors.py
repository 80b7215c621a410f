"""The tensors in what a model takes and gives, and how it is called."""

from collections import OrderedDict
from dataclasses import dataclass
from typing import NamedTuple

import pytest
import torch

from freezeout.tensors import (
    call_arguments,
    called_from,
    held_bytes,
    is_out_of_memory,
    tensor_bytes,
    tensors_in,
    uncompiled,
)


@dataclass
class Output:
    logits: torch.Tensor
    name: str
    states: list[torch.Tensor]


class Pair(NamedTuple):
    a: torch.Tensor
    b: object


def test_tensors_are_found_in_order_within_containers():
    t = [torch.full((1,), float(i)) for i in range(5)]
    value = OrderedDict(x=Output(t[0], "x", [t[1]]), y=Pair(t[2], (t[3], None, 3)), z=t[4])
    assert [found.item() for found in tensors_in(value)] == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("value", [None, 3, "text", {1, 2}, Output, object()])
def test_nothing_is_found_where_no_tensor_is(value):
    assert list(tensors_in(value)) == []


def test_a_view_keeps_its_whole_storage():
    whole = torch.zeros(10, dtype=torch.float64)
    view = whole[2:4]
    assert tensor_bytes(view) == 16
    assert held_bytes(view) == held_bytes(whole) == tensor_bytes(whole) == 80


def test_a_sparse_tensor_holds_its_indices_and_values():
    sparse = torch.sparse_coo_tensor([[0, 5]], [1.0, 2.0], (100,), check_invariants=True)
    assert held_bytes(sparse) == 2 * 8 + 2 * 4


def test_memory_that_ran_out_is_told_from_other_errors():
    assert is_out_of_memory(MemoryError())
    assert is_out_of_memory(torch.OutOfMemoryError("CUDA out of memory."))
    assert is_out_of_memory(RuntimeError("DefaultCPUAllocator: can't allocate memory"))
    assert not is_out_of_memory(RuntimeError("shapes do not match"))
    assert not is_out_of_memory(ValueError("out of memory"))


def test_an_example_is_one_argument_or_several():
    x, y = torch.zeros(1), torch.ones(1)
    assert call_arguments(x) == ((x,), {})
    assert call_arguments((x, y)) == ((x, y), {})
    assert call_arguments([x, y]) == ((x, y), {})
    given = {"x": x}
    arguments, named = call_arguments(given)
    assert (arguments, named) == ((), given)
    assert named is not given


def test_callers_are_known_by_their_code():
    def inner(code):
        return called_from(code)

    def outer(code):
        return inner(code)

    def other():
        pass

    assert outer(outer.__code__)
    assert outer(inner.__code__)
    assert not outer(other.__code__)
    assert not inner(outer.__code__)


def test_compiled_modules_run_as_written():
    traced = []

    def counting(graph, inputs):
        traced.append(graph)
        return graph.forward

    double = torch.compile(lambda x: 2 * x, backend=counting)
    x = torch.ones(2)
    with uncompiled():
        assert double(x).tolist() == [2.0, 2.0]
    assert traced == []
    assert double(x).tolist() == [2.0, 2.0]
    assert len(traced) == 1
