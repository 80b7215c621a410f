"""Words that no verb takes, and how quickly the program says so."""

import subprocess
import sys

import pytest

from freezeout.lab.cli import main

HEAVY = {"torch", "numpy", "scipy", "rich", "matplotlib", "psutil"}


@pytest.mark.multiprocess
@pytest.mark.parametrize(
    "words",
    [
        ["--version"],
        ["trian"],
        ["train", "--epoch", "3"],
        ["train", "--epochs", "many"],
        ["plan", "--saving", "half"],
        ["compare", "--seed"],
        ["sweep", "--nonsense"],
        ["report"],
        ["report", "--figures", "gif"],
    ],
    ids=" ".join,
)
def test_answers_that_load_nothing(words):
    """Counted in modules, not in seconds: torch alone takes longer than a typing error should."""
    program = (
        f"import sys; from freezeout.lab.cli import main; main()\nprint({HEAVY} & set(sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, *words], capture_output=True, text=True, timeout=600
    )
    assert done.stdout.splitlines()[-1] == "set()"
    assert done.stderr.count("\n") == (0 if words == ["--version"] else 1)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--", "garbage"], "invalid choice"),
        (["--", "--", "train"], "invalid choice"),
        ([""], "invalid choice: ''"),
        (["train", "two\nlines\x1b[1m"], r"unrecognized arguments: two lines\x1b[1m"),
        (["train", "--epochs", ""], "invalid int value: ''"),
        (["train", "--epochs", "9" * 5000], "999 ... 999"),
        (["train", "--epochs", "9" * 4000], "epochs must be at most 1e+06"),
        (["train", "--lr", ""], "invalid float value: ''"),
        (["train", "--lr", "1e999"], "lr must be above 0 and finite, got inf"),
        (["train", "--model", ""], "unknown network ''"),
        (["train", "--data", ""], "the data set must be one of"),
        (["train", "--preset", ""], "unknown preset ''"),
        (["train", "--model", "a\0b:f"], "model must be text in UTF-8 without NUL characters"),
        (["train", "--model", "a\udcff:f"], "model must be text in UTF-8 without NUL characters"),
        (["train", "--data-dir", ""], "data_dir must name a folder, got ''"),
        (["train", "--times", ""], "must be numbers with commas, got ''"),
        (["train", "--times", "nan,1"], "nan"),
        (["plan", "--time", "9" * 400 + "h"], "must be above 0 and finite"),
        (["plan", "--rounds", "1000000000"], "--rounds must lie in 1 to 1000"),
        (["plan", "--rounds", "0"], "--rounds must lie in 1 to 1000"),
        (["compare", "--seeds", "9" * 30], "--seeds must lie in 1 to 1000"),
        (["compare", "--minutes", "nan"], "--minutes must be above 0, got nan"),
        (["compare", "--processes", "1000000000"], "--processes must lie in 1 to 1024"),
        (["compare", "--margin", "nan"], "--margin must lie between 0 and 100 points, got nan"),
        (["compare", "--variants", ""], "got ''"),
        (["report", "x", "--margin", "inf"], "--margin must lie between 0 and 100 points"),
    ],
    ids=lambda value: " ".join(value)[:30] if isinstance(value, list) else None,
)
def test_odd_words_cost_one_line(tmp_path, monkeypatch, capsys, words, message):
    monkeypatch.chdir(tmp_path)
    assert main(words) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert message in error
    assert len(error) < 6000
