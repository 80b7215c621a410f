"""A report: one self-contained HTML page, and its figures and tables as files.

The page loads nothing: styles, script and figures lie within it, and a content security policy
forbids the rest. Everything can be read without the script, in print, and on a phone.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from freezeout.lab.evidence import RunRecord
from freezeout.lab.report.grouping import cells
from freezeout.lab.report.table import Section
from freezeout.storage import open_regular, write_atomically

if TYPE_CHECKING:
    from freezeout.lab.report.figures import FileKind

__all__ = ["write_report"]

_GENERATOR = '<meta name="generator" content="freezeout report">'
_LINKED_FILE = re.compile(r'href="((?:figures|tables)/[a-z0-9-]+\.(?:png|pdf|svg|csv))"')


def write_report(
    folder: str | os.PathLike[str],
    records: Sequence[RunRecord],
    *,
    title: str,
    date: str,
    sections: Sequence[Section] = (),
    left_out: Sequence[tuple[str, str]] = (),
    figures: FileKind = "png",
) -> Path:
    """Write ``report.html``, every figure as an image and as CSV, and ``tables/*.csv``.

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
        figures: Kind of the images in ``figures``: ``"png"``, ``"pdf"`` or ``"svg"``.

    Returns:
        The path of the page.

    Raises:
        ValueError: If there is no run, a name or a table id comes twice, or a section is about a
            cell that no run belongs to.
        RunError: If a file cannot be written; an older page is then left as it was.
        OSError: If a folder cannot be made.
    """
    from freezeout.lab.report.page.view import render_page  # loads matplotlib and jinja2

    _check(records, sections)
    html, files = render_page(records, title, date, sections, left_out, figures)
    target = Path(folder)
    page = target / "report.html"
    stale = _linked_files(page) - set(files)
    for name, content in {**files, page.name: html.encode()}.items():
        _write(target / name, content)
    for name in sorted(stale):
        (target / name).unlink(missing_ok=True)
    return page


def _write(path: Path, content: bytes) -> None:
    """Write a file whole, and its folder where it is not there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, lambda file: file.write(content))


def _linked_files(page: Path) -> set[str]:
    """Return the files that an older page links to, if it is one of ours."""
    try:
        with open_regular(page) as file:
            old = file.read().decode("utf-8", "replace")
    except FileNotFoundError:
        return set()
    return set(_LINKED_FILE.findall(old)) if _GENERATOR in old else set()


def _check(records: Sequence[RunRecord], sections: Sequence[Section]) -> None:
    """Check what the page is made of."""
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
