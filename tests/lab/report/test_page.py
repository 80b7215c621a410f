"""The page of a report and its files: contents, escaping, same bytes, nothing from outside."""

import csv
import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest

from freezeout.errors import RunError
from freezeout.lab.evidence import RunRecord
from freezeout.lab.report import Column, Section, Table
from freezeout.lab.report.figures import TimeFigure
from freezeout.lab.report.page import write_report
from freezeout.lab.report.page.runs_table import runs_table, shown_runs
from tests.lab.report.records import CELL, OTHER_CELL, comparison, cut_short, record

EVIL = '</script><script>alert("x")</script><img src=x onerror=y>'
VOID = {"meta", "link", "br", "img", "input", "hr"}


class Page(HTMLParser):
    """Elements with attributes and the text of a page; checks that elements are closed."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.words: list[str] = []
        self.open: list[str] = []
        self.feed(source)
        self.close()
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {name: value or "" for name, value in attrs}))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {name: value or "" for name, value in attrs}))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if not self.open or self.open[-1] not in ("script", "style"):
            self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())

    def values(self, name: str) -> list[str]:
        return [attrs[name] for _, attrs in self.elements if name in attrs]

    def count(self, tag: str) -> int:
        return sum(found == tag for found, _ in self.elements)


def write(folder: Path, runs: list[RunRecord], **options: object) -> Path:
    settings = {"title": "A report", "date": "2025-01-15", **options}
    return write_report(folder, runs, **settings)  # type: ignore[arg-type]


TABLE = Table(
    "differences",
    "Paired differences",
    (Column("arm", "arm"), Column("d", "difference", decimals=2, signed=True, unit="points")),
    (("cubic, t0 = 0.8", 1 / 3),),
    "Lower is better.",
)
RUNS = [*comparison(seeds=2), cut_short(record("short", cell=OTHER_CELL))]


SECTIONS = [
    Section(None, "Everything", ("In short: it depends.",), (TABLE,)),
    Section(CELL, "Digits", ("Freezing saved 18 %.",), (TABLE,)),
]
LEFT_OUT = [("runs/x", "no settings")]


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("r")
    return write(folder, RUNS, sections=SECTIONS, left_out=LEFT_OUT)


@pytest.fixture(scope="module")
def shown(written: Path) -> Page:
    return Page(written.read_text(encoding="utf-8"))


def read(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_the_page_says_what_was_compared_where_and_what_came_out(shown: Page) -> None:
    for part in (
        "A report",
        "2025-01-15",
        "15 runs of 7 arms in 2 cells, 14 finished; 2 seeds",
        "hardware: CPU, 1 thread",
        "precision: fp32",
        "Freezing saved 18 %.",
        "In short: it depends.",
        "Paired differences",
        "+0.33 points",
        "Lower is better.",
    ):
        assert part in shown.text, part
    assert shown.text.index("In short") < shown.text.index("Freezing saved 18 %")
    assert shown.text.index("Freezing saved 18 %") < shown.text.index("Error against predicted")


def test_unfinished_runs_and_what_is_no_run_are_listed(shown: Page) -> None:
    assert "short-cut : 2,400 of 4,000 steps" in shown.text
    assert "runs/x : no settings" in shown.text


def test_a_figure_that_cannot_be_drawn_leaves_its_reason(shown: Page) -> None:
    assert "Error against predicted saving : No run that freezes is finished" in shown.text
    assert "wrn-40-4-on-cifar-100-tradeoff" not in " ".join(shown.values("id"))


def test_every_figure_is_there_in_both_widths_and_says_what_it_shows(shown: Page) -> None:
    figures = shown.count("figure")
    assert figures == 4 + 3 + 1
    assert shown.count("figcaption") == figures
    svgs = [attrs for tag, attrs in shown.elements if tag == "svg" and "role" in attrs]
    assert len(svgs) == 2 * figures
    assert all(svg["role"] == "img" and len(svg["aria-label"]) > 60 for svg in svgs)
    assert sum("wide" in svg["class"] for svg in svgs) == figures


def test_the_page_is_well_formed_and_its_ids_are_unique(shown: Page) -> None:
    ids = shown.values("id")
    assert len(ids) == len(set(ids))
    html = next(attrs for tag, attrs in shown.elements if tag == "html")
    assert html["lang"] == "en"
    assert any(attrs.get("name") == "viewport" for _, attrs in shown.elements)
    assert shown.count("h1") == 1


def test_nothing_comes_from_outside(written: Path, shown: Page) -> None:
    for tag, attrs in shown.elements:
        for name in ("src", "href", "xlink:href", "action", "data", "poster", "srcset"):
            value = attrs.get(name)
            if value is None:
                continue
            local = value.startswith(("#", "figures/", "tables/")) or value == "data:,"
            assert local, (tag, name, value)
    source = written.read_text(encoding="utf-8")
    assert set(re.findall(r"url\((.)", source)) <= {"#"}
    assert "@import" not in source
    assert "http:" not in source
    assert "https:" not in source
    assert "default-src 'none'" in source


def test_every_linked_file_is_there_and_no_other(written: Path, shown: Page) -> None:
    linked = {link for link in shown.values("href") if "/" in link}
    there = {
        path.relative_to(written.parent).as_posix()
        for path in written.parent.rglob("*")
        if path.is_file()
    }
    assert linked == there - {"report.html"}
    assert {path.partition("/")[0] for path in linked} == {"figures", "tables"}
    anchors = {link[1:] for link in shown.values("href") if link.startswith("#")}
    assert anchors <= set(shown.values("id"))


def test_the_table_of_runs_holds_the_numbers_of_the_records(written: Path) -> None:
    rows = {
        row["name"]: row for row in read(written.parent / "tables/small-cnn-on-digits-runs.csv")
    }
    runs = [run for run in RUNS if run.cell == CELL]
    assert len(rows) == len(runs)
    for run in runs:
        row = rows[run.name]
        assert run.error is not None
        assert float(row["error_percent"]) == run.error
        assert float(row["train_seconds"]) == run.train_seconds
        assert row["saving_measured"] == ("" if run.measured is None else repr(run.measured))
        assert (row["arm"], row["seed"], row["finished"]) == (run.arm, str(run.seed), "yes")
    (short,) = read(written.parent / "tables/wrn-40-4-on-cifar-100-runs.csv")
    assert (short["finished"], short["error_percent"]) == ("no", "")


def test_the_page_shows_what_came_out_of_runs_first_and_their_cell_nowhere(
    written: Path, shown: Page
) -> None:
    assert shown.count("details") == 2, "one per cell, however short"
    assert "Runs (14 rows)" in shown.text
    assert "Runs (1 row)" in shown.text
    assert (
        "rows) run arm seed test error training time saving measured saving predicted kind epochs"
        in shown.text
    )
    assert "against the baseline of the same cell and seed where there is one" in shown.text
    name = RUNS[0].name
    assert name.startswith("small/")
    source = written.read_text(encoding="utf-8")
    assert f'<th scope="row" class="whole">{name.removeprefix("small/")}</th>' in source
    assert f">{name}</th>" not in source
    assert f"<td>{CELL}</td>" not in source


@pytest.mark.parametrize(
    ("names", "shown"),
    [
        (["a/b/x/seed-0", "a/b/y/seed-0"], ["x/seed-0", "y/seed-0"]),
        (["a/x", "b/x"], ["a/x", "b/x"]),
        (["seed-0", "seed-1"], ["seed-0", "seed-1"]),
        (["ab/x/0", "ac/x/0"], ["ab/x/0", "ac/x/0"]),
        (["a/x", "a/x/y"], ["x", "x/y"]),
        (["/a/b/0"], ["0"]),
    ],
)
def test_folders_that_all_runs_share_are_left_out(names: list[str], shown: list[str]) -> None:
    table = shown_runs(runs_table([record(name, tests=1, windows=1) for name in names]))
    assert sorted(str(row[0]) for row in table.rows) == shown


@pytest.mark.usefixtures("few_figures")
def test_the_header_names_the_hardware_of_finished_runs(tmp_path: Path) -> None:
    done = record(tests=3, windows=5, layers=2)
    begun = cut_short(record("b", tests=3, windows=5, layers=2, device="cpu", precision="bf16"))
    both = Page(write(tmp_path, [done, begun]).read_text(encoding="utf-8")).text
    assert "hardware: CPU, 1 thread precision: fp32 2025" in both
    alone = Page(write(tmp_path, [begun]).read_text(encoding="utf-8")).text
    assert "hardware: cpu precision: bf16" in alone


def test_a_given_table_is_saved_in_full(written: Path) -> None:
    (row,) = read(written.parent / "tables/all-differences.csv")
    assert row == {"arm": "cubic, t0 = 0.8", "d": repr(1 / 3)}


def test_the_time_figure_is_saved_with_every_test(written: Path) -> None:
    rows = read(written.parent / "figures/small-cnn-on-digits-time.csv")
    for run in RUNS:
        if run.cell == CELL:
            tests = [row for row in rows if row["what"] == "test" and row["run"] == run.name]
            assert [(int(row["step"]), float(row["error_percent"])) for row in tests] == [
                (test.step, test.error) for test in run.tested
            ]


def test_arms_are_marked_alike_in_legend_and_figures(shown: Page) -> None:
    buttons = [attrs for tag, attrs in shown.elements if tag == "button" and "data-arm" in attrs]
    assert all(button["aria-pressed"] == "true" for button in buttons)
    named = {button["data-arm"] for button in buttons}
    used = {arm for arms in shown.values("data-arms") for arm in arms.split()}
    assert used == named


def test_markup_in_names_stays_text(tmp_path: Path) -> None:
    run = record(
        EVIL,
        cell=EVIL,
        arm=EVIL,
        layers=3,
        layer_names=(EVIL,) * 3,
        device=EVIL,
        precision=EVIL,
        predicted=0.2,
        measured=0.2,
        tests=3,
        windows=5,
    )
    table = Table("t", EVIL, (Column(EVIL, EVIL, unit=EVIL),), ((EVIL,), (1,)), EVIL)
    section = Section(run.cell, EVIL, (EVIL,), (table,))
    path = write(
        tmp_path, [run], title=EVIL, date=EVIL, sections=[section], left_out=[(EVIL, EVIL)]
    )
    found = Page(path.read_text(encoding="utf-8"))
    assert found.count("script") == 1
    assert found.count("img") == 0
    assert not found.values("onerror")
    assert found.text.count(EVIL) > 15


@pytest.mark.usefixtures("few_figures")
def test_names_no_page_can_hold_are_mended(tmp_path: Path) -> None:
    run = record("a\x00b\ud800", arm="c\x1bd", cell="\x07", predicted=0.1, measured=0.1)
    source = write(tmp_path, [run]).read_text(encoding="utf-8")
    assert "a\ufffdb\ufffd" in source
    assert not set(source) & set("\x00\x07\x1b")
    assert (tmp_path / "tables/cell-runs.csv").read_text(encoding="utf-8").count("\ufffd") >= 4


def test_the_same_runs_give_the_same_bytes(written: Path, tmp_path: Path) -> None:
    write(tmp_path, RUNS, sections=SECTIONS, left_out=LEFT_OUT)
    files = sorted(path.relative_to(tmp_path) for path in tmp_path.rglob("*.*"))
    assert len(files) > 20
    for file in files:
        assert (tmp_path / file).read_bytes() == (written.parent / file).read_bytes()


@pytest.fixture
def few_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only one kind of figure, where it does not matter which."""
    monkeypatch.setattr("freezeout.lab.report.page.view.CELL_FIGURES", (TimeFigure,))
    monkeypatch.setattr("freezeout.lab.report.page.view.CROSS_FIGURES", ())


@pytest.mark.usefixtures("few_figures")
def test_files_of_an_older_page_go_and_others_stay(tmp_path: Path) -> None:
    brief = [record(tests=3, windows=5, layers=2, cell="old")]
    write(tmp_path, brief)
    (tmp_path / "figures/mine.png").write_text("mine")
    assert (tmp_path / "figures/old-time.png").exists()
    write(tmp_path, [record(tests=3, windows=5, layers=2, cell="new")])
    assert not (tmp_path / "figures/old-time.png").exists()
    assert (tmp_path / "figures/new-time.png").exists()
    assert (tmp_path / "figures/mine.png").read_text() == "mine"


@pytest.mark.usefixtures("few_figures")
@pytest.mark.parametrize("kind", ["pdf", "svg"])
def test_the_figures_files_are_of_the_wanted_kind(tmp_path: Path, kind: str) -> None:
    brief = [record(tests=3, windows=5, layers=2, cell="a")]
    write(tmp_path, brief)
    page = Page(write(tmp_path, brief, figures=kind).read_text(encoding="utf-8"))
    assert f"figures/a-time.{kind}" in page.values("href")
    assert f"{kind.upper()} · CSV" in page.text
    names = {path.name for path in (tmp_path / "figures").iterdir()}
    assert names == {f"a-time.{kind}", "a-time.csv"}, "the PNG of the older page is gone"
    start = (tmp_path / f"figures/a-time.{kind}").read_bytes()[:4]
    assert start == {"pdf": b"%PDF", "svg": b"<svg"}[kind]


@pytest.mark.usefixtures("few_figures")
def test_a_page_of_someone_else_is_no_list_of_ours(tmp_path: Path) -> None:
    (tmp_path / "figures").mkdir()
    (tmp_path / "figures/kept.png").write_text("mine")
    (tmp_path / "report.html").write_text('<a href="figures/kept.png">')
    write(tmp_path, [record(tests=3, windows=5, layers=2)])
    assert (tmp_path / "figures/kept.png").exists()


@pytest.mark.usefixtures("few_figures")
def test_an_old_page_stays_whole_if_writing_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    brief = [record(tests=3, windows=5, layers=2)]
    path = write(tmp_path, brief)
    before = path.read_bytes()
    real = Path.replace

    def fail(self: Path, target: Path) -> Path:
        if "report.html" in self.name:
            raise OSError("disk full")
        return real(self, target)

    monkeypatch.setattr(Path, "replace", fail)
    with pytest.raises(RunError, match=r"report\.html: disk full"):
        write(tmp_path, brief, title="another")
    assert path.read_bytes() == before
    assert not list(tmp_path.rglob("*part"))


def test_nothing_is_written_if_drawing_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> str:
        raise RuntimeError("no")

    monkeypatch.setattr("freezeout.lab.report.page.view.render_page", fail)
    with pytest.raises(RuntimeError):
        write(tmp_path / "new", [record()])
    assert not (tmp_path / "new").exists()


@pytest.mark.usefixtures("few_figures")
def test_cells_of_like_names_get_their_own_files(tmp_path: Path) -> None:
    runs = [
        record(f"r{i}", cell=cell, tests=3, windows=5, layers=2)
        for i, cell in enumerate(("A b", "a-B", "all", "—"))
    ]
    write(tmp_path, runs)
    names = {path.name for path in (tmp_path / "tables").iterdir()}
    assert names == {"a-b-runs.csv", "a-b-2-runs.csv", "all-2-runs.csv", "cell-runs.csv"}


@pytest.mark.slow
def test_sixty_runs_make_a_page_fit_to_commit(tmp_path: Path) -> None:
    runs = comparison(seeds=9, layers=40)
    path = write(tmp_path, runs)
    assert len(runs) > 60
    assert path.stat().st_size < 1_200_000


@pytest.mark.parametrize(
    ("runs", "options", "message"),
    [
        ([], {}, "at least one run, got none"),
        ([record(), record()], {}, "must be unique, got 'cubic-0.8-s0' 2 times"),
        ([record()], {"sections": [Section("no", "no")]}, "or None, got 'no'"),
        (
            [record()],
            {"sections": [Section(CELL, "a"), Section(CELL, "b")]},
            "may have one section, got 2",
        ),
        (
            [record()],
            {"sections": [Section(None, "a", (), (TABLE, TABLE))]},
            "ids of tables must be unique",
        ),
        (
            [record()],
            {"sections": [Section(None, "a", (), (Table("../x", "", (), ()),))]},
            "a-z, 0-9 and hyphens",
        ),
        (
            [record()],
            {"sections": [Section(CELL, "a", (), (Table("runs", "", (), ()),))]},
            "'runs'",
        ),
    ],
)
def test_bad_arguments_say_what_to_do(
    runs: list[RunRecord], options: dict[str, object], message: str, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=message):
        write(tmp_path / "r", runs, **options)
    assert not (tmp_path / "r").exists()


def test_matplotlib_is_loaded_only_to_draw() -> None:
    code = (
        "import sys\n"
        "import freezeout.lab.report, freezeout.lab.report.page\n"
        "assert 'matplotlib' not in sys.modules\n"
        "import freezeout.lab.report.figures\n"
        "assert 'matplotlib.pyplot' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_pipe_in_the_place_of_an_older_page_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "report.html")
    with pytest.raises(OSError, match="not a regular file"):
        write_report(tmp_path, [RUNS[0]], title="A", date="2017-06-15", sections=[])
