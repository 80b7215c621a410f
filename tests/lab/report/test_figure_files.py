"""Figures as files: every kind of every figure, whole or not there, alone and in the dark."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import get_args
from xml.etree import ElementTree

import pytest

from freezeout.errors import RunError
from freezeout.lab.report.figures import (
    CELL_FIGURES,
    CROSS_FIGURES,
    Figure,
    FileKind,
    PlanFigure,
    RunFigure,
)
from freezeout.lab.report.palette import COLORS, INK, PAPER
from freezeout.planning import plan
from tests.lab.report.records import comparison, record
from tests.strategies import made_costs

RUNS = comparison(seeds=2)
FIGURES: list[Figure] = [
    *(kind(RUNS) for kind in (*CELL_FIGURES, *CROSS_FIGURES)),
    RunFigure(record()),
    PlanFigure([plan(made_costs([1.0, 0.5]), 100, t0=t0) for t0 in (0.4, 0.8)], [1.0, 2.0, 3.0]),
]
STARTS = {"png": b"\x89PNG\r\n\x1a\n", "pdf": b"%PDF", "svg": b"<svg"}
ALL = pytest.mark.parametrize("figure", [pytest.param(one, id=one.id) for one in FIGURES])


@ALL
@pytest.mark.parametrize("kind", get_args(FileKind))
def test_the_same_figure_gives_the_same_file(figure: Figure, kind: str, tmp_path: Path) -> None:
    first, second = tmp_path / f"a.{kind}", tmp_path / f"b.{kind.upper()}"
    figure.save(first, "a title")
    figure.save(second, "a title")
    assert first.read_bytes().startswith(STARTS[kind])
    assert first.read_bytes() == second.read_bytes()
    assert sorted(tmp_path.iterdir()) == [first, second]


@ALL
def test_an_svg_file_stands_alone_with_title_and_legend_in_light_and_dark(figure: Figure) -> None:
    source = figure.render("svg", 'a <title> & "more"').decode()
    root = ElementTree.fromstring(source)
    assert root.get("aria-label") == 'a <title> & "more"'
    words = {element.text for element in root.iter("{http://www.w3.org/2000/svg}text")}
    assert {'a <title> & "more"', *(style.label for style in figure.legend)} <= words
    assert float(root.get("width", "").removesuffix("pt")) > 300
    for part in ("var(", "url(h", "<metadata", "<script", "<image"):
        assert part not in source
    assert re.findall(r"https?://[^\"]+", source) == ["http://www.w3.org/2000/svg"]
    rules, dark = re.split(r"@media \(prefers-color-scheme:dark\)", source.split("</style>")[0])
    assert INK.light in rules
    assert INK.dark in dark
    assert f"fill:{PAPER.light}" in rules
    assert f"fill:{PAPER.dark}" in dark
    assert set(re.findall("#[0-9a-f]{6}", rules)) <= {color.light for color in COLORS}
    assert set(re.findall("#[0-9a-f]{6}", dark)) <= {color.dark for color in COLORS}


@ALL
def test_every_figure_comes_out_on_a_page(figure: Figure) -> None:
    for narrow in (True, False):
        svg = figure.on_page("p", "a label", narrow=narrow)
        assert ElementTree.fromstring(svg).get("aria-label") == "a label"
        assert 'class="narrow"' in svg if narrow else 'class="wide' in svg
        assert not re.findall(r"#[0-9a-f]{6}", svg), "a colour outside the palette"
        assert "<title>" in svg, "notes for hovering"
    assert figure.caption().endswith(".")
    assert figure.table().rows


def test_a_figure_is_headed_by_its_title_unless_another_is_given() -> None:
    assert f">{FIGURES[0].title}</text>" in FIGURES[0].render("svg").decode()
    assert FIGURES[0].title not in FIGURES[0].render("svg", "other").decode()


def test_a_failure_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "run.png"
    path.write_bytes(b"old")

    def full(self: Path, target: Path) -> Path:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(RunError, match=r"run\.png: No space left on device"):
        FIGURES[0].save(path)
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_suffix_that_is_none_of_ours_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"end in \.png, \.pdf, \.svg, got 'run\.bmp'\. Choose"):
        FIGURES[0].save(tmp_path / "run.bmp")
    assert not list(tmp_path.iterdir())


def test_tables_and_displays_need_no_matplotlib_and_figures_no_pyplot() -> None:
    code = (
        "import sys, freezeout.lab.report, freezeout.lab.report.terminal\n"
        "assert 'rich' in sys.modules\n"
        "assert 'matplotlib' not in sys.modules, 'too early'\n"
        "assert 'jinja2' not in sys.modules, 'too early'\n"
        "import freezeout.lab.report.figures, freezeout.lab.report.page.view\n"
        "assert 'matplotlib' in sys.modules\n"
        "assert 'matplotlib.pyplot' not in sys.modules, 'pyplot'\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
