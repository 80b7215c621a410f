"""Compare tensors bit by bit, and sum their bits up."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

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

    Args:
        tensor: Any tensor.
    """
    ordinary = type(tensor) in (torch.Tensor, nn.Parameter) or hasattr(tensor, "_local_tensor")
    return (
        ordinary and tensor.layout is torch.strided and not (tensor.is_meta or tensor.is_quantized)
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
    """Return a number for each tensor that depends on every bit of it and on its place.

    It is a weighted sum of its integers, which one pass over the memory gives. A device is waited
    for once.

    Args:
        tensors: Of any kind but sparse.
    """
    return [int(value) for value in _to_host([_digest(local_part(t)) for t in tensors])]


def _digest(tensor: torch.Tensor) -> torch.Tensor:
    values = _integers(tensor)
    whole = values.numel() // _ROW * _ROW
    rows, rest = values[:whole].view(-1, _ROW), values[whole:]
    digest = _weighted(rest.to(torch.int64))
    if whole:
        digest = digest * 31 + _weighted(rows.sum(0, dtype=torch.int64))
        digest = digest * 31 + _weighted(rows.sum(1, dtype=torch.int64))
    return digest


def _weighted(values: torch.Tensor) -> torch.Tensor:
    weights = torch.arange(1, 2 * values.numel() + 1, 2, device=values.device)
    return (values * weights).sum()


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
