"""The table and files that the scaled-down set leaves for the documentation."""

import csv

from benchmarks.paper import small, tables
from freezeout.lab.evidence import Arm, compare_arms
from freezeout.lab.experiments import Experiment, Grid
from tests.lab.runs import SMALL, Here, train


def arms(names):
    yield Arm(name="full", kind="baseline", errors={0: 6.0, 1: 7.0}, seconds={0: 100, 1: 100})
    for name in names:
        yield Arm(name=name, kind="variant", errors={0: 6.5, 1: 7.25}, seconds={0: 80, 1: 80})
        yield Arm(
            name=f"{name} short",
            kind="equal-time",
            of=name,
            errors={0: 6.25, 1: 7.5},
            seconds={0: 80, 1: 84},
        )


def test_the_table_has_a_line_for_each_variant():
    table = tables.markdown([compare_arms(list(arms(["a"])), cell="net on data")])
    head, rule, line = table.splitlines()
    assert head.count("|") == rule.count("|") == line.count("|")
    cells = [cell.strip() for cell in line.strip("|").split("|")]
    assert cells[:2] == ["net on data", "2"]
    assert cells[2].startswith("6.50 ± 6.35 %")  # t of one degree of freedom: 12.706 / 2
    assert cells[3].startswith("6.88 ± ")
    assert cells[5].startswith("+0.00 (")
    assert cells[6].startswith("+0.38 (")
    assert cells[7] == "20.0 % (20.0 to 20.0)"
    assert cells[8].startswith("+2.5 % (")
    assert cells[9] == "undecided"
    two = tables.markdown([compare_arms(list(arms(["a", "b"])), cell="net on data")])
    assert [line.split(" | ")[0] for line in two.splitlines()[2:]] == [
        "| net on data, a",
        "| net on data, b",
    ]


def test_an_unfinished_set_is_not_committed(tmp_path, capsys):
    train(tmp_path / "runs" / "a")
    (tmp_path / "runs" / "a" / "summary.json").unlink(missing_ok=True)
    assert small.main([str(tmp_path), "--out", str(tmp_path / "out")]) == 2
    assert "are not finished, such as a" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
    assert small.main([str(tmp_path / "none")]) == 2


def test_a_finished_set_leaves_page_tables_and_machine(tmp_path, capsys):
    values = {**SMALL, "threads": 1, "arms": {"equal_time": True}}
    experiment = Experiment(tmp_path / "set", Grid.from_dict(values, "test"))
    assert experiment.run(Here())
    out = tmp_path / "out"
    assert small.main([str(tmp_path / "set"), "--out", str(out)]) == 0
    assert (out / "table.md").read_text() in capsys.readouterr().out
    with (out / "comparison.csv").open(newline="") as file:
        assert [row["kind"] for row in csv.DictReader(file)] == [
            "baseline",
            "variant",
            "equal-time",
        ]
    assert "FreezeOut on three small families" in (out / "report.html").read_text()
    assert '"torch"' in (out / "machine.json").read_text()
