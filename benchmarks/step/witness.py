"""What watching frozen parameters costs: around each update, and for one look at all bits.

Run it as ``python -m benchmarks.step.witness``. It times what is done around a step once half of a
network is frozen, with the witness and without, against the step itself; then one look at all bits.
The bar is 0.5 % of a step, for networks whose step takes at least 5 ms. It exits with 1 above it.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable

import torch
from torch import nn
from torch.optim import SGD

from benchmarks.common.command import say
from freezeout import Freezer, split_layers
from freezeout.freezing.step_guard import guard_of
from freezeout.text import plain_table

_SIZES = ((4, 16), (10, 64), (40, 256), (60, 512))
_LONG_STEP = 5e-3
_BAR = 0.005


def main() -> int:
    """Print the table; return 1 if the bar is broken."""
    torch.set_num_threads(1)
    rows = [("tensors", "step", "around it", "without witness", "share", "look at all bits")]
    broken = False
    for blocks, width in _SIZES:
        step, around, full = _measure(blocks, width, witness=True)
        _, less, _ = _measure(blocks, width, witness=False)
        broken = broken or (step >= _LONG_STEP and around > _BAR * step)
        tensors = str(4 * blocks + 2)
        times = (f"{1e3 * step:.2f} ms", f"{1e6 * around:.1f} us", f"{1e6 * less:.1f} us")
        rows.append((tensors, *times, f"{100 * around / step:.2f} %", f"{1e3 * full:.2f} ms"))
    say("\n".join(plain_table(rows)))
    return int(broken)


def _measure(blocks: int, width: int, *, witness: bool) -> tuple[float, float, float]:
    """Return the seconds of a step, of what is done around it, and of a look at everything."""
    body = [
        nn.Sequential(nn.Linear(width, width), nn.LayerNorm(width), nn.ReLU())
        for _ in range(blocks)
    ]
    model = nn.Sequential(*body, nn.Linear(width, 2))
    optimizer = SGD(model.parameters(), lr=1e-4, momentum=0.9)
    freezer = Freezer(split_layers(model), optimizer, witness=witness)
    batch = torch.randn(32, width)

    def step() -> None:
        model(batch).sum().backward()
        optimizer.step()
        optimizer.zero_grad()

    for _ in range(30):
        step()
    freezer.set_depth(blocks // 2)
    for _ in range(30):
        step()
    guard, keeper = guard_of(optimizer), freezer._keeper

    def around() -> None:
        keeper._before(optimizer)
        guard._before(optimizer, (), {})
        guard._after(optimizer, (), {})
        freezer.after_update()

    return _seconds(step, 20), _seconds(around, 500), _seconds(freezer.look, 5)


def _seconds(action: Callable[[], None], repeats: int) -> float:
    """Return the shortest mean time of several rounds."""
    best = float("inf")
    for _ in range(7):
        start = time.perf_counter()
        for _ in range(repeats):
            action()
        best = min(best, (time.perf_counter() - start) / repeats)
    return best


if __name__ == "__main__":
    sys.exit(main())
