"""Write the tables of the benchmarks of training stacks into ``docs/benchmarks.md``.

Run it as ``python -m benchmarks.stacks.tables`` after a new result was committed: it replaces what
stands there between ``<!-- name -->`` and ``<!-- end of name -->``. A test compares the two.
"""

from __future__ import annotations

import json
import re
import sys
import textwrap
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from benchmarks.common.command import RESULTS
from freezeout.storage import write_text

__all__ = ["filled", "main", "tables"]

PAGE = Path(__file__).parents[2] / "docs" / "benchmarks.md"


def tables(
    ddp: Mapping[str, Any],
    compiled: Mapping[str, Any],
    callbacks: Mapping[str, Any],
    examples: Mapping[str, Any] | None = None,
) -> dict[str, str]:
    """Return the tables and the lines about what they were measured on, by name.

    Without results of the examples their places stay as they are.
    """
    found = {
        "where ddp_step ran": _where(ddp),
        "DistributedDataParallel": _data_parallel(ddp),
        "following a freeze": _following(ddp),
        "fully_shard": _sharded(ddp),
        "where compile_run ran": _where(compiled),
        "torch.compile": _compiled(compiled),
        "where callback_overhead ran": _where(callbacks),
        "trainers": _trainers(callbacks),
    }
    if examples is not None:
        found["where examples ran"] = _where(examples)
        found["examples"] = _examples(examples)
    return found


def filled(page: str, found: Mapping[str, str]) -> str:
    """Return a page with its tables replaced.

    Raises:
        ValueError: If a table has no place in it.
    """
    for name, text in found.items():
        begin, end = f"<!-- {name} -->\n", f"<!-- end of {name} -->\n"
        if begin not in page or end not in page:
            raise ValueError(f"the page has no place for {name!r}: put {begin!r} and {end!r} there")
        pattern = re.escape(begin) + ".*?" + re.escape(end)
        page = re.sub(pattern, lambda _, t=begin + text + end: t, page, flags=re.S)  # type: ignore[misc]
    return page


def _rows(heads: Iterable[str], rows: Iterable[Iterable[object]]) -> str:
    heads = list(heads)
    lines = [heads, ["---"] * len(heads), *rows]
    return "".join(f"| {' | '.join(str(cell) for cell in line)} |\n" for line in lines)


def _where(result: Mapping[str, Any]) -> str:
    machine, software = result["hardware"], result["versions"]
    load = machine["load"]
    words = [
        f"{machine['gpu'] or machine['cpu']}, {machine['cores']} cores",
        "one thread a process",
        f"torch {software['torch']}, Python {software['python']}",
        result["date"][:10],
        f"load average {load['before']:.1f} before, {load['after']:.1f} after",
    ]
    if result["settings"].get("repeats") == 1:
        words.append("one run each")
    return "\n" + textwrap.fill("; ".join(words) + ".", 120) + "\n\n"


def _ratio(way: Mapping[str, Any]) -> str:
    ends = way["ratio"]["interval"]
    between = "" if ends is None else f" ({ends[0]:.2f} to {ends[1]:.2f})"
    return f"{way['ratio']['median']:.2f}{between}"


def _data_parallel(result: Mapping[str, Any]) -> str:
    rows = [
        (
            network["model"],
            row["depth"],
            f"{ours['reduced']:,}",
            f"{ours['operations']['broadcast']:,}",
            _ratio(ours),
            f"{unused['reduced']:,}",
            _ratio(unused),
            _ratio(row["ways"]["wrapped again"]),
            f"{row['ways']['no exchange']['ratio']['median']:.2f}",
        )
        for network in result["data_parallel"]
        for row in network["rows"]
        for ours, unused in [(row["ways"]["followed"], row["ways"]["find unused"])]
    ]
    heads = (
        "network",
        "frozen",
        "gradients sent",
        "buffers sent",
        "step / unfrozen",
        "`find_unused_parameters`: sent",
        "step / unfrozen",
        "new wrapper: step / unfrozen",
        "no exchange: step / unfrozen",
    )
    return _rows(heads, rows)


def _following(result: Mapping[str, Any]) -> str:
    rows = [
        (
            part["network"],
            "in place" if way["way"] == "followed" else "new wrapper",
            f"{way['freeze_milliseconds']:.1f}",
            *(f"{step:.2f}" for step in way["median_first_steps"]),
            f"{way['step_milliseconds']:.0f}",
        )
        for part in result["following"]
        for way in part["ways"]
    ]
    heads = (
        "network",
        "how",
        "freeze, ms",
        "first step / a later one",
        "second",
        "a later one, ms",
    )
    return _rows(heads, rows)


def _sharded(result: Mapping[str, Any]) -> str:
    rows = [
        (
            row["depth"],
            f"{ours['operations']['reduced']:,}",
            ours["operations"]["gathers"],
            _ratio(ours),
            kept["operations"]["gathers"],
            _ratio(kept),
        )
        for row in result["fully_shard"]["rows"]
        for ours, kept in [(row["ways"]["sharded"], row["ways"]["kept"])]
    ]
    heads = ("frozen", "gradients sent", "all-gathers", "step / unfrozen")
    return _rows((*heads, "`keep_unsharded`: all-gathers", "step / unfrozen"), rows)


def _compiled(result: Mapping[str, Any]) -> str:
    rows = [
        (
            one["network"],
            row["name"],
            "yes" if row["freezing"] else "no",
            row["graphs"],
            "hit" if row["limit_hit"] else "",
            f"{row['seconds']:.1f}",
            f"{row['compiling_seconds']:.1f}",
            f"{row['steady_seconds']:.1f}",
            "" if row["step_ratio"] is None else f"{row['step_ratio']:.2f}",
            "never" if row["even_after_steps"] is None else f"{row['even_after_steps']:,}",
        )
        for one in result["networks"]
        for row in one["runs"]
    ]
    rows = [(*row[:-1], "") if row[1] == "eager" else row for row in rows]
    heads = (
        "network",
        "compiled",
        "freezing",
        "graphs",
        "limit",
        "run, s",
        "steps that compiled, s",
    )
    return _rows((*heads, "other steps, s", "step / eager", "breaks even after (steps)"), rows)


def _trainers(result: Mapping[str, Any]) -> str:
    rows = [
        (
            f"{one['trainer']} {one['version']}",
            f"{one['median']:.3f}",
            ""
            if one["interval"] is None
            else f"{one['interval'][0]:.3f} to {one['interval'][1]:.3f}",
            one["rounds"],
            f"{1e3 * one['seconds']['plain']:.1f}",
            one["verdict"],
        )
        for one in result["trainers"]
    ]
    bar = result["trainers"][0]["bar"]
    heads = ("trainer", "attached / plain", "95 % interval", "rounds", "plain step, ms")
    return _rows((*heads, f"bar of {bar}"), rows)


def _examples(result: Mapping[str, Any]) -> str:
    rows = []
    for one in result["examples"]:
        for row in one["rows"]:
            ends = row["interval"]
            between = "" if ends is None else f" ({ends[0]:.2f} to {ends[1]:.2f})"
            rows.append(
                (
                    f"{one['trainer']} {one['version']}, {one['length']}",
                    "nothing frozen" if row["t0"] == 1 else f"`t0={row['t0']:g}`",
                    row["frozen"],
                    f"{row['median_seconds']:.2f}",
                    "" if row["t0"] == 1 else f"{row['ratio']:.2f}{between}",
                    len(row["seconds"]),
                    f"{row['quality']:g} {one['unit']}",
                )
            )
    heads = ("example", "schedule", "layers frozen in the end", "training, s")
    return _rows((*heads, "/ nothing frozen", "rounds", "result"), rows)


def main() -> int:
    """Write the page again; return the exit status."""
    files = [
        RESULTS / f"{name}-cpu.json"
        for name in ("ddp_step", "compile_run", "callback_overhead", "examples")
    ]
    results = [json.loads(file.read_text()) for file in files if file.exists()]
    write_text(PAGE, filled(PAGE.read_text(), tables(*results)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
