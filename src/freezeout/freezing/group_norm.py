"""Keep the backward pass of GroupNorm on a CPU from ending the process.

PyTorch's kernel for channels-last inputs writes the gradient for the input also where nobody needs
it, into memory that is not there. Nothing is ever asked to do that in ordinary training; behind a
frozen layer every such norm is. The guard stands between autograd and the kernel and asks for that
gradient too, then drops it. All other values keep their bits, the memory format stays as it is, and
it holds for every norm of the process: a module, a custom one that calls the function, one that the
user put behind weights frozen by hand, or one that is swapped in later.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

__all__ = ["guard_group_norm"]

_KERNEL = torch.ops.aten.native_group_norm_backward.default

_guards: list[torch.library.Library] = []  # it holds for as long as this is kept


def guard_group_norm() -> None:
    """Make GroupNorm safe on a CPU where its input needs no gradient, from now on.

    It changes no result, costs a few microseconds for each norm in the backward pass, and nothing
    where there is none. Calling it again does nothing.
    """
    if not _guards:
        library = torch.library.Library("aten", "IMPL")
        library.impl(_KERNEL, _backward, "AutogradCPU")
        _guards.append(library)


def _backward(
    gradient: torch.Tensor,
    x: torch.Tensor,
    mean: torch.Tensor,
    rstd: torch.Tensor,
    weight: torch.Tensor | None,
    *rest: Any,
) -> tuple[torch.Tensor | None, ...]:
    """Stand for ``aten::native_group_norm_backward``, one level above the kernel."""
    *sizes, (for_input, *for_parameters) = rest
    kernel: Callable[..., tuple[torch.Tensor | None, ...]] = _KERNEL
    asked = for_input or _may_be_channels_last(x)
    with torch._C._AutoDispatchBelowAutograd():
        found = kernel(gradient, x, mean, rstd, weight, *sizes, [asked, *for_parameters])
    return found if for_input else (None, *found[1:])


def _may_be_channels_last(x: torch.Tensor) -> bool:
    """Return whether the channels-last kernel may run; rather once too often than too seldom.

    Flags do not tell: the strides of one pixel or one channel are of both formats.
    """
    return x.dim() > 3 and x.stride(1) <= x.stride(-1)
