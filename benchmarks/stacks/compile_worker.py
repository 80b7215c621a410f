"""One short training run under ``torch.compile``, taken step by step: a cell of `compile`."""

from __future__ import annotations

import itertools
import logging
import os
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.common.measuring import wait_for
from benchmarks.stacks.networks import Stack
from benchmarks.step.loops import sgd
from freezeout import FreezeOut, FrozenPrefixWarning
from freezeout.lab.models import build

__all__ = ["WIDE", "Cell", "Length", "Run", "network", "serve", "warm_compiler"]

TIGHT, WIDE = 8, 64
"""PyTorch's own limit of graphs, and one that suffices."""


@dataclass(frozen=True)
class Cell:
    """One way of running one network.

    Attributes:
        network: ``"equal-N-W"`` for N equal blocks of width W, or a name for `build`.
        how: ``"eager"``, ``"whole"`` model or ``"block"`` by block.
        freezing: Whether layers freeze.
        limit: Graphs that PyTorch may keep of one ``forward``.
        max_freezes: Most freeze events, or ``None``.
    """

    network: str
    how: str
    freezing: bool = True
    limit: int = TIGHT
    max_freezes: int | None = None

    @property
    def name(self) -> str:
        """Of the way, without the network."""
        words = {"eager": "eager", "whole": "whole model", "block": "each block"}[self.how]
        if self.limit != TIGHT:
            words += f", limit {self.limit}"
        return words if self.max_freezes is None else f"{words}, {self.max_freezes} freezes"


@dataclass(frozen=True)
class Length:
    """How long a run is.

    Attributes:
        steps: Of the run.
        batch_size: Images of a step.
        image_size: Their edge.
        backend: Of the compiler.
        device: Where it runs.
        seed: Of weights and data.
    """

    steps: int
    batch_size: int
    image_size: int
    backend: str
    device: str
    seed: int


def network(name: str, length: Length) -> nn.Module:
    """Build the network of a name, on its device; the same at every call."""
    torch.manual_seed(length.seed)
    if name.startswith("equal-"):
        _, count, width = name.split("-")
        model: nn.Module = Stack(int(count), int(width), patch=length.image_size // 4)
    else:
        model = build(name, num_classes=10, in_channels=3, image_size=length.image_size)
    return model.to(length.device)


class _LimitSeen(logging.Handler):
    """Notice that the compiler gave up on a function."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.hit = False

    def emit(self, record: logging.LogRecord) -> None:
        self.hit = self.hit or "recompile_limit" in record.getMessage()


class Run:
    """A training run from its first step, with the graphs it takes counted.

    Args:
        cell: The way of running it.
        length: How long.

    Attributes:
        warned: Whether FreezeOut said beforehand that graphs would not suffice.
    """

    def __init__(self, cell: Cell, length: Length) -> None:
        from torch._dynamo.utils import counters

        self._counts = counters
        self._device = torch.device(length.device)
        self._limit = _LimitSeen()
        logging.getLogger("torch._dynamo").addHandler(self._limit)
        model = network(cell.network, length)
        self._forward = _compiled(model, cell, length)
        self._optimizer = sgd([list(model.parameters())])
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", FrozenPrefixWarning)
            self.scheduler = FreezeOut(
                self._optimizer,
                self._forward,
                total_steps=length.steps,
                t0=0.5 if cell.freezing else 1.0,
                max_freezes=cell.max_freezes,
            )
        self.warned = any(issubclass(w.category, FrozenPrefixWarning) for w in caught)
        generator = torch.Generator().manual_seed(length.seed)
        shape = (length.batch_size, 3, length.image_size, length.image_size)
        batches = [
            (
                torch.randn(shape, generator=generator).to(self._device),
                torch.randint(0, 10, shape[:1], generator=generator).to(self._device),
            )
            for _ in range(4)
        ]
        self._batches = itertools.cycle(batches)

    def close(self) -> None:
        """Stop listening to the compiler."""
        logging.getLogger("torch._dynamo").removeHandler(self._limit)

    @property
    def graphs(self) -> int:
        """Graphs compiled in this process."""
        return int(self._counts["stats"]["unique_graphs"])

    def step(self) -> dict[str, Any]:
        """Take a timed step: its seconds, the graphs compiled in it, and layers frozen in it."""
        graphs, frozen = self.graphs, self.scheduler.frozen
        x, y = next(self._batches)
        wait_for(self._device)
        begin = time.perf_counter()
        self._optimizer.zero_grad()
        loss = _loss(self._forward, x, y)
        loss.backward()
        self._optimizer.step()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FrozenPrefixWarning)
            self.scheduler.step()
        wait_for(self._device)
        seconds = time.perf_counter() - begin
        return {
            "seconds": seconds,
            "graphs": self.graphs - graphs,
            "frozen": frozen,
            "loss": float(loss.detach()),
            "limit_hit": self._limit.hit,
        }


def _loss(forward: Callable[[Tensor], Tensor], x: Tensor, y: Tensor) -> Tensor:
    return F.cross_entropy(forward(x), y)


def _compiled(model: nn.Module, cell: Cell, length: Length) -> nn.Module:
    if cell.how == "eager":
        return model
    import torch._dynamo

    torch._dynamo.config.recompile_limit = cell.limit
    if cell.how == "whole":
        whole: nn.Module = torch.compile(model, backend=length.backend)  # type: ignore[assignment]
        return whole
    blocks = model.get_submodule("blocks")
    for block in blocks.children():
        block.compile(backend=length.backend)
    return model


def serve(cell: Cell, length: Length, cache: str, pipe: Connection) -> None:
    """Run a cell in this process, a step for every message that comes."""
    os.environ["TORCHINDUCTOR_CACHE_DIR"] = cache
    warnings.filterwarnings("ignore", category=DeprecationWarning)
    torch.set_num_threads(1)
    if cell.how != "eager":
        warm_compiler(length)
    run = Run(cell, length)
    pipe.send({"warned": run.warned, "layers": len(run.scheduler.layers)})
    while pipe.recv():
        pipe.send(run.step())


def warm_compiler(length: Length) -> None:
    """Load the compiler, and let it prepare what every later graph takes."""
    import torch._dynamo
    from torch._dynamo.utils import counters

    layer = nn.Linear(2, 2).to(length.device)
    compiled = torch.compile(layer, backend=length.backend)
    compiled(torch.ones(1, 2, device=length.device)).sum().backward()
    torch.compiler.reset()
    counters.clear()
