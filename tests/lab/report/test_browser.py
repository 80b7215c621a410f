"""The page of a report in a real browser, opened from disk."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from freezeout.lab.report import Section
from freezeout.lab.report.page import write_report
from tests.lab.report.records import CELL, comparison, cut_short, record

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
CHROMIUM = shutil.which("chromium")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed")
EVIL = "<script>alert(1)</script>"
RUNS = [
    *comparison(seeds=2),
    record(EVIL, arm=f"{EVIL} and a very long name of an arm " * 3, predicted=0.1, measured=0.12),
    cut_short(record("short", cell="another cell", seed=7)),
]
ARM = "cubic, t0 = 0.5"


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> str:
    section = Section(CELL, CELL, ("A sentence.",))
    folder = tmp_path_factory.mktemp("report")
    return write_report(folder, RUNS, title="A report", date="today", sections=[section]).as_uri()


@pytest.fixture(scope="module")
def browser() -> "Iterator[playwright.Browser]":
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(
            executable_path=CHROMIUM,
            args=[
                "--no-sandbox",
                "--disable-gpu",
                "--disable-background-networking",
                "--disable-component-update",
                "--disable-sync",
                "--no-first-run",
            ],
        )
        yield browser
        browser.close()


def open_page(
    browser: "playwright.Browser", address: str, width: int = 1280, **options: object
) -> "playwright.Page":
    context = browser.new_context(
        viewport={"width": width, "height": 900}, reduced_motion="reduce", **options
    )
    page = context.new_page()
    page.set_default_timeout(60_000)
    page.problems = []
    page.on("console", lambda message: page.problems.append(message.text))
    page.on("pageerror", lambda error: page.problems.append(str(error)))
    page.on("dialog", lambda dialog: (page.problems.append(dialog.message), dialog.dismiss()))
    page.requests = []
    page.on("request", lambda request: page.requests.append(request.url))
    page.goto(address)
    return page


@pytest.fixture
def page(browser: "playwright.Browser", address: str) -> "Iterator[playwright.Page]":
    page = open_page(browser, address)
    yield page
    assert page.problems == []
    page.context.close()


def test_the_page_asks_for_nothing(page: "playwright.Page", address: str) -> None:
    page.wait_for_timeout(200)
    assert [url for url in page.requests if not url.startswith("data:")] == [address]


def mark(page: "playwright.Page", figure: str, text: str) -> "playwright.Locator":
    """A point whose note starts with a text; the script has taken the notes, so ask before it."""
    index = page.evaluate(
        """([figure, text]) => {
            const page = new DOMParser().parseFromString(document.source, "text/html");
            const marks = [...page.querySelectorAll(`#${figure} > .wide .mark`)];
            return marks.findIndex((mark) => mark.querySelector("use")
                && mark.querySelector("title").textContent.startsWith(text));
        }""",
        [figure, text],
    )
    assert index >= 0
    return page.locator(f"#{figure} > .wide .mark").nth(index)


def load_source(page: "playwright.Page", address: str) -> None:
    source = Path(address.removeprefix("file://")).read_text(encoding="utf-8")
    page.evaluate("(source) => { document.source = source; }", source)


@pytest.mark.parametrize("figure", ["tradeoff", "time"])
def test_pointing_at_a_run_names_it(page: "playwright.Page", address: str, figure: str) -> None:
    run = next(run for run in RUNS if run.arm == ARM)
    load_source(page, address)
    tip = page.locator("#tip")
    assert tip.is_hidden()
    point = mark(page, f"small-cnn-on-digits-{figure}", run.name).locator("use")
    point.scroll_into_view_if_needed()
    box = point.bounding_box()
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    assert run.name in tip.inner_text()
    assert f"{run.error:.2f} %" in tip.inner_text()
    page.keyboard.press("Escape")
    assert tip.is_hidden()


def test_lines_can_be_pointed_at_and_names_stay_text(page: "playwright.Page") -> None:
    line = page.locator("#small-cnn-on-digits-steps > .wide .mark path.hit").last
    line.scroll_into_view_if_needed()
    x, y = line.evaluate(
        """(path) => {
            const at = path.getPointAtLength(path.getTotalLength() / 2);
            const spot = at.matrixTransform(path.getScreenCTM());
            return [spot.x, spot.y];
        }"""
    )
    page.mouse.move(x, y + 3)
    assert page.locator("#tip").is_visible()
    svg = page.locator("#small-cnn-on-digits-tradeoff > .wide")
    svg.focus()
    marks = svg.locator(".mark").count()
    seen = ""
    for _ in range(marks):
        page.keyboard.press("ArrowLeft")
        seen = page.locator("#tip").inner_text()
        if seen.startswith(EVIL):
            break
    assert seen.startswith(EVIL), "reached by keyboard, shown as text"


def test_a_button_hides_an_arm_in_every_figure_of_its_cell(page: "playwright.Page") -> None:
    legend = page.locator("#small-cnn-on-digits .legend")
    button = legend.get_by_role("button", name=ARM, exact=True)
    arm = button.get_attribute("data-arm")
    count = """(arm) => [...document.querySelectorAll("#small-cnn-on-digits figure > .wide")].map(
        (svg) => [...svg.querySelectorAll("[data-arms]")].filter((part) =>
            part.dataset.arms.split(" ").includes(arm)
            && part.getClientRects().length > 0).length)"""
    before = page.evaluate(count, arm)
    other = page.evaluate(count, legend.get_by_role("button").first.get_attribute("data-arm"))
    assert len(before) == 4
    assert min(before) > 0
    button.focus()
    page.keyboard.press("Enter")
    assert button.get_attribute("aria-pressed") == "false"
    assert page.evaluate(count, arm) == [0, 0, 0, 0]
    first = legend.get_by_role("button").first.get_attribute("data-arm")
    assert page.evaluate(count, first) == other, "another arm went too"
    elsewhere = page.locator(f"#all [data-arms~='{arm}']")
    assert elsewhere.first.evaluate("(part) => !part.closest('.off')")
    button.click()
    assert button.get_attribute("aria-pressed") == "true"
    assert page.evaluate(count, arm) == before
    button.click()
    legend.get_by_role("button", name="show all").click()
    assert page.evaluate(count, arm) == before


@pytest.mark.parametrize(
    ("width", "shown", "hidden"), [(360, "narrow", "wide"), (1280, "wide", "narrow")]
)
def test_every_width_has_its_figures_and_never_scrolls_sideways(
    browser: "playwright.Browser", address: str, width: int, shown: str, hidden: str
) -> None:
    page = open_page(browser, address, width)
    page.evaluate("document.querySelectorAll('details').forEach((one) => { one.open = true; })")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.evaluate("document.body.scrollWidth") <= width
    for figure in page.locator("figure").all():
        assert figure.locator(f"> .{shown}").is_visible()
        assert figure.locator(f"> .{hidden}").is_hidden()
        assert figure.locator(f"> .{shown}").bounding_box()["width"] > 0.7 * min(width, 700)
    assert page.problems == []
    page.context.close()


def test_names_of_runs_keep_to_one_line_and_results_are_in_sight(page: "playwright.Page") -> None:
    page.locator("#small-cnn-on-digits summary").click()
    table = page.locator("#small-cnn-on-digits details table")
    name = table.locator("th.whole").first
    lines = "(e) => { const r = document.createRange(); r.selectNodeContents(e); "
    assert name.evaluate(lines + "return r.getClientRects().length; }") == 1
    box = page.locator("#small-cnn-on-digits details .scroll").bounding_box()
    for title in ("test error", "training time", "saving measured"):
        head = table.get_by_role("columnheader", name=title, exact=True).bounding_box()
        assert head["x"] + head["width"] <= box["x"] + box["width"], title


def test_the_page_follows_the_colour_scheme(browser: "playwright.Browser", address: str) -> None:
    grounds, inks = [], []
    for scheme in ("light", "dark"):
        page = open_page(browser, address, color_scheme=scheme)
        grounds.append(page.evaluate("getComputedStyle(document.body).backgroundColor"))
        inks.append(
            page.evaluate("getComputedStyle(document.querySelector('figure > svg text')).fill")
        )
        page.context.close()
    assert grounds == ["rgb(255, 255, 255)", "rgb(20, 24, 28)"]
    assert inks == ["rgb(31, 35, 40)", "rgb(230, 232, 235)"]


def test_without_script_everything_is_there(browser: "playwright.Browser", address: str) -> None:
    page = open_page(browser, address, java_script_enabled=False)
    assert page.locator("figure > .wide").count() == 4 + 3 + 1
    assert all(svg.is_visible() for svg in page.locator("figure > .wide").all())
    assert page.locator("figure > .wide .mark > title").first.text_content()
    assert page.locator(".legend button").first.is_disabled()
    assert page.locator(".legend button.all").first.is_hidden()
    summary = page.locator("#small-cnn-on-digits summary").last
    assert page.locator("#small-cnn-on-digits details table").is_hidden()
    summary.click()
    assert page.locator("#small-cnn-on-digits details table").is_visible()
    page.context.close()


def test_a_tap_shows_the_note_and_a_tap_elsewhere_hides_it(
    browser: "playwright.Browser", address: str
) -> None:
    page = open_page(browser, address, 360, has_touch=True)
    point = page.locator("#small-cnn-on-digits-tradeoff > .narrow .mark use").last
    point.scroll_into_view_if_needed()
    box = point.bounding_box()
    page.touchscreen.tap(box["x"] + 5, box["y"] + 5)
    tip = page.locator("#tip")
    assert tip.is_visible()
    edges = tip.bounding_box()
    assert edges["x"] >= 0
    assert edges["x"] + edges["width"] <= 360
    heading = page.locator("#small-cnn-on-digits-tradeoff h3").bounding_box()
    page.touchscreen.tap(heading["x"] + 5, heading["y"] + 5)
    assert tip.is_hidden()
    page.context.close()
