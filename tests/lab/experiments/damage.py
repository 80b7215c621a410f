"""Damage to the records of runs: bytes that flip, and whole files that hold something else."""

from __future__ import annotations

import errno
import json
import random
import sys
from pathlib import Path
from typing import Any

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

import pytest
import tomli_w

from freezeout.storage import reading

ODD: tuple[Any, ...] = (
    *(None, True, False, 0, 1, -1, 2.5, -0.5, 101, 10**12, 10**13, 10**18, 10**300, -(10**300)),
    *(1e-300, 1e300, 5e-324, float("nan"), float("inf"), "", "7", "x", "<script>alert(1)</script>"),
    *("a\nb", "\x00\x1b[31m", "\ud800", "'\"&", "x" * 5000, [], [0], [[]], {}, {"a": 1}),
    *([1, 2, 3], [[1, 2, 3]], [[5, 0.1, 0], [3, 0.1, 0]], "baseline", "variant", "control"),
)
"""Values of every kind, few of which any entry may have."""

FILES = ("settings.toml", "log.jsonl", "summary.json", "arm.json", "plan.json", "failed.json")


def fail_to_open(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Let the disk fail for a file of this name."""
    really = reading._at_once

    def opened(path: str, flags: int) -> int:
        if Path(path).name == name:
            raise OSError(errno.EIO, "Input/output error")
        return really(path, flags)

    monkeypatch.setattr(reading, "_at_once", opened)


def damage(folder: Path, choose: random.Random) -> str:
    """Damage one file of a run.

    Args:
        folder: Of a whole run.
        choose: Decides which file, and how.

    Returns:
        What was done, to be shown where a test fails.
    """
    name = choose.choice(FILES)
    path = folder / name
    how = choose.choice(("values", "values", "values", "values", "bytes", "file"))
    if how == "file":
        content = choose.choice((b"", b"\xff\xfe", b"[" * 100_000, b"{}", b"[]", b"null", b"7\n"))
        path.write_bytes(content)
        return f"{name} holds {content[:20]!r}"
    if how == "bytes" or not path.exists():
        content = bytearray(path.read_bytes() if path.exists() else b'{"reason": "x"}')
        place = choose.randrange(len(content))
        content[place] ^= 1 << choose.randrange(8)
        path.write_bytes(content)
        return f"{name}: byte {place} is {content[place]}"
    return f"{name}: {_change(path, choose)}"


def _change(path: Path, choose: random.Random) -> str:
    """Change one value of a file, as by hand: there is no digest that could tell."""
    if path.suffix == ".toml":
        values = tomllib.loads(path.read_text(encoding="utf-8"))
        changed = _odd(values, choose)
        try:
            path.write_bytes(tomli_w.dumps(values).encode("utf-8", "surrogatepass"))
        except (TypeError, ValueError):  # null, and what TOML cannot hold
            path.write_text("model = 3", encoding="utf-8")
        return changed
    lines = [json.loads(line) for line in _objects(path)]
    values = choose.choice(lines)
    for line in lines:
        line.pop("digest", None)
        line.pop("sum", None)
    changed = _odd(values, choose)
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return changed


def _objects(path: Path) -> list[str]:
    text = path.read_text(encoding="utf-8")
    return text.splitlines() if path.suffix == ".jsonl" else [text]


def _odd(values: dict[str, Any], choose: random.Random) -> str:
    """Put an odd value in place of one at any depth, remove one, or add one."""
    place: Any = values
    way: list[Any] = []
    while True:
        keys = list(place) if isinstance(place, dict) else list(range(len(place)))
        if not keys:
            return "nothing changed"
        key = choose.choice(keys)
        way.append(key)
        if not isinstance(place[key], (dict, list)) or choose.random() < 0.3:
            break
        place = place[key]
    what = choose.random()
    if what < 0.15:
        del place[key]
        return f"without {way}"
    odd = choose.choice(ODD)
    if what < 0.2 and isinstance(place, dict):
        place["other"] = odd
        return f"{way[:-1]} has {odd!r:.40}"
    place[key] = odd
    return f"{way} is {odd!r:.40}"
