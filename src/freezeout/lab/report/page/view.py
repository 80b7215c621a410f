"""What the page shows, section by section, and the files that go with it."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib import resources
from typing import Any, TypeAlias

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

from freezeout.lab.evidence import RunRecord
from freezeout.lab.report.figures import (
    CELL_FIGURES,
    CROSS_FIGURES,
    FileKind,
    RunsFigure,
    marker_path,
)
from freezeout.lab.report.grouping import by_arm, cells, clean
from freezeout.lab.report.page.runs_table import runs_table, shown_runs
from freezeout.lab.report.palette import COLORS, Palette, Style
from freezeout.lab.report.table import Section, Table, cell_text

__all__ = ["Files", "render_page"]

Files: TypeAlias = "dict[str, bytes]"
"""Contents by relative path."""


@dataclass(frozen=True)
class _Shown:
    """A figure, or why there is none."""

    title: str
    missing: str | None = None
    id: str = ""
    wide: str = ""
    narrow: str = ""
    caption: str = ""
    links: tuple[str, ...] = ()


@dataclass
class _Part:
    """A section of the page; a table goes with the address of its file."""

    slug: str
    title: str
    sentences: Sequence[str]
    about_cell: bool = False
    legend: list[Style] = field(default_factory=list)
    figures: list[_Shown] = field(default_factory=list)
    tables: list[tuple[Table, str]] = field(default_factory=list)
    uncounted: list[tuple[str, str]] = field(default_factory=list)
    left_out: Sequence[tuple[str, str]] = ()
    runs: tuple[Table, str] | None = None


def render_page(
    records: Sequence[RunRecord],
    title: str,
    date: str,
    sections: Sequence[Section],
    left_out: Sequence[tuple[str, str]],
    kind: FileKind,
) -> tuple[str, Files]:
    """Write the page.

    Args:
        records: All runs.
        title: Heading.
        date: When it was made, as shown.
        sections: What is said of cells.
        left_out: Name and reason of what is no run.
        kind: Kind of the figures' files.

    Returns:
        HTML, and the files that it links to.
    """
    files: Files = {}
    palette = Palette(records)
    given = {section.cell: section for section in sections}
    groups = cells(records)
    slugs = _slugs(list(groups))
    parts = [
        _cell_part(given.get(cell, Section(cell, cell)), slugs[cell], runs, palette, kind, files)
        for cell, runs in groups.items()
    ]
    overall = given.get(None, Section(None, "All cells together"))
    closing = _closing_part(overall, records, palette, kind, files)
    closing.left_out = left_out
    every = [closing, *parts]
    template = _environment().get_template("page.html")
    html = template.render(
        title=title,
        facts=[*_facts(records), date],
        findings=[p for p in every if p.sentences or (p.about_cell and len(parts) > 1)],
        told=any(part.sentences for part in every),
        parts=[*parts, closing],
        colors=COLORS,
        css=Markup(_text("page.css")),
        script=Markup(_text("page.js")),
    )
    return html + "\n", files


def _cell_part(
    section: Section,
    slug: str,
    runs: Sequence[RunRecord],
    palette: Palette,
    kind: FileKind,
    files: Files,
) -> _Part:
    """Return what is shown of a cell; add its files."""
    part = _Part(slug, section.title, section.sentences, about_cell=True)
    part.legend = [palette[key] for key in by_arm(runs)]
    for figure in CELL_FIGURES:
        part.figures.append(_shown(figure(runs, palette), part, section.title, kind, files))
    part.tables = [(table, _save(table, part, files)) for table in section.tables]
    part.uncounted = _uncounted(runs)
    table = runs_table(runs)
    part.runs = (shown_runs(table), _save(table, part, files))
    return part


def _closing_part(
    section: Section,
    records: Sequence[RunRecord],
    palette: Palette,
    kind: FileKind,
    files: Files,
) -> _Part:
    """Return what is shown of all cells together; add its files."""
    part = _Part("all", section.title, section.sentences)
    figures = [figure(records, palette) for figure in CROSS_FIGURES]
    named = {key for figure in figures for key in figure.arms}
    part.legend = [palette[key] for key in by_arm(records) if key in named]
    part.figures = [_shown(figure, part, "", kind, files) for figure in figures]
    part.tables = [(table, _save(table, part, files)) for table in section.tables]
    return part


def _environment() -> Environment:
    """Return what reads templates: every text is cleaned and escaped as it is written."""
    environment = Environment(
        loader=PackageLoader("freezeout.lab.report", "page"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_cleaned,
    )
    environment.filters["prose"] = _prose
    environment.filters["outline"] = marker_path
    environment.filters["shown"] = cell_text
    return environment


def _cleaned(value: Any) -> Any:
    """Return a text without what no page can hold; markup is such already."""
    return clean(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def _prose(text: str) -> Markup:
    """Return a sentence as markup; numbers stay on the line of their percent sign."""
    return Markup(escape(clean(text)).replace(" %", "\N{NO-BREAK SPACE}%"))


def _text(name: str) -> str:
    """Return the text of a file beside this one."""
    return resources.files("freezeout.lab.report.page").joinpath(name).read_text(encoding="utf-8")


def _facts(records: Sequence[RunRecord]) -> list[str]:
    """Say how many runs there are, and where they ran."""
    finished = [record for record in records if record.finished]
    compared = (
        f"{_count(len(records), 'run')} of {_count(len(by_arm(records)), 'arm')} in "
        f"{_count(len(cells(records)), 'cell')}"
    )
    if len(finished) < len(records):
        compared += f", {len(finished)} finished"
    compared += f"; {_count(len({record.seed for record in records}), 'seed')}"
    counted = finished or records
    return [
        compared,
        f"hardware: {_tally([record.device for record in counted])}",
        f"precision: {_tally([record.precision for record in counted])}",
    ]


def _tally(values: Sequence[str]) -> str:
    """Say which values there are, and of how many runs where they differ."""
    counts = Counter(values)
    if len(counts) == 1:
        return values[0]
    return "; ".join(f"{value} ({_count(n, 'run')})" for value, n in counts.most_common())


def _count(number: int, word: str) -> str:
    """Write a number of things."""
    return f"{number:,} {word}{'' if number == 1 else 's'}"


def _shown(figure: RunsFigure, part: _Part, subject: str, kind: FileKind, files: Files) -> _Shown:
    """Draw a figure for the page and into its files."""
    if figure.missing is not None:
        return _Shown(figure.title, figure.missing)
    stem = f"figures/{part.slug}-{figure.id}"
    title = f"{subject}: {figure.title[0].lower()}{figure.title[1:]}" if subject else figure.title
    links = (f"{stem}.{kind}", f"{stem}.csv")
    files[links[0]] = figure.render(kind, title)
    files[links[1]] = figure.table().csv().encode()
    caption = figure.caption()
    label = f"{title}. {caption}"
    prefix = f"f{len(files)}"  # short: it is in the page many times
    return _Shown(
        figure.title,
        id=f"{part.slug}-{figure.id}",
        wide=Markup(figure.on_page(f"{prefix}w", label)),
        narrow=Markup(figure.on_page(f"{prefix}n", label, narrow=True)),
        caption=caption,
        links=links,
    )


def _save(table: Table, part: _Part, files: Files) -> str:
    """Add a table to the files; return its name there."""
    name = f"tables/{part.slug}-{table.id}.csv"
    files[name] = table.csv().encode()
    return name


def _uncounted(runs: Sequence[RunRecord]) -> list[tuple[str, str]]:
    """Return name and reason of the runs that no mean counts, the unfinished ones first."""
    unfinished = [run for run in runs if not run.finished]
    untested = [run for run in runs if run.finished and run.error is None]
    return [
        *((run.name, f"{run.steps:,} of {run.total_steps:,} steps") for run in unfinished),
        *((run.name, "finished, no final test error") for run in untested),
    ]


def _slugs(names: Sequence[str]) -> dict[str, str]:
    """Return names fit for files and addresses, unique."""
    slugs: dict[str, str] = {}
    taken = {"all"}
    for name in names:
        short = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[:40].strip("-") or "cell"
        slug, number = short, 2
        while slug in taken:
            slug, number = f"{short}-{number}", number + 1
        taken.add(slug)
        slugs[name] = slug
    return slugs
