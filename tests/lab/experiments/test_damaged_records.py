"""Damaged records: each costs itself and is said; no other run, and no report, suffers."""

import io
import json
import math
import random
import shutil
from dataclasses import replace

import pytest

from freezeout import plan
from freezeout.errors import FreezeOutError, RunError
from freezeout.lab.evidence import compare, comparison_csv
from freezeout.lab.experiments import Label, read_run, read_runs, run_job
from freezeout.lab.experiments.job import failure
from freezeout.lab.report import section_of, write_report
from freezeout.lab.report.terminal import ComparisonTables, print_to
from freezeout.lab.training import RunFolder
from tests.lab.experiments.damage import FILES, damage
from tests.lab.experiments.small_experiments import job
from tests.lab.other_user import folder_of_another_user
from tests.strategies import made_costs

ROUNDS = 100
HOSTILE = "<script>alert(\"1\")</script> & 'é'"


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Four arms of one seed, as an experiment leaves them."""
    root = tmp_path_factory.mktemp("whole") / "runs"
    labels = {
        "baseline": Label(cell="small", arm="baseline", kind="baseline"),
        "variant": Label(cell="small", arm="cubic:0.6", kind="variant"),
        "equal": Label(cell="small", arm="equal time", kind="equal-time", of="cubic:0.6"),
        "control": Label(cell="small", arm="rates only", kind="control", of="cubic:0.6"),
    }
    changes = {"baseline": {"t0": 1.0}, "equal": {"t0": 1.0, "steps": 9}}
    changes["control"] = {"freeze": False}
    for name, label in labels.items():
        done = job(root / "cell" / name / "seed-0", **changes.get(name, {}))
        done = replace(done, label=label, keep_checkpoint=False)
        assert run_job(done) == "done"
    folder = RunFolder(root / "cell" / "variant" / "seed-0")
    made = made_costs([0.3, 1.0, 0.2, 0.9], names=read_run(folder.path).layer_names)
    folder.write_plan(plan(made, 12, t0=0.6))
    return root


@pytest.fixture
def runs(whole, tmp_path):
    """A copy to be damaged: its root, and the folder of the variant."""
    shutil.copytree(whole, tmp_path / "runs")
    return tmp_path / "runs", tmp_path / "runs" / "cell" / "variant" / "seed-0"


def test_whatever_is_damaged_what_comes_out_can_be_shown(whole, tmp_path):
    left_out = 0
    for seed in range(ROUNDS):
        choose = random.Random(seed)
        root = tmp_path / "runs"
        shutil.copytree(whole, root)
        folders = sorted(path.parent for path in root.rglob("settings.toml"))
        done = [damage(folder, choose) for folder in choose.sample(folders, choose.choice((1, 2)))]
        records, unread = read_runs([root])
        assert len(records) + len(unread) == 4, done
        assert len({run.name for run in (*records, *unread)}) == 4, done
        left_out += len(unread)
        for record in records:
            assert_right(record, done)
        for run in unread:
            assert run.reason.isprintable(), done
            assert 0 < len(run.reason) < 500, done
        comparisons = compare(records)
        comparison_csv(comparisons).encode()
        for comparison in comparisons:
            section_of(comparison)
            print_to(io.TextIOWrapper(io.BytesIO(), encoding="utf-8"), ComparisonTables(comparison))
        shutil.rmtree(root)
    assert left_out > ROUNDS / 2  # nearly all damage is seen


def assert_right(record, done):
    """All numbers are what a run can have."""
    texts = (record.cell, record.arm, record.model, record.data, record.device, record.name)
    assert all(text and text.isprintable() for text in texts), done
    assert 0 <= record.steps <= record.total_steps <= 10**12, done
    assert len(record.freeze_steps) == len(record.layer_names), done
    assert all(math.isfinite(rate) for one in record.rates for rate in one), done
    steps = [test.step for test in record.tested]
    assert steps == sorted(steps), done
    assert all(0 <= test.error <= 100 and test.seconds >= 0 for test in record.tested), done
    assert all(time.seconds >= 0 for time in record.step_times), done
    assert 0 <= record.train_seconds < 1e13, done
    for saving in (record.measured, record.predicted, *(record.predicted_interval or ())):
        assert saving is None or -1e25 < saving <= 1, done


@pytest.mark.parametrize("name", FILES)
def test_one_damaged_file_costs_one_record_and_is_said_in_one_line(runs, name):
    root, folder = runs
    (folder / name).write_bytes(b'{"event": "sta\xff\n\n')
    records, unread = read_runs([root])
    assert [record.kind for record in records] == ["baseline", "control", "equal-time"]
    assert [run.name for run in unread] == ["variant/seed-0"]
    assert name in unread[0].reason
    assert unread[0].reason.isprintable()
    if name != "failed.json":
        with pytest.raises(FreezeOutError, match=name):
            read_run(folder)


def change(path, line=0, **values):
    """Change entries as by hand: there is no digest that could tell."""
    text = path.read_text()
    lines = [json.loads(one) for one in (text.splitlines() if path.suffix == ".jsonl" else [text])]
    lines[line].update(values)
    kept = ({k: v for k, v in one.items() if k not in ("digest", "sum")} for one in lines)
    path.write_text("".join(json.dumps(one) + "\n" for one in kept))


@pytest.mark.parametrize(
    ("name", "line", "values", "words"),
    [
        ("log.jsonl", 0, {"total_steps": -1}, "'total_steps' of the start must be a whole number"),
        ("log.jsonl", 0, {"total_steps": "12"}, "'total_steps' of the start must be a whole"),
        ("log.jsonl", 0, {"total_steps": 10**13}, "'total_steps' of the start must be a whole"),
        ("log.jsonl", 0, {"total_steps": 10**300}, "an integer beyond 64 bits"),
        ("log.jsonl", 0, {"layers": "stem"}, "'layers' of the start must be a list"),
        ("log.jsonl", 0, {"layers": ["a", "b\n"]}, "'layers' of the start must be a text"),
        ("log.jsonl", 0, {"freeze_steps": [3, 5]}, "it has 5 layers and 2 steps at which they"),
        ("log.jsonl", 0, {"epoch_steps": 1.5}, "'epoch_steps' of the start must be a whole"),
        ("log.jsonl", 0, {"settings": []}, "'settings' of the start must be an object"),
        ("log.jsonl", 0, {"event": 3}, "'event' of entry 1 must be a text"),
        ("log.jsonl", -2, {"seconds": -1.0}, "'seconds' of epoch 3 must be a number from 0"),
        ("log.jsonl", -2, {"seconds": None}, "'seconds' of epoch 3 must be a number from 0"),
        ("log.jsonl", -2, {"seconds": 1e-300}, "'seconds' of epoch 3 must be 0 or at least 1e-09"),
        ("log.jsonl", -2, {"step": 13}, "'step' of epoch 3 must be a whole number from 0 to 12"),
        ("log.jsonl", -2, {"step": 1}, "its epochs are not in order"),
        ("log.jsonl", -2, {"test_error": 101}, "'test_error' of epoch 3 must be a number"),
        ("log.jsonl", -2, {"frozen": 6}, "'frozen' of epoch 3 must be a whole number from 0 to 5"),
        ("summary.json", 0, {"step_times": [[1, 2]]}, "'step_times' must hold lists of three"),
        ("summary.json", 0, {"step_times": [[1, -1, 0]]}, "'step_times' must be a number from 0"),
        ("summary.json", 0, {"step_times": [[2, 1, 0], [1, 1, 0]]}, "are not in order"),
        ("summary.json", 0, {"train_seconds": 1e300}, "'train_seconds' must be a number from 0 to"),
        ("summary.json", 0, {"saving": 2}, "'saving' must be a number from -1e.06 to 1"),
        ("summary.json", 0, {"interrupted": "no"}, "'interrupted' must be true or false"),
        ("summary.json", 0, {"device": "\x1b[31m"}, "'device' must be a text that can be printed"),
        ("summary.json", 0, {"peak_memory": -1}, "'peak_memory' must be a whole number"),
        ("arm.json", 0, {"kind": "other"}, "'kind' must be one of baseline, equal-time, "),
        ("arm.json", 0, {"kind": "control"}, "'of' does not fit the kind 'control'"),
        ("arm.json", 0, {"of": "me"}, "'of' does not fit the kind 'variant'"),
        ("arm.json", 0, {"cell": ""}, "'cell' must be a text that can be printed"),
        ("arm.json", 0, {"cell": "\ud800"}, "'cell' must be a text that can be printed"),
        ("arm.json", 0, {"more": 1}, "'more' is no entry of it"),
    ],
)
def test_a_value_that_no_run_has_is_named_with_its_file(runs, name, line, values, words):
    _, folder = runs
    change(folder / name, line, **values)
    with pytest.raises(RunError, match=rf"{name} is damaged: .*{words}") as caught:
        read_run(folder)
    assert "\n" not in str(caught.value)


def test_a_changed_value_is_seen_by_the_digest(runs):
    root, folder = runs
    path = folder / "summary.json"
    path.write_text(path.read_text().replace('"interrupted": false', '"interrupted": true'))
    _, unread = read_runs([root])
    assert "its digest is another" in unread[0].reason


def test_settings_that_changed_since_the_run_was_begun_are_seen(runs):
    root, folder = runs
    path = folder / "settings.toml"
    lines = path.read_text().splitlines(keepends=True)
    text = "".join(line for line in lines if not line.startswith("# digest"))  # as by hand
    path.write_text(text.replace("momentum = 0.9\n", "momentum = 0.8\n"))
    _, unread = read_runs([root])
    assert "it has another momentum than the log says" in unread[0].reason
    path.write_text(text.replace('device = "cpu"', 'device = "cuda"'))  # may move
    assert read_runs([root])[1] == []


def test_an_epoch_that_was_logged_twice_counts_once(runs):
    _, folder = runs
    before = read_run(folder)
    (folder / "summary.json").unlink()
    path = folder / "log.jsonl"
    lines = path.read_text().splitlines(keepends=True)
    second = next(i for i, line in enumerate(lines) if '"epoch": 2' in line)
    path.write_text("".join([*lines[: second + 1], *lines[second:]]))
    record = read_run(folder)
    assert record.tested == before.tested
    assert [time.step for time in record.step_times] == [4, 8, 12]
    assert record.train_seconds == pytest.approx(before.tested[-1].seconds)


def test_a_failure_that_cannot_be_read_is_a_failure(runs):
    _, folder = runs
    assert failure(folder) is None
    path = folder / "failed.json"
    for content in ("", "{", "[]", "{}", '{"reason": 5}', '{"reason": ""}'):
        path.write_text(content)
        assert failure(folder).startswith(("what went wrong cannot", "it failed, but why is not"))
    path.write_text('{"reason": "the loss is NaN."}')
    assert failure(folder) == "the loss is NaN."


def test_roles_that_a_comparison_has_once_are_told_apart(runs):
    root, folder = runs
    for place, arm in (("other", "no freezing"), ("third", "never")):
        shutil.copytree(folder.parents[1] / "baseline", folder.parents[1] / place)
        change(folder.parents[1] / place / "seed-0" / "arm.json", arm=arm)
    again = folder.parents[1] / "again"
    shutil.copytree(folder.parents[1] / "equal", again)
    change(again / "seed-0" / "arm.json", arm="shortened")
    records, unread = read_runs([root])
    assert (len(records), unread) == (7, [])
    assert len(compare(records)) == 4


def test_a_run_that_is_given_twice_is_read_once(runs, monkeypatch):
    root, folder = runs
    monkeypatch.chdir(root.parent)
    (root.parent / "link").symlink_to(root)
    records, _ = read_runs([root, root.parent / "link", folder, folder.relative_to(root.parent)])
    assert len(records) == 4


def test_names_of_folders_are_shown_as_one_line_and_stay_apart(runs):
    root, folder = runs
    names = [HOSTILE.replace("/", "_"), "a\nb", "a\\nb", "\x1b[31m", "a\udcffb"]
    for name in names:
        shutil.copytree(folder, folder.with_name(name))
    records, unread = read_runs([root])
    assert (len(records), unread) == (9, [])
    assert len({record.name for record in records}) == 9
    assert all(record.name.isprintable() for record in records)


def test_what_a_record_says_is_shown_as_text_only(runs, tmp_path):
    root, folder = runs
    for each in folder.parents[1].iterdir():
        change(each / "seed-0" / "arm.json", cell=HOSTILE)
    change(folder / "arm.json", arm=HOSTILE)
    change(folder / "summary.json", device=HOSTILE)
    change(folder / "log.jsonl", layers=[f"{i} {HOSTILE}" for i in range(5)])
    (folder.parents[1] / "baseline" / "seed-0" / "failed.json").write_text(
        json.dumps({"reason": f"{HOSTILE}\n\x00\ud800{HOSTILE}"})
    )
    records, unread = read_runs([root])
    assert (len(records), len(unread)) == (3, 1)
    page = write_report(
        tmp_path / "out",
        records,
        title=HOSTILE,
        date="today",
        sections=[section_of(one) for one in compare(records)],
        left_out=[(run.name, run.reason) for run in unread],
        figures="svg",
    )
    text = page.read_text(encoding="utf-8")
    assert "alert(" in text
    assert "<script>alert" not in text
    for path in page.parent.rglob("*"):
        assert path.name.isascii()
        assert path.suffix in ("", ".html", ".csv", ".svg")
        if path.suffix == ".svg":
            assert "<script" not in path.read_text(encoding="utf-8")


@pytest.mark.parametrize("mode", [0o000, 0o444, 0o111])
def test_a_folder_that_may_not_be_looked_into_is_said(whole, mode):
    read_runs([whole])  # as this user, what is needed is imported
    files = [*(whole / "cell" / "variant" / "seed-0").iterdir()]
    contents = {path.name: path.read_bytes() for path in files}
    with folder_of_another_user() as place:
        for name in ("open", "closed"):
            (place / name).mkdir()
            for file, content in contents.items():
                (place / name / file).write_bytes(content)
        (place / "closed").chmod(mode)
        try:
            records, unread = read_runs([place])
            assert [record.name for record in records] == ["open"]
            assert len(unread) == 1
            assert "Permission denied" in unread[0].reason
            if mode != 0o444:
                with pytest.raises(RunError, match=r"cannot look into .*: Permission denied"):
                    read_runs([place / "closed"])
            with pytest.raises(RunError, match=r"closed.below"):
                read_runs([place / "closed" / "below"])
        finally:
            (place / "closed").chmod(0o755)


@pytest.mark.parametrize("name", ["x" * 300, "x/" * 3000])
def test_names_that_no_system_takes_are_refused(tmp_path, name):
    with pytest.raises(RunError, match=r"cannot look into .*: File name too long"):
        read_runs([tmp_path / name])
