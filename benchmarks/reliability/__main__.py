"""Try to lose something: kills, damage, hostile words and texts, for as long as is wished.

    python -m benchmarks.reliability --minutes 60 --out benchmarks/results/reliability.json
    python -m benchmarks.reliability --only kills,damage --minutes 5 --seed 3
    python -m benchmarks.reliability --reproduce kills:3000017

It ends with exit code 1 on the first result with other bits, traceback, or executed code, and
prints the command that shows it again. A case is decided by its kind and its seed, but for signals
at moments, which depend on the machine.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.common.command import positive, say, write_json
from benchmarks.common.machine import about, load
from benchmarks.reliability.campaign import SEEDS, Finding, Tally, carry_out, run_case
from benchmarks.reliability.kinds import KINDS
from benchmarks.reliability.tiny import get_ready, scratch_home

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program; return the exit code."""
    options = _parser().parse_args(arguments)
    try:
        get_ready()
        if options.reproduce is not None:
            return _reproduce(*options.reproduce)
        return _campaign(options)
    finally:
        shutil.rmtree(scratch_home(), ignore_errors=True)
        scratch_home.cache_clear()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.reliability",
        description="Try to lose or spoil something that freezeout keeps.",
        epilog=f"kinds: {', '.join(KINDS)}",
    )
    add = parser.add_argument
    add("--minutes", type=float, default=60.0, help="how long (default: %(default)g)")
    add("--seed", type=int, default=0, help="decides all cases, at least 0 (default: 0)")
    add("--only", type=_kinds, default=list(KINDS), metavar="KIND,KIND", help="these kinds alone")
    add("--processes", type=positive, default=1, help="cases side by side (default: 1)")
    add("--out", type=Path, help="write the figures into this file")
    add("--keep-going", action="store_true", help="go on after a finding, and list all")
    add("--reproduce", type=_one_case, metavar="KIND:SEED", help="carry out one case alone")
    return parser


def _kinds(text: str) -> list[str]:
    names = text.split(",")
    for name in names:
        if name not in KINDS:
            raise argparse.ArgumentTypeError(f"no kind {name!r}; kinds are {', '.join(KINDS)}")
    return names


def _one_case(text: str) -> tuple[str, int]:
    kind, _, seed = text.partition(":")
    if kind not in KINDS or not seed.isdecimal():
        raise argparse.ArgumentTypeError(f"must be KIND:SEED, got {text!r}")
    return kind, int(seed)


def _reproduce(kind: str, seed: int) -> int:
    outcome = run_case(kind, KINDS[kind].work, seed)
    say(str(outcome.finding or f"{kind}:{seed} finds nothing"))
    return int(outcome.finding is not None)


def _campaign(options: argparse.Namespace) -> int:
    before, begun = load(), time.monotonic()
    tally = carry_out(
        {name: KINDS[name] for name in options.only},
        seconds=60.0 * options.minutes,
        seed=options.seed,
        processes=options.processes,
        keep_going=options.keep_going,
        tell=lambda tally, seconds: say(_figures(tally, seconds)),
    )
    seconds = time.monotonic() - begun
    say(_figures(tally, seconds))
    result = {
        **about("reliability", "cpu", before),
        "seconds": round(seconds),
        "processes": options.processes,
        "seeds": [options.seed * SEEDS, (options.seed + 1) * SEEDS - 1],
        "kinds": {name: _of_kind(tally, name) for name in options.only},
        "counts": dict(sorted(tally.counts.items())),
        "findings": [_described(finding) for finding in tally.findings],
        "passed": not tally.findings,
    }
    write_json(result, options.out)
    say("Nothing was found." if not tally.findings else f"{len(tally.findings)} found.")
    return int(bool(tally.findings))


def _figures(tally: Tally, seconds: float) -> str:
    counts = "  ".join(f"{name} {number:,}" for name, number in sorted(tally.counts.items()))
    return f"{seconds:5.0f} s  {counts}  found {len(tally.findings)}"


def _of_kind(tally: Tally, name: str) -> dict[str, Any]:
    found = sum(finding.kind == name for finding in tally.findings)
    seconds = round(tally.seconds[name], 1)
    return {"cases": tally.cases[name], "seconds": seconds, "findings": found}


def _described(finding: Finding) -> dict[str, Any]:
    return {
        "case": f"{finding.kind}:{finding.seed}",
        "text": finding.text,
        "trail": list(finding.trail),
        "again": finding.reproduce,
    }


if __name__ == "__main__":
    sys.exit(main())
