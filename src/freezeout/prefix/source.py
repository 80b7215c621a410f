"""Where values of the boundary come from, other than by computing them here."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import torch

from freezeout.prefix.nodes import Node

__all__ = ["Inputs", "Source", "as_described"]


class Inputs(Protocol):
    """What a source may know of a pass."""

    @property
    def inputs(self) -> Sequence[torch.Tensor]:
        """The input tensors of the model, as `Node.inputs` counts them."""


class Source(Protocol):
    """Serve values of the frozen prefix from somewhere: a cache, another program.

    A value belongs to the node's `Node.expression` and to the contents of the inputs that
    `Node.inputs` names. All methods are called in the thread of the pass.
    """

    def begin(self, forward: Inputs) -> None:
        """Note that a pass begins. The inputs still are what the caller gave."""

    def get(self, node: Node) -> torch.Tensor | None:
        """Return the value of a node in this pass, or ``None`` to have it computed.

        It is asked once a pass, for what active code needs, and where it has not got that, for
        what that is computed from. It must be a tensor that nobody else will change; data type,
        strides and device are put right, its shape must be the node's.
        """

    def made(self, node: Node, value: torch.Tensor) -> None:
        """Take a value that active code needs, before that code sees it and may change it.

        It is called once a pass for every value of the boundary, also for those that `get`
        served. To keep the value, copy it.
        """

    def end(self, forward: Inputs, failed: bool) -> None:
        """Note that a pass is over.

        Args:
            forward: The pass.
            failed: Whether it ended in an error.
        """


def as_described(value: Any, node: Node) -> torch.Tensor | None:
    """Return a served value as the plain run has it: data type, strides, device, alignment.

    Kernels choose by strides, and with them a dropout its mask.

    Args:
        value: What a source gave.
        node: What it is the value of.

    Returns:
        The value, or ``None`` if there is none, or one of another shape.
    """
    if value is None or value.shape != node.shape:
        return None
    if type(value) is torch.Tensor and node.describes(value) and node.lies_alike(value):
        return value
    with torch.no_grad():
        repeated = [s == 0 and n > 1 for s, n in zip(node.stride, node.shape, strict=True)]
        for dim, once in enumerate(repeated):
            value = value.narrow(dim, 0, 1) if once else value
        ends = [(n - 1) * s for n, s in zip(value.shape, node.stride, strict=True)]
        size = node.shift + (sum(ends) + 1 if value.numel() else 0)
        memory = torch.empty(size, dtype=node.dtype, device=node.device)
        out = memory.as_strided(value.shape, node.stride, node.shift)
        return out.copy_(value).expand(node.shape)
