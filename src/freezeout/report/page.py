"""A report: one self-contained HTML page, and its figures and tables as files.

The page loads nothing: styles, script and figures lie within it, and a content security policy
forbids the rest. Everything can be read without the script, in print, and on a phone.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from importlib import resources
from pathlib import Path

from freezeout.evidence.record import RunRecord
from freezeout.report._page_parts import Files, body_html
from freezeout.report.arms import cells
from freezeout.report.section import Section

__all__ = ["write_report"]

_GENERATOR = '<meta name="generator" content="freezeout report">'
_OWN_FILE = re.compile(r'href="((?:figures|tables)/[a-z0-9-]+\.(?:png|csv))"')
_POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data:; "
    "base-uri 'none'; form-action 'none'"
)


def write_report(
    folder: str | os.PathLike[str],
    records: Sequence[RunRecord],
    *,
    title: str,
    date: str,
    sections: Sequence[Section] = (),
    left_out: Sequence[tuple[str, str]] = (),
) -> Path:
    """Write ``report.html``, ``figures/*.png``, ``figures/*.csv`` and ``tables/*.csv``.

    All of it is made before the first file is written; each file is written beside its place and
    moved there, the page last. Files that an older page of this kind links to and this one does not
    are deleted; nothing else is. The same arguments give the same bytes with the same version of
    matplotlib.

    Args:
        folder: Where to write; made if it is not there.
        records: At least one run, with unique names.
        title: Heading of the page.
        date: When it was made, as shown; the clock is not read.
        sections: What is said of cells and of all together, in any order; cells are shown in the
            order of `records`. A cell without one is headed by its name.
        left_out: Name and reason of what could not be read as a run.

    Returns:
        The path of the page.

    Raises:
        ValueError: If there is no run, a name or a table id comes twice, or a section is about a
            cell that no run belongs to.
        OSError: If a file cannot be written; an older page is then left as it was.
    """
    _check(records, sections)
    files: Files = {}
    body = body_html(records, title, date, sections, left_out, files)
    page = _page(title, body)
    target = Path(folder)
    path = target / "report.html"
    stale = _files_of(path) - set(files)
    for name, content in files.items():
        _write(target / name, content)
    _write(path, page.encode())
    for name in sorted(stale):
        (target / name).unlink(missing_ok=True)
    return path


def _page(title: str, body: str) -> str:
    from freezeout.report._html import color_css, text

    parts = resources.files("freezeout.report")
    style = color_css() + parts.joinpath("page.css").read_text(encoding="utf-8")
    script = parts.joinpath("page.js").read_text(encoding="utf-8")
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f'{_GENERATOR}\n<title>{text(title)}</title>\n<link rel="icon" href="data:,">\n'
        f"<style>\n{style}</style>\n</head>\n<body>\n{body}\n<script>\n{script}</script>\n"
        "</body>\n</html>\n"
    )


def _files_of(page: Path) -> set[str]:
    """Files that an older page links to, if it is one of ours."""
    try:
        old = page.read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return set()
    return set(_OWN_FILE.findall(old)) if _GENERATOR in old else set()


def _write(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        draft.write_bytes(content)
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)


def _check(records: Sequence[RunRecord], sections: Sequence[Section]) -> None:
    if not records:
        raise ValueError("records must hold at least one run, got none. Give folders of runs.")
    names = [record.name for record in records]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ValueError(
            f"names of runs must be unique, got {twice[0]!r} {names.count(twice[0])} times. Name "
            "runs by longer paths."
        )
    found = cells(records)
    about = [section.cell for section in sections]
    for section in sections:
        if section.cell is not None and section.cell not in found:
            raise ValueError(
                f"cell of every section must be one of {list(found)} or None, got "
                f"{section.cell!r}. Use the cell of the records."
            )
        if about.count(section.cell) > 1:
            raise ValueError(
                f"every cell may have one section, got {about.count(section.cell)} for "
                f"{section.cell!r}. Put their sentences and tables together."
            )
        ids = [table.id for table in section.tables]
        for name in ids:
            if not re.fullmatch(r"[a-z0-9-]+", name) or ids.count(name) > 1 or name == "runs":
                raise ValueError(
                    "ids of tables must be unique within their section, consist of a-z, 0-9 and "
                    f"hyphens, and not be 'runs', got {ids}. They become names of files."
                )
