"""The file of expected cuts, one network a line.

Each line has the name, the layers, and where the backward pass does not stop after a freeze, why:
``name | layers | reason``. Numbers that follow one another are written as ``blocks.0-11``.

Write the file again, and review what changed, with::

    python -m tests.layers.real.table

Reasons are kept. A new network goes into ``pictures.py``, ``transformers_text.py`` or
``transformers_other.py``.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.layers.real.check import cut, freezes_right
from tests.layers.real.network import Network
from tests.layers.real.without_operators import available

__all__ = ["FILE", "Expected", "networks", "read", "short"]

FILE = Path(__file__).with_name("cuts.txt")


@dataclass(frozen=True)
class Expected:
    layers: str
    reason: str = ""


def networks() -> list[Network]:
    from tests.layers.real import pictures, transformers_other, transformers_text

    return [*pictures.NETWORKS, *transformers_text.NETWORKS, *transformers_other.NETWORKS]


def read() -> dict[str, Expected]:
    if not FILE.exists():
        return {}
    rows = [line.split(" | ") for line in FILE.read_text("utf-8").splitlines()]
    return {name: Expected(*rest) for name, *rest in rows}


def short(names: Sequence[str]) -> str:
    """Names with a run of numbers as one."""
    runs: list[tuple[str, str, int, int]] = []
    for name in names:
        before, number, after = re.fullmatch(r"(.*?)(\d*)(\D*)", name).groups()  # type: ignore[union-attr]
        at = int(number or -1)
        if number and runs and runs[-1][:2] == (before, after) and runs[-1][3] + 1 == at:
            runs[-1] = (*runs[-1][:3], at)
        else:
            runs.append((before, after, at, at))
    return " ".join(
        before + ("" if a < 0 else str(a) if a == b else f"{a}-{b}") + after
        for before, after, a, b in runs
    )


def _write() -> None:
    if available() is not None:
        raise SystemExit(available())
    warnings.simplefilter("ignore")
    known, lines = read(), []
    for network in networks():
        model, layers = cut(network)
        line = f"{network.name} | {short(layers.names)}"
        if not freezes_right(network, model, layers):
            line += f" | {known.get(network.name, Expected('')).reason or 'why?'}"
        lines.append(line)
    FILE.write_text("\n".join(lines) + "\n", "utf-8")


if __name__ == "__main__":
    _write()
