"""Bits are compared and summed up as they are: every one counts, and nothing large is copied."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from freezeout.freezing.bits import digests, has_bits, same_bits


@pytest.mark.parametrize(
    "dtype",
    [
        torch.float32,
        torch.float64,
        torch.bfloat16,
        torch.float16,
        torch.int64,
        torch.int8,
        torch.bool,
        torch.complex64,
        torch.float8_e4m3fn,
    ],
)
@pytest.mark.parametrize("shape", [(), (3,), (70, 90), (0,)])
def test_one_bit_changes_the_digest(dtype: torch.dtype, shape: tuple[int, ...]) -> None:
    g = torch.Generator().manual_seed(0)
    tensor = torch.randn(shape, generator=g).to(dtype)
    twin = tensor.clone()
    assert digests([tensor, twin])[0] == digests([twin])[0]
    assert same_bits([(tensor, twin)]) == [True]
    for place in {0, tensor.numel() // 2, tensor.numel() - 1} if tensor.numel() else ():
        twin = tensor.clone()
        twin.reshape(-1).view(torch.uint8)[place * tensor.element_size()] ^= 1
        assert digests([tensor]) != digests([twin])
        assert same_bits([(tensor, twin)]) == [False]


def test_order_counts() -> None:
    rows = torch.randn(70, 90, generator=torch.Generator().manual_seed(0))
    assert digests([rows]) != digests([rows.flip(0)])
    assert digests([rows]) != digests([rows.flip(1)])
    assert digests([rows]) != digests([rows.t().contiguous()])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.int8])
def test_each_single_bit_of_a_large_tensor_counts(dtype: torch.dtype) -> None:
    g = torch.Generator().manual_seed(0)
    tensor = torch.randn(9000 * 8 // dtype.itemsize + 3, generator=g).to(dtype)
    octets, whole = tensor.view(torch.uint8), digests([tensor])
    for place in torch.randint(len(octets), (150,), generator=g).tolist():
        for bit in (1, 128):
            octets[place] ^= bit
            assert digests([tensor]) != whole
            octets[place] ^= bit
    assert digests([tensor]) == whole


def test_where_a_tensor_begins_does_not_count() -> None:
    values = torch.randn(101, generator=torch.Generator().manual_seed(0))
    for start in (1, 2):
        larger = torch.cat([torch.zeros(start), values])
        assert digests([larger[start:]]) == digests([values])
    assert digests([larger[::2]]) == digests([larger[::2].clone()])


class Copies(TorchDispatchMode):
    """Find what makes a large tensor: a copy or a conversion of another one."""

    made = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        taken = {a.data_ptr() for a in args if isinstance(a, torch.Tensor)}
        if isinstance(out, torch.Tensor) and out.data_ptr() not in taken:
            self.made = max(self.made, out.numel() * out.element_size())
        return out


@pytest.mark.parametrize("dtype", [torch.int8, torch.bfloat16, torch.float32])
@pytest.mark.parametrize("layout", ["rows", "channels last"])
def test_summing_up_copies_nothing_large(dtype: torch.dtype, layout: str) -> None:
    tensor = torch.ones(256, 64, 9, 9, dtype=dtype)
    if layout == "channels last":
        tensor = tensor.to(memory_format=torch.channels_last)
    with Copies() as copies:
        digests([tensor])
    assert copies.made < tensor.numel() * tensor.element_size() / 8


def test_signs_of_zero_and_nan_are_bits_too() -> None:
    zeros, nan = torch.zeros(2), torch.full((2,), float("nan"))
    assert digests([zeros]) != digests([-zeros])
    assert same_bits([(zeros, -zeros), (nan, nan.clone())]) == [False, True]


def test_tensors_without_readable_bits_are_left_out() -> None:
    assert has_bits(torch.zeros(1))
    assert has_bits(nn.Parameter(torch.zeros(1)))
    assert not has_bits(torch.zeros(1, device="meta"))
    assert not has_bits(torch.eye(2).to_sparse())
    assert not has_bits(torch.zeros(1).as_subclass(Subclass))


class Subclass(torch.Tensor):
    """Stand for tensors of other libraries, whose memory is their own affair."""
