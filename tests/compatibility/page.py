"""Write ``docs/compatibility.md`` from the lists: ``python -m tests.compatibility.page``."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import groupby
from textwrap import fill
from typing import Any

from tests.compatibility import package_optimizers, patterns, torch_optimizers
from tests.compatibility.other_schedulers import BESIDE
from tests.compatibility.outcome import MEANING, ROOT, versions
from tests.compatibility.rows import Row
from tests.compatibility.surgeries import SURGERIES
from tests.compatibility.uses import USES
from tests.compatibility.wrappers import WRAPPERS

PAGE = ROOT / "docs" / "compatibility.md"
PACKAGES = ("torch", "pytorch_optimizer", "schedulefree", "lightning", "transformers", "accelerate")

_TABLES = {
    "test_surgeries": "surgery",
    "test_uses": "use",
    "test_other_schedulers": "beside FreezeOut",
}


def page() -> str:
    """The page, as it must stand in the repository."""
    return "\n\n".join([_head(), *_optimizers(), *_surgeries(), _wrappers()]) + "\n"


def tried_with() -> str:
    """The line of the page that says which versions its rows hold for."""
    return f"Tried with {versions(*PACKAGES)}, on a CPU."


def _head() -> str:
    words = [f"- **{word}**: {meaning}." for word, meaning in MEANING.items()]
    parts = [_wrapped(_WHAT), _wrapped(tried_with()), "Three words say what happens:"]
    return "\n\n".join(["# What works with what", *parts, "\n".join(words)])


_WHAT = """Optimizers, changes of a model, other schedulers, wrappers and trainers: what becomes of
each beside `FreezeOut`. This page is written from the lists in `tests/compatibility/` (`python -m
tests.compatibility.page`), and each row is a test."""


def _optimizers() -> list[str]:
    package = package_optimizers.ROWS
    quiet = sorted(
        {row.name for row in package} - {r.name for r in package if _is_said(r)}, key=str.lower
    )
    others = sorted((r for r in package if r.name not in quiet), key=lambda r: r.name.lower())
    untried = "; ".join(f"{n} ({why})" for n, why in sorted(package_optimizers.UNTRIED.items()))
    head = ("optimizer", "outcome", "rates", "to know")
    return [
        "## Optimizers\n\n" + _wrapped(_CONTRACT),
        f"### Of PyTorch: {versions('torch')}",
        _table(head, map(_torch_line, _by_class())),
        f"### Of {versions('pytorch_optimizer')}\n\n"
        + _wrapped(f"These {len(quiet)} work, and there is nothing to know: {', '.join(quiet)}."),
        _wrapped(_OTHERWISE) + "\n\n" + "\n".join(_reasons()),
        _table(head, map(_optimizer_line, others)),
        _wrapped(f"Not tried: {untried}."),
        "### Habits of others\n\n" + _wrapped(_HABITS),
        _table(("habit", *head[1:]), map(_optimizer_line, patterns.ROWS)),
    ]


_CONTRACT = """Each trains a small network to its end, with rates annealed and with `anneal=None`
where the column *rates* does not name one of the two. Frozen layers keep their bits, all others
move, and the optimizer holds nothing for what is frozen. The run ends as one of the same rates in
which nothing ever freezes, and resumes as it was, where the last column does not say otherwise.
Tests: [test_optimizers.py](../tests/compatibility/test_optimizers.py)."""

_OTHERWISE = """Some of these end otherwise than a run of the same rates in which nothing freezes.
Frozen layers stand still; in the other run"""

_HABITS = """Packages differ in few things that matter here. Each habit is shown by a small
optimizer ([pattern_classes.py](../tests/compatibility/pattern_classes.py))."""


def _is_said(row: Row) -> bool:
    """Whether it has a line of its own."""
    return row.outcome != "works" or bool(_to_know(row)) or len(row.anneals) == 1


def _reasons() -> Iterable[str]:
    known = package_optimizers.WITHOUT_GRADIENTS | package_optimizers.NO_TWIN
    for why, names in known.items():
        yield _wrapped(f"- {why}: {', '.join(names.split())}.", indent="  ")


def _by_class() -> list[tuple[str, list[Row]]]:
    rows = sorted(torch_optimizers.ROWS, key=_class_of)
    return [(name, list(group)) for name, group in groupby(rows, key=_class_of)]


def _class_of(row: Row) -> str:
    return row.name.partition("-")[0]


def _torch_line(of_class: tuple[str, list[Row]]) -> tuple[str, ...]:
    name, rows = of_class
    ways = sorted({way for row in rows for way in _ways(row)})
    shown = f"{name}, also with {', '.join(ways)}" if ways else name
    return shown, *_optimizer_line(rows[0])[1:]


def _ways(row: Row) -> list[str]:
    ways = [way for way in row.name.split("-")[1:] if "=" in way]
    return ["a tensor as rate" if way.startswith("lr=") else f"`{way}`" for way in ways]


def _optimizer_line(row: Row) -> tuple[str, ...]:
    rates = {("cosine",): "annealed", (None,): "`anneal=None`"}.get(row.anneals, "")
    return row.name, row.outcome, rates, _to_know(row)


def _to_know(row: Row) -> str:
    resumed = f"does not resume as it was: {row.resume_differs}" if row.resume_differs else ""
    return "; ".join(filter(None, (row.note, _quote(row.words), resumed)))


def _quote(words: str) -> str:
    return f"“… {words} …”" if words else ""


def _surgeries() -> Iterable[str]:
    yield _section(
        "What is done to a model between two freezes",
        "The first block is frozen, the others learn. What the optimizer does not hold never "
        "learns, whoever put it there: after `freezeout.unfreeze(model)` make a new optimizer and "
        "a new `FreezeOut`.",
        "test_surgeries",
        SURGERIES,
    )
    yield _section(
        "What is done with a model that is partly frozen",
        "Right after a freeze and later. Training then ends in the same bits as without it.",
        "test_uses",
        USES,
    )
    yield _section(
        "Other schedulers, and other hands on the rates",
        "Layers freeze on time in each of them.",
        "test_other_schedulers",
        BESIDE,
    )


def _section(title: str, text: str, file: str, rows: Sequence[Any]) -> str:
    link = f"Tests: [{file}.py](../tests/compatibility/{file}.py)."
    lines = (
        (row.name, row.outcome, "; ".join(filter(None, (row.note, _quote(row.words)))))
        for row in sorted(rows, key=lambda row: row.name.strip("`").lower())
    )
    table = _table((_TABLES[file], "outcome", "to know"), lines)
    return f"## {title}\n\n{_wrapped(f'{text} {link}')}\n\n{table}"


def _wrappers() -> str:
    lines = (
        (row.name, row.outcome, row.note, f"[{row.test}](../{row.file})")
        for row in sorted(WRAPPERS, key=lambda row: row.name.strip("`").lower())
    )
    text = "How to use each: [stacks.md](stacks.md), and the pages of the trainers."
    table = _table(
        ("around the model, the optimizer or the loop", "outcome", "to know", "test"), lines
    )
    return f"## Wrappers and trainers\n\n{text}\n\n{table}"


def _table(head: tuple[str, ...], lines: Iterable[tuple[str, ...]]) -> str:
    rows = [head, ("---",) * len(head), *lines]
    return "\n".join("| " + " | ".join(row) + " |" for row in rows).replace("  ", " ")


def _wrapped(text: str, indent: str = "") -> str:
    return fill(
        " ".join(text.split()),
        120,
        break_long_words=False,
        break_on_hyphens=False,
        subsequent_indent=indent,
    )


if __name__ == "__main__":
    PAGE.write_text(page())
