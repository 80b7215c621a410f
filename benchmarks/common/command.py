"""What the command lines of the benchmarks share: options, lines of text, files of results."""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from freezeout.storage import write_text

__all__ = [
    "RESULTS",
    "add_effort",
    "conclude",
    "fill_in",
    "pick_device",
    "positive",
    "results_file",
    "say",
    "threads",
    "write_json",
]

RESULTS = Path(__file__).parents[1] / "results"


def say(text: str = "") -> None:
    """Print a line at once."""
    print(text, flush=True)


def positive(text: str) -> int:
    """Read a whole number of at least 1, as the type of an option."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, got {value}")
    return value


def add_effort(add: Callable[..., object], full: Mapping[str, Any]) -> None:
    """Add the options that say how long `ratios.compare` goes on, and on which clock.

    Args:
        add: ``parser.add_argument``.
        full: Defaults of the full run, for the help.
    """
    add(
        "--repeats",
        type=positive,
        help="rounds before the interval is first looked at; they double while it is undecided "
        f"(default: {full['repeats']})",
    )
    add("--looks", type=positive, help=f"most looks (default: {full['looks']})")
    add("--seed", type=int, default=0)
    add(
        "--clock",
        choices=("wall", "cpu"),
        default="wall",
        help="seconds that went by, or that the processor worked (default: %(default)s)",
    )


def fill_in(given: argparse.Namespace, defaults: Mapping[str, Any]) -> None:
    """Set the options that were not given."""
    for name, value in defaults.items():
        if getattr(given, name) is None:
            setattr(given, name, value)


def pick_device(name: str) -> str:
    """Return the device that ``"auto"`` stands for, or the one that is named."""
    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    return name


def results_file(given: Path | None, name: str, *, toy: bool) -> Path | None:
    """Return the file that was given, or else the committed one; none for a toy run."""
    return given or (None if toy else RESULTS / f"{name}.json")


def write_json(
    result: Mapping[str, Any], out: Path | None, *, indent: int = 1, flat: bool = False
) -> None:
    """Write results; an old file stays until the new one is whole.

    Args:
        result: What to write.
        out: The file, in a folder that is made if need be; ``None`` writes nothing.
        indent: Spaces for each level.
        flat: Whether a list of numbers stands in one line.
    """
    if out is None:
        return
    text = json.dumps(result, indent=indent)
    if flat:
        text = re.sub(
            r"\[[-+.,\deE\s]+\]",
            lambda found: re.sub(r"\s+", " ", found[0]).replace("[ ", "[").replace(" ]", "]"),
            text,
        )
    out.parent.mkdir(parents=True, exist_ok=True)
    write_text(out, text + "\n")


def conclude(
    result: Mapping[str, Any], out: Path | None, *, indent: int = 1, flat: bool = False
) -> int:
    """Say which bars do not hold, write results as `write_json` does; return the exit status."""
    for line in result["shortcomings"]:
        say(f"not met: {line}")
    say("Every bar holds." if result["passed"] else f"{len(result['shortcomings'])} not met.")
    write_json(result, out, indent=indent, flat=flat)
    if out is not None:
        say(f"Written to {out}")
    return 0 if result["passed"] else 1


@contextmanager
def threads(count: int) -> Iterator[None]:
    """Let torch use so many threads within the block."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
