"""Run a model without leaving a mark on it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from freezeout.layers.members import modules_in, parameters_in

__all__ = ["undisturbed"]


@contextmanager
def undisturbed(model: nn.Module) -> Iterator[None]:
    """Run in evaluation mode, then put back modes, buffers and random state."""
    modes = [(module, module.training) for module in modules_in(model)]
    registers = [(module, dict(module._buffers)) for module in modules_in(model)]
    values = [(buffer, buffer.detach().clone()) for buffer in model.buffers()]
    devices = {t.device for t in (*parameters_in(model), *model.buffers()) if t.is_cuda}
    with torch.random.fork_rng(devices=[d.index for d in devices]):
        for module, _ in modes:
            module.training = False
        try:
            yield
        finally:
            for module, mode in modes:
                module.training = mode
            for module, register in registers:  # a forward pass may replace a buffer
                module._buffers.clear()
                module._buffers.update(register)
            with torch.no_grad():
                for buffer, value in values:
                    if not torch.equal(buffer, value):  # one that is expanded cannot be written
                        buffer.copy_(value)
