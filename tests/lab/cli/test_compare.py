"""The verbs compare, sweep and report: what they print, what they leave, one line for mistakes."""

import csv
import io
import json
import os
import re
import signal
import subprocess
import sys
import time
from contextlib import redirect_stdout
from pathlib import Path

import pytest

from freezeout.errors import RunError
from freezeout.lab.cli import experiments as carry_out
from freezeout.lab.cli import main
from freezeout.lab.cli.compare import _new
from freezeout.lab.cli.parser import make_parser
from freezeout.lab.experiments import Label, read_run, read_runs, run_job
from freezeout.lab.experiments.job import Job, failure, measure_job
from freezeout.lab.experiments.runners import Event, Task
from freezeout.lab.locks import FolderLock
from freezeout.lab.training import RunFolder, Settings, start
from tests.lab.runs import SMALL_ARGUMENTS, assert_same_end, train

SHORT = [*SMALL_ARGUMENTS, "--threads", "1"]
SWEEP = """
model = "resnet-8-8"
data = "digits"
train_size = 64
batch_size = 16
epochs = 2
device = "cpu"
[grid]
t0 = [0.6]
lr = [0.1, {lr}]
"""


def run(capsys, *words):
    code = main([str(word) for word in words])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def refused(capsys, *words):
    code, _, err = run(capsys, *words)
    assert code == 2
    assert err.count("\n") == 1, err
    assert "Traceback" not in err
    return err.strip()


class Here:
    """Stands for a pool, and does all tasks in this process."""

    def __init__(self, processes, threads, logs, tell):
        self.tell = tell

    def run(self, teams, *, deadline=None):
        for task in (task for team in teams for task in team):
            if task.do == "measure":
                measure_job(task.job)
                continue
            outcome = run_job(task.job)
            error = read_run(task.job.folder).error if outcome == "done" else None
            reason = failure(task.job.folder) or ""
            self.tell(Event(task, outcome, error=error, reason=reason))
        return True


@pytest.fixture(scope="module")
def first(tmp_path_factory):
    """The program with its processes: one seed of a comparison, and what it printed."""
    folder = tmp_path_factory.mktemp("cli") / "comparison"
    result = subprocess.run(
        [sys.executable, "-m", "freezeout", "compare", *SHORT, "--seeds", "1", "--out", folder],
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    return folder, result


@pytest.fixture(scope="module")
def compared(first):
    """The same comparison with a second seed, which came in this process, and what that printed."""
    folder, _ = first
    before = {p: p.stat().st_mtime_ns for p in folder.rglob("seed-0/checkpoint.pt")}
    assert len(before) == 4
    printed = io.StringIO()
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(printed):
        patch.setattr(carry_out, "Pool", Here)
        assert main(["compare", "--resume", str(folder), "--seeds", "2"]) == 0
    assert {p: p.stat().st_mtime_ns for p in before} == before
    return folder, printed.getvalue()


pytestmark = pytest.mark.multiprocess


# --- compare -------------------------------------------------------------------------------------


def test_compare_prints_a_table_and_a_sentence(first):
    folder, result = first
    out = result.stdout
    assert result.stderr == ""
    assert "\x1b" not in out
    for words in ("baseline", "cubic:0.6", "equal time", "rates only", "0 of 4 runs are done"):
        assert words in out
    text = " ".join(out.split())
    assert re.search(r"[Ff]reezing (paid|did not pay|made no difference|pays cannot be told)", text)
    assert f"freezeout report {folder}" in out
    assert len(re.findall(r"^\[\d/4, .*seed 0: error \d+\.\d\d %$", out, re.M)) == 4


def test_the_most_freezes_are_those_of_the_variants_not_of_the_baseline(tmp_path):
    words = ("compare", *SMALL_ARGUMENTS, "--out", tmp_path / "new", "--max-freezes", "2")
    variants = ("--variants", "cubic:0.6,cubic:0.8:max_freezes=1")
    for more, names in (
        ((), ["cubic:0.6:max_freezes=2"]),
        (variants, ["cubic:0.6:max_freezes=2", "cubic:0.8:max_freezes=1"]),
    ):
        grid = _new(make_parser().parse_args([str(w) for w in (*words, *more)]), None).grid
        assert [v.name for v in grid.variants] == names
        assert grid.cells[0].settings.max_freezes is None


def test_the_line_of_a_run_tells_its_final_error(first):
    folder, result = first
    told = re.findall(r"resnet-8-8 on digits, (.*), seed (\d): error (\d+\.\d\d) %", result.stdout)
    records, _ = read_runs([folder])
    errors = {(r.arm, str(r.seed)): f"{r.error:.2f}" for r in records}
    assert len(told) == 4
    assert {(arm, seed): error for arm, seed, error in told} == {
        key: errors[key] for key in errors if key[1] == "0"
    }


def test_a_reader_that_goes_away_does_not_stop_an_experiment(monkeypatch):
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w") as gone:
        monkeypatch.setattr(sys, "stdout", gone)
        with carry_out._Display(2) as display:
            display.say("1 of 2 runs are done")
        print("and what is printed later does no harm", flush=True)
        assert os.fstat(gone.fileno()).st_rdev == Path(os.devnull).stat().st_rdev


def test_compare_leaves_the_numbers_as_csv(compared):
    folder, _ = compared
    with (folder / "comparison.csv").open(newline="") as file:
        rows = {row["arm"]: row for row in csv.DictReader(file)}
    assert list(rows) == [
        "baseline",
        "cubic:0.6",
        "cubic:0.6 equal time",
        "cubic:0.6 rates only",
    ]
    records, _ = read_runs([folder])
    errors = [r.error for r in records if r.arm == "baseline"]
    assert float(rows["baseline"]["error_percent"]) == pytest.approx(sum(errors) / 2)
    assert rows["cubic:0.6"]["verdict"] in ("paid", "did not pay", "no difference", "undecided")
    assert rows["cubic:0.6 rates only"]["error_percent"] == rows["cubic:0.6"]["error_percent"]


def test_train_with_the_settings_of_a_run_gives_the_same_numbers(compared, tmp_path, capsys):
    folder, _ = compared
    there = folder / "runs" / "resnet-8-8-on-digits" / "cubic-0.6" / "seed-0"
    words = ("train", "--config", there / "settings.toml", "--out", tmp_path / "run")
    assert main([str(w) for w in words]) == 0
    assert_same_end(RunFolder(tmp_path / "run"), RunFolder(there))
    here = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert here["test_error"] == json.loads((there / "summary.json").read_text())["test_error"]


def test_a_comparison_gets_more_seeds_and_repeats_nothing(compared, capsys):
    folder, printed = compared
    assert "4 of 8 runs are done" in printed
    assert len(re.findall(r"^\[[5-8]/8, .*seed 1: error \d+\.\d\d %$", printed, re.M)) == 4
    text = " ".join(printed.split())
    assert re.search(r"[Ff]reezing (paid|did not pay|made no difference|pays cannot be told)", text)
    code, out, _ = run(capsys, "compare", "--resume", folder)
    assert code == 0
    assert "8 of 8 runs are done" in out
    line = refused(capsys, "compare", "--resume", folder, "--seeds", 1)
    assert "has 2 seeds already, got --seeds 1" in line


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--variants", "cube:0.8"), "a variant must be SPACING:T0"),
        (("--variants", "cubic:0.8,cubic:0.8"), "variant 'cubic:0.8' is given twice"),
        (("--t0", "1"), "there is nothing to compare: t0=1 freezes nothing"),
        (("--seeds", "0"), "--seeds must lie in 1 to 1000, got 0"),
        (("--margin", "0"), "--margin must lie between 0 and 100 points, got 0.0"),
        (("--no-freeze",), "--no-freeze cannot be given to compare"),
        (("--const-time",), "--const-time cannot be given to compare"),
        (("--device", "cuda:77"), "device 'cuda:77' is not there"),
        (("--processes", "0"), "--processes must lie in 1 to 1024, got 0"),
        (("--minutes", "0"), "--minutes must be above 0, got 0.0"),
        (("--minutes", "nan"), "--minutes must be above 0, got nan"),
        (("--epochs", "0"), "epochs must be at least 1"),
        (("--resume", "none"), "there is no description of an experiment none"),
        (("--train-size", "100000"), "train_size must be at most"),
    ],
)
def test_compare_refuses_in_one_line(words, message, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert message in refused(capsys, "compare", "--data", "digits", *words) or (
        "--resume" in words and message in refused(capsys, "compare", *words)
    )
    if "--train-size" not in words:  # then there is an experiment to go on with
        assert list(tmp_path.iterdir()) == []


def test_a_resumed_comparison_keeps_its_settings(compared, capsys):
    folder, _ = compared
    line = refused(capsys, "compare", "--resume", folder, "--epochs", 9)
    assert "--epochs cannot be given with --resume" in line
    line = refused(capsys, "compare", *SHORT, "--lr", 0.2, "--out", folder)
    assert f"freezeout compare --resume {folder}" in line


def test_the_same_command_in_the_same_folder_goes_on(compared, capsys):
    folder, _ = compared
    code, out, _ = run(capsys, "compare", *SHORT, "--seeds", 2, "--out", folder)
    assert code == 0
    assert "8 of 8 runs are done" in out


# --- sweep ---------------------------------------------------------------------------------------


def test_a_sweep_tells_what_failed_and_goes_on(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(carry_out, "Pool", Here)
    file = tmp_path / "my.toml"
    file.write_text(SWEEP.format(lr="1e25"))
    code, out, err = run(capsys, "sweep", file, "--out", tmp_path / "sweep")
    assert code == 2
    assert err.count("\n") == 1
    assert "2 runs failed, the others are done. First: " in err
    assert len(re.findall("^failed: .*: training diverged", out, re.M)) == 2
    assert "training diverged" in err
    assert "--retry" in err
    assert len(re.findall(r": error \d+\.\d\d %$", out, re.M)) == 2
    code, out, err = run(capsys, "sweep", file, "--out", tmp_path / "sweep")
    assert code == 2  # nothing to do, and still two that failed
    assert "2 of 4 runs are done" in out
    other = tmp_path / "other.toml"
    other.write_text(SWEEP.format(lr="0.2").replace("epochs = 2", "epochs = 3"))
    line = refused(capsys, "sweep", other, "--out", tmp_path / "sweep")
    assert "holds a run with epochs=2, but 3 is asked for" in line


def test_a_sweep_of_which_runs_are_left_does_not_end_well(tmp_path, monkeypatch, capsys):
    class Idle(Here):
        def run(self, teams, *, deadline=None):
            return True

    monkeypatch.setattr(carry_out, "Pool", Idle)
    file = tmp_path / "my.toml"
    file.write_text(SWEEP.format(lr="0.2").replace("t0 = [0.6]", "t0 = [1.0]"))
    line = refused(capsys, "sweep", file, "--out", tmp_path / "sweep")
    assert "2 of 2 runs are not done, though none failed" in line
    assert line.endswith(f"freezeout sweep --resume {tmp_path / 'sweep'}")


def test_a_dry_run_lists_and_runs_nothing(tmp_path, capsys):
    file = tmp_path / "my.toml"
    file.write_text(SWEEP.format(lr="0.2"))
    code, out, _ = run(capsys, "sweep", file, "--out", tmp_path / "sweep", "--dry-run")
    assert code == 0
    assert "4 runs in" in out
    assert "cell: resnet-8-8 on digits, lr=0.2" in out
    assert not (tmp_path / "sweep").exists()
    code, out, _ = run(capsys, "sweep", "--preset", "paper-wrn", "--dry-run")
    assert code == 0
    assert "370 runs in runs/paper-wrn" in out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((), "give one of a sweep file, --preset and --resume, got none of them"),
        (("x.toml", "--preset", "paper-wrn"), "got file and preset"),
        (("none.toml",), "none.toml"),
        (("--preset", "paper"), "unknown preset 'paper': experiments are paper-densenet"),
        (("--resume", "none"), "there is no description of an experiment none"),
        (("--resume", "none", "--epochs", "3"), "Leave out --epochs"),
        (("--preset", "paper-wrn", "--epochs", "0", "--dry-run"), "epochs must be at least 1"),
        (("--preset", "paper-wrn", "--seed", "3", "--dry-run"), "seed varies in [grid]"),
    ],
)
def test_sweep_refuses_in_one_line(words, message, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert message in refused(capsys, "sweep", *words)


def test_a_sweep_that_does_not_begin_leaves_no_folder_but_one_of_others(tmp_path, capsys):
    file, out = tmp_path / "my.toml", tmp_path / "out"
    file.write_text(SWEEP.format(lr="0.2"))
    assert "--minutes" in refused(capsys, "sweep", file, "--minutes", "0", "--out", out)
    assert not out.exists()
    out.mkdir()
    assert "--minutes" in refused(capsys, "sweep", file, "--minutes", "0", "--out", out)
    assert list(out.iterdir()) == []


def test_a_folder_that_somebody_else_has_taken_meanwhile_stays(tmp_path, monkeypatch, capsys):
    file, out = tmp_path / "my.toml", tmp_path / "out"
    file.write_text(SWEEP.format(lr="0.2"))
    others = FolderLock(out)

    def refuse(*_):
        others.__enter__()
        raise RunError("something else.")

    monkeypatch.setattr(carry_out, "_runner", refuse)
    assert "something else" in refused(capsys, "sweep", file, "--out", out)
    assert {path.name for path in out.iterdir()} == {".lock", ".lock.json"}
    others.__exit__(None, None, None)


def test_a_lost_measurement_is_told_once(tmp_path, capsys):
    job = Job(
        folder=tmp_path,
        settings=Settings(),
        label=Label(cell="a net on digits", arm="measuring", kind="baseline"),
    )
    display = carry_out._Display(4)
    for kind in ("begin", "retry", "done"):
        display.tell(Event(Task(job, "measure"), kind, reason=f"it was killed: {kind}"))
    told = "measuring a net on digits: it was killed: retry; it is measured again\n"
    assert capsys.readouterr().out == told


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stops_a_sweep_with_all_saved(tmp_path, number, capsys):
    file = tmp_path / "my.toml"
    file.write_text(SWEEP.format(lr="0.2").replace("epochs = 2", "epochs = 300"))
    out = tmp_path / "sweep"
    process = subprocess.Popen(
        [sys.executable, "-m", "freezeout", "sweep", file, "--out", out, "--processes", "1"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    end = time.monotonic() + 600
    while not any('"epoch"' in log.read_text() for log in out.rglob("log.jsonl")):
        assert time.monotonic() < end
        assert process.poll() is None, process.communicate()
        time.sleep(0.05)
    os.kill(process.pid, number)
    printed, error = process.communicate(timeout=600)
    assert process.returncode == 128 + number
    assert error == ""
    assert "stopped, all saved; go on with: freezeout sweep --resume" in printed
    (log,) = out.rglob("log.jsonl")
    last = json.loads(log.read_text().splitlines()[-1])
    assert (last["event"], last["finished"]) == ("end", False)


# --- report --------------------------------------------------------------------------------------


@pytest.mark.parametrize("epoch", ["9" * 17, "9" * 5000, "253402300800"], ids=len)
def test_a_day_that_no_calendar_has_is_refused(compared, capsys, monkeypatch, tmp_path, epoch):
    monkeypatch.setenv("SOURCE_DATE_EPOCH", epoch)
    line = refused(capsys, "report", compared[0], "--out", tmp_path)
    assert "SOURCE_DATE_EPOCH must be seconds since 1970" in line


def test_report_makes_a_page_of_an_experiment(compared, capsys, monkeypatch):
    folder, _ = compared
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "86400")
    code, out, err = run(capsys, "report", folder, "--title", "A <title>")
    assert (code, err) == (0, "")
    page = (folder / "report" / "report.html").read_text()
    assert out.startswith(str(folder / "report" / "report.html"))
    assert "A &lt;title&gt;" in page
    assert "1970-01-02" in page
    assert "cubic:0.6" in page
    assert len(list((folder / "report" / "figures").glob("*.png"))) >= 4
    (table,) = (folder / "report" / "tables").glob("*comparison.csv")
    with table.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["arm"] for row in rows][:2] == ["baseline", "cubic:0.6"]
    records, _ = read_runs([folder])
    errors = [r.error for r in records if r.arm == "baseline"]
    assert float(rows[0]["error_percent"]) == pytest.approx(sum(errors) / len(errors))


def test_report_takes_any_run_folders(tmp_path, capsys):
    for name, changes in (("a", {"t0": 1.0}), ("b", {}), ("c", {"seed": 1})):
        words = [f"--{k.replace('_', '-')}={v}" for k, v in changes.items()]
        main(["train", *SHORT, *words, "--out", str(tmp_path / name)])
    start_unfinished(tmp_path / "d")
    folders = [tmp_path / name for name in "abcd"]
    code, out, _ = run(capsys, "report", *folders, "--figures", "svg", "--out", tmp_path / "p")
    assert code == 0
    assert "(4 runs)" in out
    page = (tmp_path / "p" / "report.html").read_text()
    assert "resnet-8-8 on digits" in page
    images = {path.suffix for path in (tmp_path / "p" / "figures").iterdir()}
    assert images == {".svg", ".csv"}


def test_report_says_what_it_leaves_out_and_why(tmp_path, capsys):
    for name in ("good", "bad"):
        train(tmp_path / name)
    (tmp_path / "bad" / "log.jsonl").write_bytes(b"[1]\n\xff\n")
    out = tmp_path / "out"
    code, text, err = run(capsys, "report", tmp_path, "--figures", "svg", "--out", out)
    assert (code, err) == (0, "")
    assert "(1 runs, 1 left out)" in text
    line = text.splitlines()[1]
    assert line.startswith("left out: bad: cannot be read: the log ")
    assert "log.jsonl is damaged: line 1: no object, but list" in line
    page = (out / "report.html").read_text()
    assert "log.jsonl is damaged: line 1: no object, but list" in page


def start_unfinished(folder):
    train(folder)
    (folder / "summary.json").unlink(missing_ok=True)


def test_report_refuses_in_one_line(tmp_path, capsys):
    assert "there is no run in the folders" in refused(capsys, "report", tmp_path)
    assert "is not a folder" in refused(capsys, "report", tmp_path / "none")
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "settings.toml").write_text("model =")
    assert "none of the 1 runs that were found can be shown" in refused(capsys, "report", tmp_path)
    train(tmp_path / "run")
    (tmp_path / "file").write_text("x")
    line = refused(capsys, "report", tmp_path / "run", "--out", tmp_path / "file")
    assert "cannot write into" in line
    assert "--margin must lie" in refused(capsys, "report", tmp_path, "--margin", "-1")
    assert "'png', 'pdf', 'svg'" in refused(capsys, "report", tmp_path, "--figures", "bmp")


def test_a_folder_of_a_comparison_is_not_taken_for_a_run(compared, capsys):
    folder, _ = compared
    assert "there is no run in" in refused(capsys, "train", "--resume", folder)


def test_start_with_prepared_data_is_the_same_run(tmp_path):
    from freezeout.lab.training import prepare
    from tests.lab.runs import small

    settings, dataset = prepare(small(threads=1))
    start(settings, RunFolder(tmp_path / "a"), dataset=dataset)
    assert_same_end(RunFolder(tmp_path / "a"), train(tmp_path / "b", threads=1))


def test_freeze_times_for_another_number_of_layers_are_refused_in_one_line(tmp_path, capsys):
    words = [*SMALL_ARGUMENTS, "--times", "0.3,1", "--seeds", "1", "--processes", "1"]
    error = refused(capsys, "compare", *words, "--out", tmp_path / "out")
    assert "times holds 2 freeze times, but the model was cut into" in error
