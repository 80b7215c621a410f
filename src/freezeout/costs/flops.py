"""Count floating-point operations with torch's counter; one multiply-add counts 2."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.utils.flop_counter import (
    FlopCounterMode,
    sdpa_backward_flop_count,
    sdpa_flop_count,
)

from freezeout.tensors import uncompiled

__all__ = ["counted_flops"]


@contextmanager
def counted_flops() -> Iterator[FlopCounterMode]:
    """Count operations while it is open; a compiled model runs as it is written."""
    attention = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
    backward = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward
    formulas = {attention: _attention_flops, backward: _attention_backward_flops}  # torch has none
    counting = FlopCounterMode(display=False, custom_mapping=formulas)
    with warnings.catch_warnings(), uncompiled(), counting as counter:
        warnings.filterwarnings("ignore", "Using `torch.compile.* when there are global hooks")
        yield counter


def _attention_flops(query: Any, key: Any, value: Any, *_: Any, **__: Any) -> int:
    return int(sdpa_flop_count(query, key, value))


def _attention_backward_flops(
    gradient: Any, query: Any, key: Any, value: Any, *_: Any, **__: Any
) -> int:
    return int(sdpa_backward_flop_count(gradient, query, key, value))
