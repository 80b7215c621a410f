"""Paths that cannot be used: one line and exit code 2, for every option that takes one."""

import argparse
import ctypes
import errno
import os
import shutil
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import pytest

from freezeout.lab.cli import main
from freezeout.lab.cli.parser import make_parser
from freezeout.lab.cli.paths import option_path, refusal
from freezeout.lab.training import Settings
from tests.lab.runs import SMALL_ARGUMENTS

OLDER = Path(__file__).parents[2] / "files" / "v0.1.0"
SHORT = (*SMALL_ARGUMENTS, "--epochs", "1", "--threads", "1")

# Every option that takes a path, with what else its verb needs.
OPTIONS = {
    "train --out": ["train", *SHORT, "--display", "none", "--no-predict"],
    "train --resume": ["train"],
    "train --config": ["train"],
    "train --plan": ["train"],
    "train --data-dir": ["train", "--data", "fashion-mnist"],
    "plan --out": ["plan", *SHORT],
    "plan --config": ["plan"],
    "plan --costs": ["plan", *SHORT],
    "compare --out": ["compare", *SHORT, "--minutes", "1e-9"],
    "compare --resume": ["compare"],
    "compare --config": ["compare"],
    "compare --data-dir": ["compare", "--data", "fashion-mnist"],
    "sweep --out": ["sweep", "--preset", "paper-small", "--minutes", "1e-9"],
    "sweep --resume": ["sweep"],
    "sweep FILE": ["sweep"],
    "sweep --data-dir": ["sweep", "--preset", "paper-small"],
    "report --out": ["report", OLDER / "whole"],
    "report DIR": ["report"],
}


def words_for(option, path):
    name = option.split()[1]
    return [*map(str, OPTIONS[option]), f"{name}={path}" if name.startswith("--") else str(path)]


def refused(capfd, words):
    """Runs in this process; returns the one line of complaint."""
    assert main(words) == 2
    error = capfd.readouterr().err
    assert error.count("\n") == 1, error
    return error


def test_every_option_that_takes_a_path_is_tried_here():
    (verbs,) = (a for a in make_parser()._actions if isinstance(a, argparse._SubParsersAction))
    found = {
        f"{verb} {next(iter(action.option_strings), action.metavar)}"
        for verb, parser in verbs.choices.items()
        for action in parser._actions
        if action.type is option_path or action.dest == "data_dir"
    }
    assert found == {*OPTIONS}


@pytest.mark.parametrize("option", OPTIONS)
@pytest.mark.parametrize(
    "path",
    ["", "file/in", "n" * 300, "d/" * 3000, "circle/in", "two\nlines/in\0"],
    ids=["empty", "in a file", "long name", "long path", "circle", "NUL"],
)
def test_paths_that_cannot_be(tmp_path, monkeypatch, capfd, option, path):
    monkeypatch.chdir(tmp_path)
    Path("file").touch()
    Path("circle").symlink_to("circle")
    refused(capfd, words_for(option, path))
    # An experiment is written down before its data are looked for; it can be resumed.
    begun = {"runs"} if option in ("compare --data-dir", "sweep --data-dir") else set()
    assert {p.name for p in tmp_path.iterdir()} - begun == {"file", "circle"}


@pytest.mark.parametrize("option", [option for option in OPTIONS if "--out" not in option])
@pytest.mark.skipif(sys.platform != "linux", reason="other systems have names of characters")
def test_bytes_that_are_no_utf_8_are_printed_all_the_same(tmp_path, monkeypatch, capfd, option):
    monkeypatch.chdir(tmp_path)
    path = os.fsdecode(b"absent \xff")
    assert r"\udcff" in refused(capfd, words_for(option, path))


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have names of characters")
def test_a_folder_whose_name_is_no_utf_8(tmp_path, capfd):
    folder = tmp_path / os.fsdecode(b"run \xff")
    assert main(["train", *SHORT, "--display", "lines", "--out", str(folder)]) == 0
    assert (folder / "run.png").is_file()
    assert main(["report", str(folder), "--out", str(folder / "page")]) == 0
    assert (folder / "page" / "report.html").is_file()
    assert capfd.readouterr().err == ""


def test_tilde_is_the_home_folder_where_no_shell_saw_it(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert option_path("~/runs") == tmp_path / "runs"
    assert option_path("~no-such-user/runs") == Path("~no-such-user/runs")
    assert option_path("runs~") == Path("runs~")
    assert Settings(data_dir="~/data").data_dir == str(tmp_path / "data")
    assert Settings(data_dir="~no-such-user").data_dir == "~no-such-user"
    words = ["train", *SHORT, "--display", "none", "--no-predict", "--out=~/run"]
    assert main(words) == 0
    assert (tmp_path / "run" / "summary.json").is_file()


@pytest.mark.multiprocess
@pytest.mark.parametrize("verb", ["train", "plan", "compare", "sweep", "report"])
def test_a_current_folder_that_is_gone(tmp_path, verb):
    gone = tmp_path / "gone"
    program = (
        f"import os, sys; os.chdir({str(gone)!r}); os.rmdir({str(gone)!r})\n"
        "from freezeout.lab.cli import main; sys.exit(main())"
    )
    gone.mkdir()
    words = {"sweep": ["--preset", "paper-small"], "report": ["runs"]}.get(verb, SHORT)
    done = subprocess.run(
        [sys.executable, "-c", program, verb, *words], capture_output=True, text=True, timeout=600
    )
    assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr


# --- what the system refuses ---------------------------------------------------------------------


def test_refusals_name_the_path_the_reason_and_what_to_do():
    error = OSError(errno.EACCES, "Permission denied", "runs/a")
    assert refusal(error) == (
        "cannot use runs/a: Permission denied. Fix the permissions, or give another path."
    )
    assert refusal(OSError(errno.EACCES, "Permission denied", b"a\xff")).startswith("cannot use a")
    full = OSError(errno.ENOSPC, "No space left on device")
    assert refusal(full).startswith("the system refuses: No space left on device. Make room")
    for other in (OSError("no number"), OSError(errno.EINVAL, "Invalid argument")):
        assert refusal(other) is None  # a defect, or something that a file is not to blame for


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (PermissionError(errno.EACCES, "Permission denied", "x"), "cannot use x: Permission"),
        (OSError(errno.EIO, "Input/output error"), "the system refuses: Input/output error"),
        (MemoryError(), "there is not enough memory"),
        (PermissionError(errno.EACCES, "Permission denied", "two\n\x1b[1mlines"), r"two \x1b[1ml"),
    ],
)
def test_an_error_of_the_system_that_escapes_a_verb(monkeypatch, capfd, error, words):
    def run(options):
        raise error

    monkeypatch.setattr("freezeout.lab.cli.report._run", run)
    assert words in refused(capfd, ["report", "runs"])


def test_any_other_error_is_a_defect(monkeypatch):
    def run(options):
        raise OSError(errno.EINVAL, "Invalid argument")

    monkeypatch.setattr("freezeout.lab.cli.report._run", run)
    with pytest.raises(OSError, match="Invalid"):
        main(["report", "runs"])


# --- permissions ---------------------------------------------------------------------------------


class _Header(ctypes.Structure):
    _fields_ = (("version", ctypes.c_uint32), ("pid", ctypes.c_int))


class _Sets(ctypes.Structure):
    _fields_ = (("effective", ctypes.c_uint32 * 1), ("others", ctypes.c_uint32 * 5))


@contextmanager
def without_privileges():
    """Take from root what it may do beyond a user: CAP_DAC_OVERRIDE and CAP_DAC_READ_SEARCH."""
    header, sets, libc = _Header(0x20080522, 0), _Sets(), ctypes.CDLL(None)
    assert libc.capget(ctypes.byref(header), ctypes.byref(sets)) == 0
    before = sets.effective[0]
    sets.effective[0] = before & ~0b110
    assert libc.capset(ctypes.byref(header), ctypes.byref(sets)) == 0
    try:
        yield
    finally:
        sets.effective[0] = before
        assert libc.capset(ctypes.byref(header), ctypes.byref(sets)) == 0


@pytest.fixture
def closed(tmp_path, monkeypatch):
    """Folders and files that may not be read, written or searched, in the current folder."""
    monkeypatch.chdir(tmp_path)
    for name in ("shut", "unread", "unwritten"):
        shutil.copytree(OLDER / "whole", name)
    Path("secret").write_text("{}")
    modes = {"shut": 0o0, "unread": 0o300, "unwritten": 0o500, "secret": 0o0}
    for name, mode in modes.items():
        Path(name).chmod(mode)
    yield
    for name in modes:
        Path(name).chmod(0o700)


@pytest.mark.skipif(sys.platform != "linux", reason="takes capabilities of Linux from root")
@pytest.mark.parametrize("option", OPTIONS)
def test_what_permissions_forbid(closed, capfd, option):
    output = "--out" in option
    for path in ["shut", "shut/in", "secret"] + (["unread", "unwritten/new"] if output else []):
        with without_privileges():
            with pytest.raises(PermissionError):
                Path("secret").read_text()
            refused(capfd, words_for(option, path))
