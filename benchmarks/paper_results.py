"""Results of `paper_gpu`: a line of JSON for every finished run, and what they say together."""

from __future__ import annotations

import csv
import datetime
import io
import json
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeAlias

from freezeout.evidence import Comparison, RunRecord, Tested, compare, comparison_rows
from freezeout.experiments.job import Job
from freezeout.experiments.records import read_run
from freezeout.training.checkpoint import write_atomically
from machine import hardware, versions

__all__ = [
    "Entry",
    "Key",
    "ResultsFile",
    "entry_of",
    "key_of",
    "merged",
    "read",
    "record_of",
    "summary",
    "write_summary",
]

Entry: TypeAlias = dict[str, Any]
"""A finished run: what it was, what came out, and where it was made."""

Key: TypeAlias = tuple[str, str, int]
"""Which run it is: cell, arm and seed."""

BENCHMARK = "paper_gpu"
FORMAT = 1

_LEFT_OUT = ("layer_names", "rate_steps", "rates", "step_times", "memory")
"""What a record has for figures alone: long, and no part of a comparison."""

_NOT_KEPT = ("data_dir", "device", "checkpoint_minutes")
"""Settings that say nothing of the training."""


# ---------------------------------------------------------------- one run


def entry_of(job: Job, runs: Path, device: str, processes: int) -> Entry:
    """What is kept of a finished run.

    Args:
        job: The run.
        runs: The folder above all runs, from which it has its name.
        device: Where it was made: ``"cuda"`` or ``"cpu"``.
        processes: Runs at a time meanwhile.

    Raises:
        FreezeOutError: If its folder cannot be read; likewise ValueError, KeyError and TypeError.
    """
    record = read_run(job.folder, job.folder.relative_to(runs).as_posix())
    run = asdict(record)
    for name in _LEFT_OUT:
        del run[name]
    run["tested"] = [[one.step, one.seconds, one.error] for one in record.tested]
    by_depth: dict[int, list[float]] = {}
    for time in record.step_times:
        by_depth.setdefault(time.frozen, []).append(time.seconds)
    settings = job.settings.to_dict()
    return {
        "benchmark": BENCHMARK,
        "format": FORMAT,
        "date": _now(),
        "run": run,
        "step_seconds": [[depth, statistics.median(s)] for depth, s in sorted(by_depth.items())],
        "settings": {name: v for name, v in settings.items() if name not in _NOT_KEPT},
        "processes": processes,
        "hardware": {**hardware(device), "threads": job.settings.threads},
        "versions": versions(device),
    }


def record_of(entry: Entry) -> RunRecord:
    """The run as comparisons want it.

    Raises:
        KeyError: If something is missing; TypeError or ValueError if it is of another kind.
    """
    run = {**entry["run"], **dict.fromkeys(_LEFT_OUT, ())}
    interval = run["predicted_interval"]
    run["predicted_interval"] = None if interval is None else tuple(interval)
    run["freeze_steps"] = tuple(run["freeze_steps"])
    run["tested"] = tuple(Tested(*one) for one in run["tested"])
    return RunRecord(**run)


def key_of(entry: Entry) -> Key:
    run = entry["run"]
    return run["cell"], run["arm"], run["seed"]


# ---------------------------------------------------------------- files


def read(path: Path) -> list[Entry]:
    """The runs in a file of results, in order.

    Raises:
        ValueError: If the file cannot be read, or holds something else.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ValueError(f"cannot read {path}: {reason}. Give a file of results.") from error
    found = []
    for number, line in enumerate(lines, 1):
        try:
            entry = json.loads(line)
            if (entry["benchmark"], entry["format"]) != (BENCHMARK, FORMAT):
                raise ValueError("it is of another benchmark or version")
            record_of(entry)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            reason = " ".join(f"{type(error).__name__}: {error}".split())
            raise ValueError(
                f"line {number} of {path} is no finished run of this benchmark ({reason}). Give a "
                "file that --results wrote."
            ) from error
        found.append(entry)
    return found


def merged(files: Iterable[Sequence[Entry]]) -> tuple[list[Entry], int]:
    """The runs of several files, each once: the first one counts; and how many were left out."""
    found: dict[Key, Entry] = {}
    count = 0
    for entries in files:
        for entry in entries:
            count += 1
            found.setdefault(key_of(entry), entry)
    return list(found.values()), count - len(found)


class ResultsFile:
    """The file that runs are appended to, each once.

    Args:
        path: The file; it need not exist.

    Raises:
        ValueError: If it holds something else.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.entries = read(path) if path.exists() else []

    @property
    def keys(self) -> set[Key]:
        """The runs in it."""
        return {key_of(entry) for entry in self.entries}

    def add(self, entry: Entry) -> None:
        """Appends a run that is not there yet; the file is whole at any time.

        Raises:
            RunError: If the disk does not take it.
        """
        if key_of(entry) in self.keys:
            return
        self.entries.append(entry)
        text = "".join(json.dumps(one) + "\n" for one in self.entries)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(self.path, lambda file: file.write(text.encode()))


# ---------------------------------------------------------------- together


def summary(entries: Sequence[Entry], comparisons: Sequence[Comparison]) -> dict[str, Any]:
    """All that the runs say, as plain values; equal places are described once."""
    places: list[dict[str, Any]] = []
    runs = []
    for entry in entries:
        place = {name: entry[name] for name in ("hardware", "versions")}
        if place not in places:
            places.append(place)
        kept = ("date", "processes", "settings", "step_seconds")
        runs.append({**entry["run"], **{k: entry[k] for k in kept}, "place": places.index(place)})
    tables = []
    for comparison in comparisons:
        columns, rows = comparison_rows(comparison)
        tables.append(
            {
                "cell": comparison.cell,
                "level": comparison.level,
                "margin": comparison.margin,
                "arms": [dict(zip(columns, row, strict=True)) for row in rows],
                "verdicts": [verdict.sentence for verdict in comparison.verdicts],
                "notes": list(comparison.notes),
            }
        )
    return {
        "benchmark": BENCHMARK,
        "format": FORMAT,
        "date": _now(),
        "places": places,
        "comparisons": tables,
        "runs": runs,
    }


def write_summary(entries: Sequence[Entry], out: Path) -> tuple[Comparison, ...]:
    """Compares runs and writes what they say: as JSON, and the tables as CSV beside it.

    Args:
        entries: The runs, each once.
        out: The JSON file.

    Raises:
        ValueError: If they cannot be compared.
        RunError: If the disk does not take it.
    """
    comparisons = compare([record_of(entry) for entry in entries])
    tables = [comparison_rows(comparison) for comparison in comparisons]
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    for columns, _ in tables[:1]:
        writer.writerow(columns)
    for _, rows in tables:
        writer.writerows(rows)
    plain = _one_line_each(summary(entries, comparisons))
    out.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(out, lambda file: file.write(plain.encode()))
    write_atomically(out.with_suffix(".csv"), lambda file: file.write(text.getvalue().encode()))
    return comparisons


def _one_line_each(values: Mapping[str, Any]) -> str:
    """JSON with one line for every entry of a list, so that changes show line by line."""
    parts = []
    for name, value in values.items():
        if isinstance(value, list) and value:
            inside = ",\n  ".join(json.dumps(one) for one in value)
            parts.append(f" {json.dumps(name)}: [\n  {inside}\n ]")
        else:
            parts.append(f" {json.dumps(name)}: {json.dumps(value)}")
    return "{\n" + ",\n".join(parts) + "\n}\n"


def _now() -> str:
    return datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")
