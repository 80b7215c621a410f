"""Every example in README and docs is run, every command parsed, every link followed."""

import csv
import importlib.util
import json
import re
import shlex
from pathlib import Path
from typing import get_type_hints

import pytest
import tomllib

import freezeout
from benchmarks.stacks import tables
from freezeout.lab.cli.parser import make_parser
from freezeout.lab.experiments import EXPERIMENTS, Grid
from freezeout.lab.training import PRESETS
from freezeout.schedule import ScheduleSettings

ROOT = Path(__file__).parents[1]
PAGES = [
    *sorted(ROOT.glob("*.md")),
    *sorted((ROOT / "docs").rglob("*.md")),
    *sorted((ROOT / "src").rglob("*.md")),
]
STACKS = ROOT / "docs" / "integrations"  # run beside the tests of each framework


def name(page):
    return str(page.relative_to(ROOT))


def blocks(page, language):
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text(), re.S | re.M)


@pytest.mark.parametrize(
    "page", [p for p in PAGES if blocks(p, "python") and p.parent != STACKS], ids=name
)
def test_python_examples_run(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    scope = {}
    for block in blocks(page, "python"):
        exec(compile(block, name(page), "exec"), scope)
    if "FreezeOut(" in "".join(blocks(page, "python")):
        assert isinstance(scope["scheduler"], freezeout.FreezeOut)


def test_pages_of_frameworks_are_run_by_their_tests():
    for page in STACKS.glob("*.md"):
        tests = (ROOT / "tests" / "integrations" / f"test_{page.stem}.py").read_text()
        assert f'run_page("{page.stem}")' in tests, page.stem


def test_pages_list_the_settings_of_a_schedule():
    settings = sorted(get_type_hints(ScheduleSettings))
    guide = (ROOT / "docs" / "guide.md").read_text()
    table = guide.partition("## Which schedule\n")[2].partition("\n## ")[0]
    assert sorted(re.findall(r"^\| `(\w+)` \|", table, re.M)) == settings
    for framework in ("lightning", "transformers"):
        page = (STACKS / f"{framework}.md").read_text()
        takes = re.search(r"takes what `FreezeOut` takes \((.*?), or one `schedule`;", page, re.S)
        assert sorted(re.findall(r"`(\w+)`", takes[1])) == settings, framework


def test_the_readme_shows_the_table_that_its_example_prints():
    scope = {}
    exec(blocks(ROOT / "README.md", "python")[0], scope)
    assert str(scope["scheduler"]) + "\n" in blocks(ROOT / "README.md", "text")
    assert scope["scheduler"].frozen == 2


def commands():
    for page in PAGES:
        for block in blocks(page, "bash"):
            for line in block.splitlines():
                words = shlex.split(line, comments=True)
                if words and words[0] == "freezeout":
                    yield pytest.param(words[1:], id=f"{name(page)}: {' '.join(words)}")


@pytest.mark.parametrize("words", list(commands()))
def test_commands_are_what_the_program_understands(words):
    options = make_parser().parse_args(words)
    known = EXPERIMENTS if words[0] == "sweep" else PRESETS
    assert getattr(options, "preset", None) in {None, *known}


def test_make_targets_in_the_readme_exist():
    targets = re.findall(r"^make ([\w-]+)", "\n".join(blocks(ROOT / "README.md", "bash")), re.M)
    makefile = (ROOT / "Makefile").read_text()
    assert targets == ["demo", "test"]
    for target in targets:
        assert re.search(rf"^{target}:", makefile, re.M)


def anchors(page):
    """The anchors of a page's headings, as GitHub makes them."""
    text = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.S | re.M)
    titles = re.findall(r"^#+ (.+?) *$", text, re.M)
    plain = [re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", title).lower() for title in titles]
    found = [re.sub(r"[^\w\- ]", "", title).replace(" ", "-") for title in plain]
    return {f"{a}-{n}" if n else a for i, a in enumerate(found) for n in [found[:i].count(a)]}


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)]+)\)", page.read_text()):
        if not target.startswith(("http:", "https:")):
            file, _, anchor = target.partition("#")
            there = page.parent / file if file else page
            assert there.exists(), target
            assert not anchor or anchor in anchors(there), target


def test_every_preset_is_described():
    text = (ROOT / "docs" / "training.md").read_text()
    for preset in PRESETS:
        assert f"| `{preset}` |" in text


def test_the_benchmark_page_shows_the_committed_comparison():
    page = (ROOT / "docs" / "benchmarks.md").read_text()
    results = ROOT / "benchmarks" / "results" / "paper-small"
    table = (results / "table.md").read_text()
    assert table in page
    with (results / "comparison.csv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["kind"] == "variant"]
    assert len(rows) == 6
    for row, line in zip(rows, table.splitlines()[2:], strict=True):
        assert int(row["seeds"]) >= 5
        assert line.startswith(f"| {row['cell']} | {row['seeds']} | ")
        assert f"| {float(row['error_percent']):.2f} ± " in line
        assert line.endswith(f"| {row['verdict']} |")
    report = (results / "report.html").read_text()
    for row in rows:
        assert row["cell"] in report
        assert f"{float(row['error_percent']):.2f}" in report


def test_every_experiment_is_described():
    text = (ROOT / "docs" / "comparing.md").read_text()
    for experiment in EXPERIMENTS:
        assert f"| `{experiment}` |" in text


def test_the_sweep_file_of_the_docs_is_one():
    (text,) = blocks(ROOT / "docs" / "comparing.md", "toml")
    grid = Grid.from_dict(tomllib.loads(text), "docs")
    assert grid.size == 2 * 2 * 5 * (1 + 3 * 8)


def test_departures_from_the_paper_name_tests_that_exist():
    text = (ROOT / "docs" / "paper.md").read_text()
    named = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", text)
    assert len(named) >= 10
    for file, test in named:
        assert re.search(rf"^ *def {test}\(", (ROOT / file).read_text(), re.M), f"{file}::{test}"


def test_the_example_of_a_custom_network_learns_and_freezes(capsys):
    spec = importlib.util.spec_from_file_location("custom", ROOT / "examples" / "custom_network.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    accuracy = module.main(epochs=4)
    printed = capsys.readouterr().out
    assert accuracy > 40
    assert re.findall(r"step \d+: (\S+) froze", printed) == [
        "embed",
        "blocks.0",
        "blocks.1",
        "blocks.2",
        "blocks.3",
    ]


def test_the_benchmark_page_shows_the_committed_result():
    page = (ROOT / "docs" / "benchmarks.md").read_text().partition("# Predicted against")[0]
    result = json.loads((ROOT / "benchmarks" / "results" / "step_cost-cpu.json").read_text())
    assert result["passed"] == ("fails" not in page and "undecided |" not in page)
    for row in result["comparisons"]:
        low, high = row["interval"]
        if row["bar"] is not None:
            assert f"| {row['median']:.3f} | {low:.3f} to {high:.3f} |" in page, row["name"]
        elif row["depth"] is not None:
            assert f"| {row['median']:.2f} |" in page, row["name"]
    assert result["versions"]["torch"] in page
    assert result["hardware"]["cpu"] in page
    assert sum(m["prefix_saved"] + m["prefix_state"] for m in result["memory"]) == 0


def test_the_benchmark_page_shows_the_committed_predictions():
    page = (ROOT / "docs" / "benchmarks.md").read_text()
    result = json.loads((ROOT / "benchmarks" / "results" / "predicted_saving-cpu.json").read_text())
    families = {cell["model"].partition("-")[0].rstrip("0123456789") for cell in result["cells"]}
    assert families == {"wrn", "densenet", "vgg", "resnet"}
    assert {(cell["spacing"], cell["t0"]) for cell in result["cells"]} == {
        ("cubic", 0.5),
        ("cubic", 0.8),
        ("linear", 0.5),
        ("linear", 0.8),
    }
    for cell in result["cells"]:
        middle = round(cell["median_difference"], 1) + 0.0  # no -0.0
        largest = round(cell["largest_difference"], 1) + 0.0
        assert (
            f"| {cell['model']} | {cell['schedule']} | {100 * cell['measured']:.1f} % "
            f"| {100 * cell['predicted']:.1f} % | {middle:+.1f} | {largest:+.1f} "
            f"| {100 * cell['paper']:.1f} % | {cell['verdict']} |"
        ) in page
    differences = [abs(d) for cell in result["cells"] for d in cell["differences"]]
    assert len(differences) == 48
    assert f"within {max(differences):.1f} points" in page
    assert result["complete"]
    assert result["passed"] == ("fails |" not in page)
    assert result["versions"]["torch"] in page


def test_the_benchmark_page_shows_the_committed_tables_of_stacks():
    results = [
        json.loads((ROOT / "benchmarks" / "results" / f"{name}-cpu.json").read_text())
        for name in ("ddp_step", "compile_run", "callback_overhead", "examples")
        if name != "examples" or (ROOT / "benchmarks" / "results" / "examples-cpu.json").exists()
    ]
    page = (ROOT / "docs" / "benchmarks.md").read_text()
    assert tables.filled(page, tables.tables(*results)) == page
    assert results[0]["miscounted"] == []
    for network in results[0]["data_parallel"]:
        for row in network["rows"]:
            followed = row["ways"]["followed"]
            assert f"| {network['model']} | {row['depth']} | {followed['reduced']:,} |" in page
            assert f"| {followed['ratio']['median']:.2f} (" in page
    for network in results[1]["networks"]:
        for run in network["runs"]:
            freezing = "yes" if run["freezing"] else "no"
            assert run["warned"] or not run["limit_hit"]
            cells = f"| {run['name']} | {freezing} | {run['graphs']} |"
            assert f"| {network['network']} {cells}" in page
            assert f"| {run['seconds']:.1f} | {run['compiling_seconds']:.1f} |" in page
