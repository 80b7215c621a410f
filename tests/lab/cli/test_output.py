"""Output that nobody reads, that is full or closed: no traceback, and the work is done."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.multiprocess

OLDER = Path(__file__).parents[2] / "files" / "v0.1.0" / "whole"


def ran(*words, **streams):
    return subprocess.run(
        [sys.executable, "-m", "freezeout", *map(str, words)],
        stderr=subprocess.PIPE,
        text=True,
        timeout=600,
        **streams,
    )


def nobody_reads():
    """The end to write to of a pipe whose other end is closed."""
    reader, writer = os.pipe()
    os.close(reader)
    return writer


@pytest.mark.parametrize(
    "words",
    [
        ["--help"],
        ["--print-completion", "bash"],
        ["sweep", "--preset", "paper-small", "--dry-run"],
        ["report", OLDER],
    ],
    ids=lambda words: words[0],
)
def test_a_pipe_that_nobody_reads(words, tmp_path):
    out = ["--out", tmp_path / "out"] if words[0] in ("report", "sweep") else []
    writer = nobody_reads()
    done = ran(*words, *out, stdout=writer)
    os.close(writer)
    assert done.stderr == ""
    assert done.returncode == 0
    if words[0] == "report":
        assert (tmp_path / "out" / "report.html").is_file()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
def test_help_to_a_full_disk():
    with Path("/dev/full").open("w") as full:
        done = ran("--help", stdout=full)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "cannot write: No space left on device" in done.stderr


def test_streams_that_are_closed(tmp_path):
    code = "import os, sys; os.close(1); sys.stdout = None; from freezeout.lab.cli import main; "
    code += f"sys.exit(main(['report', {str(OLDER)!r}, '--out', {str(tmp_path / 'out')!r}]))"
    done = subprocess.run(
        [sys.executable, "-c", code], stderr=subprocess.PIPE, text=True, timeout=600
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_a_terminal_of_no_width_still_shows_help():
    done = ran("--help", stdout=subprocess.PIPE, env={**os.environ, "COLUMNS": "1"})
    assert "--version" in done.stdout
