"""Compare tensors bit by bit, and sum their bits up."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn
from torch.nn.parameter import is_lazy

__all__ = ["can_read", "digests", "has_bits", "local_part", "same_bits"]

_ROW = 4096
_INTEGERS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


def can_read() -> bool:
    """Return whether values can be read now: not while a step is compiled or captured."""
    if torch.compiler.is_compiling():
        return False
    return not (torch.cuda.is_initialized() and torch.cuda.is_current_stream_capturing())


def has_bits(tensor: torch.Tensor) -> bool:
    """Return whether the bits of a tensor can be read here: it is dense and of an ordinary kind.

    A subclass of a parameter is ordinary, too, as long as PyTorch's operators see a plain tensor.

    Args:
        tensor: Any tensor.
    """
    ordinary = _is_plain(type(tensor)) or hasattr(tensor, "_local_tensor")
    return (
        ordinary
        and tensor.layout is torch.strided
        and not (tensor.is_meta or tensor.is_quantized or is_lazy(tensor))
    )


def _is_plain(kind: type[torch.Tensor]) -> bool:
    if kind in (torch.Tensor, nn.Parameter):
        return True
    return (
        issubclass(kind, nn.Parameter)
        and kind.__torch_dispatch__ is torch.Tensor.__torch_dispatch__
        and kind.__torch_function__ is nn.Parameter.__torch_function__
    )


def local_part(tensor: torch.Tensor) -> torch.Tensor:
    """Return what this process holds of a tensor: all of it, unless it is a ``DTensor``."""
    part = getattr(tensor, "_local_tensor", None)
    return (part if isinstance(part, torch.Tensor) else tensor).detach()


def same_bits(pairs: Sequence[tuple[torch.Tensor, torch.Tensor]]) -> list[bool]:
    """Return for each pair of tensors of one kind whether all bits are equal.

    Zeros of either sign differ, and a NaN equals itself. A device is waited for once.

    Args:
        pairs: Tensors of the same shape, type and device.
    """
    found = [
        (_integers(a) == _integers(b)).all() if a.numel() else torch.ones((), dtype=torch.bool)
        for a, b in ((local_part(a), local_part(b)) for a, b in pairs)
    ]
    return [bool(value) for value in _to_host(found)]


def digests(tensors: Sequence[torch.Tensor]) -> list[int]:
    """Return a number for each tensor that depends on every bit of it, in the order of its memory.

    It is a weighted sum of the words of its memory, which are read as they are: a dense tensor is
    not copied. Any change of a single element shows. A device is waited for once.

    Args:
        tensors: Of any kind but sparse.
    """
    words = [_words(local_part(tensor)) for tensor in tensors]
    longest: dict[torch.device, int] = {}
    for whole, _ in words:
        longest[whole.device] = max(longest.get(whole.device, 0), len(whole) // _ROW)
    weights = {device: _weights(max(rows, _ROW), device) for device, rows in longest.items()}
    return [int(v) for v in _to_host([_digest(*each, weights[each[0].device]) for each in words])]


def _digest(words: torch.Tensor, tail: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """Sum up words so that each has an odd weight: then any change of a single one shows."""
    whole = len(words) // _ROW * _ROW
    rows, rest = words[:whole].view(-1, _ROW), words[whole:]
    digest = (rest * weights[: len(rest)]).sum()
    if whole:
        digest = digest * 31 + (rows.sum(0) * weights[:_ROW]).sum()
        digest = digest + 2 * (rows.sum(1) * weights[: len(rows)]).sum()
    if len(tail):
        places = torch.arange(0, 8 * len(tail), 8, device=tail.device)
        digest = digest * 31 + (tail.to(torch.int64) << places).sum()
    return digest


def _weights(count: int, device: torch.device) -> torch.Tensor:
    """Return odd numbers that look random, so that regular changes do not cancel out."""
    numbers = torch.arange(1, count + 1, device=device) * -0x61C8864680B583EB  # the golden ratio
    return (numbers ^ (numbers >> 29)) | 1


def _words(tensor: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the memory of a tensor in words of eight bytes, and the bytes that are left."""
    flat = _flat(tensor)
    if flat.data_ptr() % 8 or flat.storage_offset() * flat.element_size() % 8:
        flat = flat.clone()  # inside a larger one, where no word begins
    octets = flat.view(torch.uint8)
    whole = len(octets) // 8 * 8
    return octets[:whole].view(torch.int64), octets[whole:]


def _flat(tensor: torch.Tensor) -> torch.Tensor:
    """Return the elements of a tensor in one row, in the order of its memory."""
    if tensor.is_complex():
        tensor = torch.view_as_real(tensor.resolve_conj())
    tensor = tensor.resolve_neg()
    order = sorted(range(tensor.dim()), key=tensor.stride, reverse=True)
    return tensor.permute(order).contiguous().reshape(-1)


def _integers(tensor: torch.Tensor) -> torch.Tensor:
    """Return the memory of a tensor as one row of whole numbers, in the order of its elements."""
    if tensor.is_complex():
        tensor = torch.view_as_real(tensor.resolve_conj())
    flat = tensor.contiguous().reshape(-1)
    return flat.view(_INTEGERS.get(flat.element_size(), torch.uint8))


def _to_host(values: Sequence[torch.Tensor]) -> list[int]:
    """Fetch single numbers, one copy for each device."""
    by_device: dict[torch.device, list[int]] = {}
    for i, value in enumerate(values):
        by_device.setdefault(value.device, []).append(i)
    found = [0] * len(values)
    for places in by_device.values():
        fetched = torch.stack([values[i] for i in places]).tolist()
        for i, value in zip(places, fetched, strict=True):
            found[i] = value
    return found
