"""Costs in plain text, for those who print them."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from freezeout.cost import Costs

__all__ = ["costs_text"]


def costs_text(costs: Costs) -> str:
    """One line per layer, then the whole step.

    Args:
        costs: The costs.
    """
    header = ("layer", "name", "forward", "backward", "optimizer", "GFLOPs", "saved", "share")
    total = costs.step_seconds()
    rows = [header]
    for i, layer in enumerate(costs.layers):
        flops = layer.forward_flops + layer.backward_flops
        rows.append(
            (
                str(i),
                layer.name,
                _milliseconds(layer.forward),
                _milliseconds(layer.backward),
                _milliseconds(layer.optimizer),
                f"{flops / 1e9:.3f}",
                f"{layer.saved_bytes / 2**20:.1f} MiB",
                f"{100 * layer.seconds / total:.1f} %",
            )
        )
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        "  ".join(
            cell.ljust(width) if i == 1 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
    seen = [row[0] for row in costs.rounds]
    lines.append(
        f"step: {_milliseconds(total)} ({_milliseconds(min(seen))} to "
        f"{_milliseconds(max(seen))} in {len(seen)} rounds), of which "
        f"{_milliseconds(costs.overhead)} belong to no layer; "
        f"{_milliseconds(costs.step_seconds(len(costs) - 1))} with all but the last layer frozen"
    )
    return "\n".join(lines)


def _milliseconds(seconds: float) -> str:
    return f"{1000 * seconds:.2f} ms"
