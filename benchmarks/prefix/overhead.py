"""What Python costs in a pass whose frozen prefix is served.

A captured pass runs none of the frozen layers if a source has the values of their boundary. What is
left is the code between frozen layers, each of whose functions gives a lazy tensor. This measures
that cost: the served forward pass against the last layer alone, on the value that is served,
divided by the number of lazy tensors. Both take turns, in shuffled orders. Bar: 10 µs.

Run it as ``python -m benchmarks.prefix.overhead``. Exit status: 0 if the bar holds, 1 otherwise.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import nn

from benchmarks.common.command import add_effort, fill_in, say, threads
from benchmarks.common.machine import hardware, place, versions
from benchmarks.common.measuring import must_be
from benchmarks.common.ratios import Comparison, Effort, Question, Variant, compare
from freezeout import Freezer, split_layers
from freezeout.lab.models import build
from freezeout.prefix import Capture, Inputs, Node

__all__ = ["Chain", "Kept", "Served", "main", "served"]

BAR = 10e-6
FULL = {"repeats": 64, "looks": 2}
ROW = "{:<28}{:>8}{:>12}{:>12}{:>14}  {}"


class Chain(nn.Module):
    """Small blocks in a row, with or without arithmetic between them.

    Args:
        count: Number of blocks.
        residual: Whether the model adds, activates and scales between them.
    """

    def __init__(self, count: int, *, residual: bool) -> None:
        super().__init__()
        made = [nn.Sequential(nn.Linear(8, 8), nn.ReLU()) for _ in range(count)]
        self.blocks = nn.ModuleList(made)
        self.head = nn.Linear(8, 3)
        self._residual = residual

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the output of the head, of shape (batch, 3)."""
        for block in self.blocks:
            x = (x + block(x)).relu() * 0.5 if self._residual else block(x)
        out: torch.Tensor = self.head(x)
        return out


class Kept:
    """A source that has the boundary of one batch."""

    def __init__(self) -> None:
        self.table: dict[str, torch.Tensor] = {}

    def begin(self, forward: Inputs) -> None:
        """Do nothing."""

    def get(self, node: Node) -> torch.Tensor | None:
        """Return a value that was made before."""
        return self.table.get(node.expression)

    def made(self, node: Node, value: torch.Tensor) -> None:
        """Keep a value."""
        self.table.setdefault(node.expression, value.clone())

    def end(self, forward: Inputs, failed: bool) -> None:
        """Do nothing."""


@dataclass(frozen=True)
class Served:
    """A model whose passes are served, all layers but the last frozen.

    Attributes:
        whole: Runs its forward pass.
        last: Runs the last layer alone.
        lazies: Number of lazy tensors of a pass.
    """

    whole: Callable[[], object]
    last: Callable[[], object]
    lazies: int


def served(model: nn.Module, x: torch.Tensor) -> Served:
    """Freeze all layers but the last, and let passes fill a source.

    Args:
        model: Ends in a module that gives its output.
        x: The batch.

    Raises:
        RuntimeError: If a pass still computes something frozen, or the boundary is not one value.
    """
    freezer = Freezer(split_layers(model.train()))
    freezer.check = False
    freezer.set_depth(len(freezer.layers) - 1)
    source = Kept()
    capture = Capture.of(freezer, source)
    for _ in range(4):
        model(x)
    must_be(capture.last is not None, "the pass was captured")
    assert capture.last is not None
    must_be(capture.last.memory.values.computed == 0, "nothing frozen runs")
    must_be(len(source.table) == 1, "the boundary is one value")
    (value,) = source.table.values()
    last = model.get_submodule(freezer.layers.names[-1])
    return Served(lambda: model(x), lambda: last(value), capture.last.memory.made)


def subjects() -> dict[str, Callable[[], Served]]:
    images = torch.randn(4, 3, 8, 8)
    small = torch.randn(4, 8)
    chains = {"10 blocks": (10, False), "40 blocks": (40, False), "40 residual": (40, True)}
    found: dict[str, Callable[[], Served]] = {}
    for name, (count, residual) in chains.items():
        found[name] = _made(lambda c=count, r=residual: Chain(c, residual=r), small)
    found["resnet-20"] = _made(lambda: build("resnet-20", num_classes=10, in_channels=3), images)
    return found


def _made(model: Callable[..., nn.Module], x: torch.Tensor) -> Callable[[], Served]:
    return lambda: served(model(), x)


def line(name: str, subject: Served, answer: Comparison) -> tuple[str, bool]:
    above, below = answer.seconds
    each = (above - below) / subject.lazies
    holds = each <= BAR
    figures = (f"{1e6 * above:.0f}", f"{1e6 * below:.0f}", f"{1e6 * each:.1f}")
    return ROW.format(name, subject.lazies, *figures, "holds" if holds else "fails"), holds


def main(argv: Sequence[str] | None = None) -> int:
    """Run the benchmark; return the exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    add_effort(parser.add_argument, FULL)
    given = parser.parse_args(argv)
    fill_in(given, FULL)
    effort = Effort(given.repeats, given.looks, seed=given.seed, clock=given.clock)
    question = [Question("served / last layer", "served", "last", None)]
    good = True
    with threads(1):
        say(place(hardware("cpu"), versions("cpu")))
        say(ROW.format("network", "lazies", "served, µs", "last, µs", "µs a lazy", "bar 10"))
        for name, make in subjects().items():
            subject = make()
            variants = {
                "served": Variant(subject.whole, calls=5),
                "last": Variant(subject.last, calls=5),
            }
            (answer,) = compare(variants, question, effort, torch.device("cpu"))
            text, holds = line(name, subject, answer)
            say(text)
            good &= holds
    return 0 if good else 1


if __name__ == "__main__":
    raise SystemExit(main())
