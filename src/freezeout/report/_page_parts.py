"""The body of a report's page, and the files that go with it."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from typing import TypeAlias

from freezeout.evidence.record import RunRecord
from freezeout.report._html import legend_html, prose, table_html, text
from freezeout.report._runs_table import runs_table, shown_runs
from freezeout.report.arms import by_arm, cells, clean
from freezeout.report.palette import Palette
from freezeout.report.section import Section
from freezeout.report.table import Table, table_csv

__all__ = ["Files", "body_html"]

Files: TypeAlias = "dict[str, bytes]"
"""Contents by relative path."""

_NARROW = 3.8


def body_html(
    records: Sequence[RunRecord],
    title: str,
    date: str,
    sections: Sequence[Section],
    left_out: Sequence[tuple[str, str]],
    files: Files,
) -> str:
    """Write the body of the page.

    Args:
        records: All runs.
        title: Heading.
        date: When it was made, as shown.
        sections: What is said of cells.
        left_out: Name and reason of what is no run.
        files: Filled with the files that the page links to.

    Returns:
        HTML.
    """
    palette = Palette(records)
    groups = cells(records)
    given = {section.cell: section for section in sections}
    told = {cell: given.get(cell, Section(cell, cell)) for cell in groups}
    overall = given.get(None)
    slugs = _slugs(list(groups))
    parts = [_header(records, title, date), _findings([overall, *told.values()], slugs), "<main>"]
    for cell, runs in groups.items():
        parts.append(_cell_html(told[cell], runs, palette, slugs[cell], files))
    parts.append(_closing_html(records, overall, palette, left_out, files))
    parts.append("</main>")
    return "\n".join(part for part in parts if part)


def _header(records: Sequence[RunRecord], title: str, date: str) -> str:
    arms = len(by_arm(records))
    groups = len(cells(records))
    finished = sum(record.finished for record in records)
    compared = f"{_count(len(records), 'run')} of {_count(arms, 'arm')} in {_count(groups, 'cell')}"
    if finished < len(records):
        compared += f", {finished} finished"
    seeds = sorted({record.seed for record in records})
    compared += f"; {_count(len(seeds), 'seed')}"
    counted = [record for record in records if record.finished] or records
    facts = [
        compared,
        f"hardware: {_tally([record.device for record in counted])}",
        f"precision: {_tally([record.precision for record in counted])}",
        date,
    ]
    lines = "".join(f'<p class="facts">{text(fact)}</p>' for fact in facts if fact)
    return f"<header><h1>{text(title)}</h1>{lines}</header>"


def _tally(values: Sequence[str]) -> str:
    counts = Counter(values)
    if len(counts) == 1:
        return values[0]
    return "; ".join(f"{value} ({_count(n, 'run')})" for value, n in counts.most_common())


def _count(number: int, word: str) -> str:
    return f"{number:,} {word}{'' if number == 1 else 's'}"


def _findings(sections: Sequence[Section | None], slugs: dict[str, str]) -> str:
    """What was found, at the top, with links to where it comes from."""
    parts = []
    several = len(slugs) > 1
    for section in sections:
        if section is None or (section.cell is None and not section.sentences):
            continue
        if section.cell is not None and (several or section.sentences):
            link = f'<a href="#{slugs[section.cell]}">{text(section.title)}</a>'
            parts.append(f"<h3>{link}</h3>")
        parts += [f"<p>{prose(sentence)}</p>" for sentence in section.sentences]
    if not parts:
        return ""
    told = any(section and section.sentences for section in sections)
    heading = "What was found" if told else "Contents"
    return f'<section class="findings"><h2>{heading}</h2>{"".join(parts)}</section>'


def _cell_html(
    section: Section, runs: Sequence[RunRecord], palette: Palette, slug: str, files: Files
) -> str:
    from freezeout.report.figures import CELL_FIGURES

    parts = [f'<section id="{slug}"><h2>{text(section.title)}</h2>']
    parts.append(legend_html([palette[key] for key in by_arm(runs)]))
    for kind in CELL_FIGURES:
        parts.append(_figure_html(kind.id, runs, palette, slug, section.title, files))
    parts += [_table_html(table, slug, files) for table in section.tables]
    parts.append(_unfinished(runs))
    parts.append(_runs_html(runs, slug, files))
    return "\n".join([*(part for part in parts if part), "</section>"])


def _closing_html(
    records: Sequence[RunRecord],
    overall: Section | None,
    palette: Palette,
    left_out: Sequence[tuple[str, str]],
    files: Files,
) -> str:
    """What is about all cells."""
    title = overall.title if overall else "All cells together"
    arms = by_arm(records)
    parts = [f'<section id="all"><h2>{text(title)}</h2>']
    from freezeout.report.figures import CROSS_FIGURES

    drawn = [key for kind in CROSS_FIGURES for key in kind.arms(records)]
    if drawn:
        parts.append(legend_html([palette[key] for key in arms if key in drawn]))
    for kind in CROSS_FIGURES:
        parts.append(_figure_html(kind.id, records, palette, "all", "", files))
    if overall:
        parts += [_table_html(table, "all", files) for table in overall.tables]
    if left_out:
        rows = "".join(
            f"<li><strong>{text(name)}</strong>: {text(reason)}</li>" for name, reason in left_out
        )
        parts.append(f'<div class="left-out"><h3>Left out</h3><ul>{rows}</ul></div>')
    return "\n".join([*(part for part in parts if part), "</section>"])


def _figure_html(
    name: str,
    runs: Sequence[RunRecord],
    palette: Palette,
    slug: str,
    subject: str,
    files: Files,
) -> str:
    from freezeout.report.figures import CELL_FIGURES, CROSS_FIGURES, WIDE, figure_png, inline_svg

    kind = next(kind for kind in (*CELL_FIGURES, *CROSS_FIGURES) if kind.id == name)
    reason = kind.missing(runs)
    if reason is not None:
        return f'<p class="left-out"><strong>{text(kind.title)}</strong>: {text(reason)}</p>'
    stem = f"figures/{slug}-{kind.id}"
    title = f"{subject}: {kind.title[0].lower()}{kind.title[1:]}" if subject else kind.title
    files[f"{stem}.png"] = figure_png(kind, runs, palette, title)
    table = kind.table(runs)
    files[f"{stem}.csv"] = table_csv(table.columns, table.rows).encode()
    caption = kind.caption(runs)
    svgs = []
    for css_class, width in (("wide", WIDE), ("narrow", _NARROW)):
        drawing = kind.draw(runs, palette, width)
        inches = float(drawing.figure.get_size_inches()[0])
        look = f"{css_class} square" if css_class == "wide" and inches < width else css_class
        label = clean(f"{title}. {caption}")
        prefix = f"f{len(files)}{css_class[0]}"  # short: it is in the page many times
        svgs.append(inline_svg(drawing, prefix, label, look))
    return (
        f'<figure id="{slug}-{kind.id}"><h3>{text(kind.title)}</h3>\n{svgs[0]}\n{svgs[1]}\n'
        f"<figcaption>{prose(caption)}</figcaption>"
        f'<p class="files"><a href="{stem}.png" download>PNG</a> · '
        f'<a href="{stem}.csv" download>CSV</a></p></figure>'
    )


def _table_html(table: Table, slug: str, files: Files) -> str:
    return table_html(table, _save(table, slug, files))


def _runs_html(runs: Sequence[RunRecord], slug: str, files: Files) -> str:
    """The table of runs, folded; its file has columns that the page leaves out."""
    table = runs_table(runs)
    return table_html(shown_runs(table), _save(table, slug, files), fold=True)


def _save(table: Table, slug: str, files: Files) -> str:
    """Add a table to the files; return its name there."""
    name = f"tables/{slug}-{table.id}.csv"
    files[name] = table_csv(table.columns, table.rows).encode()
    return name


def _unfinished(runs: Sequence[RunRecord]) -> str:
    """Runs that no mean counts, by name."""
    rows = [
        f"<li><strong>{text(run.name)}</strong>: {run.steps:,} of {run.total_steps:,} steps</li>"
        for run in runs
        if not run.finished
    ]
    untested = [
        f"<li><strong>{text(run.name)}</strong>: finished, no final test error</li>"
        for run in runs
        if run.finished and run.error is None
    ]
    if not rows + untested:
        return ""
    return (
        '<div class="left-out"><h3>Runs that no mean counts</h3>'
        f"<ul>{''.join(rows + untested)}</ul></div>"
    )


def _slugs(names: Sequence[str]) -> dict[str, str]:
    """Names fit for files and addresses, unique."""
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
