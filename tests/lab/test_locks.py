"""One owner a folder: who holds it is said, what died holds nobody up."""

import errno
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from filelock import FileLock

from freezeout.errors import RunError
from freezeout.lab import locks
from freezeout.lab.locks import FolderLock, InUseError, is_lock

HOLD = """
import sys
from pathlib import Path
from freezeout.lab.locks import FolderLock

with FolderLock(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def holder(tmp_path):
    """Another process, which holds the folder."""
    command = [sys.executable, "-c", HOLD, str(tmp_path)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(command, **pipes, text=True) as process:
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


def taken(folder, **options):
    """What is said of a folder that cannot be taken."""
    with pytest.raises(InUseError) as error, FolderLock(folder, **options):
        raise AssertionError("two have it")
    return str(error.value)


def note(folder, **changes):
    """A holder's note in a folder: by default this process's."""
    values = {
        "pid": os.getpid(),
        "host": socket.gethostname(),
        "started": psutil.Process().create_time(),
        "since": time.time(),
    }
    (folder / ".lock.json").write_text(json.dumps({**values, **changes}))


@pytest.mark.multiprocess
def test_the_second_is_told_who_holds_the_folder_and_what_died_holds_nobody_up(tmp_path, holder):
    said = taken(tmp_path)
    who = rf"process {holder.pid} on {re.escape(socket.gethostname())} since \d{{4}}-\d\d-\d\d "
    assert re.search(rf"^{re.escape(str(tmp_path))} is in use by {who}\d\d:\d\d:\d\d\. Wait", said)
    assert "\n" not in said
    os.kill(holder.pid, signal.SIGKILL)
    holder.wait()
    assert {path.name for path in tmp_path.iterdir()} == {".lock", ".lock.json"}
    with FolderLock(tmp_path):
        assert json.loads((tmp_path / ".lock.json").read_text())["pid"] == os.getpid()


def test_it_is_free_again_afterwards_and_leaves_nothing_but_its_own_file(tmp_path):
    for _ in range(2):
        with FolderLock(tmp_path):
            assert f"process {os.getpid()} on " in taken(tmp_path)
        assert all(is_lock(path) for path in tmp_path.iterdir())
        assert not (tmp_path / ".lock.json").exists()
    with pytest.raises(ZeroDivisionError), FolderLock(tmp_path):
        _ = 1 / 0
    with FolderLock(tmp_path):
        pass
    assert not is_lock(tmp_path / "uv.lock")


def test_a_lock_beside_a_folder_leaves_the_folder_alone(tmp_path):
    folder = tmp_path / "new" / "run"
    with FolderLock(folder, beside=True):
        assert "is in use by process" in taken(folder, beside=True)
        assert {path.name for path in folder.parent.iterdir()} == {".run.lock", ".run.lock.json"}


@pytest.mark.parametrize(
    "changes",
    [
        {"started": 1.0},  # another program with the same number
        {"pid": 2**22 + 1},  # nobody has it
        {"pid": -1},
        {"pid": 10**400},
        {"since": 1e300},
        {"since": None},
        {"started": float("nan")},
        {"host": None, "pid": "x"},
    ],
    ids=str,
)
def test_a_note_that_a_dead_process_left_behind_is_not_taken_for_the_owner(
    tmp_path, changes, monkeypatch
):
    monkeypatch.setattr(locks, "_SETTLE", 0.0)
    with FileLock(tmp_path / ".lock"):
        note(tmp_path)
        assert f"in use by process {os.getpid()} on" in taken(tmp_path)
        note(tmp_path, **changes)
        assert "is in use by another process. Wait" in taken(tmp_path)


@pytest.mark.parametrize("text", ["", "{", "[" * 4000, "[]", "1", '"x"', "\xff", "[1"])
def test_a_damaged_note_is_no_obstacle(tmp_path, text, monkeypatch):
    monkeypatch.setattr(locks, "_SETTLE", 0.0)
    (tmp_path / ".lock.json").write_text(text, encoding="latin-1")
    with FileLock(tmp_path / ".lock"):
        assert "is in use by another process. Wait" in taken(tmp_path)
    with FolderLock(tmp_path):
        assert f"process {os.getpid()} " in taken(tmp_path)


def test_a_note_that_is_a_pipe_is_not_waited_for(tmp_path, monkeypatch):
    monkeypatch.setattr(locks, "_SETTLE", 0.0)
    os.mkfifo(tmp_path / ".lock.json")
    with FileLock(tmp_path / ".lock"):
        assert "is in use by another process. Wait" in taken(tmp_path)


def test_a_pipe_or_a_link_in_the_place_of_the_note_is_replaced(tmp_path):
    (tmp_path / "mine").write_text("mine")
    os.mkfifo(tmp_path / ".lock.json")
    for _ in range(2):
        with FolderLock(tmp_path):
            assert f"process {os.getpid()} on " in taken(tmp_path)
        (tmp_path / ".lock.json").symlink_to("mine")
    assert (tmp_path / "mine").read_text() == "mine"


def test_a_holder_on_another_machine_is_named_by_what_it_wrote(tmp_path):
    with FileLock(tmp_path / ".lock"):
        note(tmp_path, host="far\naway", pid=7, started=1.0)
        assert "is in use by process 7 on far away since 2" in taken(tmp_path)


def test_a_holder_that_has_just_begun_is_given_time_to_say_who_it_is(tmp_path, monkeypatch):
    note(tmp_path, started=1.0)  # of one that was killed
    monkeypatch.setattr(locks.time, "sleep", lambda seconds: note(tmp_path))
    monkeypatch.setattr(locks, "_SETTLE", 1000.0)
    with FileLock(tmp_path / ".lock"):
        assert f"in use by process {os.getpid()} on" in taken(tmp_path)


def test_one_that_is_patient_gets_the_folder_once_it_is_free(tmp_path, monkeypatch):
    first = FolderLock(tmp_path)
    first.__enter__()
    slept = []

    def sleep(seconds):
        slept.append(seconds)
        if len(slept) == 3:
            first.__exit__(None, None, None)

    monkeypatch.setattr(locks.time, "sleep", sleep)
    with FolderLock(tmp_path, patience=1000.0):
        assert len(slept) == 3


def test_nobody_waits_for_ever(tmp_path, monkeypatch):
    now = [0.0]
    monkeypatch.setattr(locks.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(locks.time, "sleep", lambda seconds: now.__setitem__(0, now[0] + seconds))
    asked = iter([False, False, True])
    with FolderLock(tmp_path):
        taken(tmp_path, patience=30.0)
        assert 29.9 < now[0] < 30.2
        taken(tmp_path, patience=1000.0, give_up=lambda: next(asked))
    assert now[0] < 31.0


# --- Disks that refuse -------------------------------------------------------------------------


def refusing(monkeypatch, number):
    def acquire(self, timeout=None):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(FileLock, "acquire", acquire)


@pytest.mark.parametrize("number", [errno.EACCES, errno.EROFS, errno.EIO, errno.ELOOP])
def test_a_folder_that_cannot_be_written_is_refused(tmp_path, monkeypatch, number):
    refusing(monkeypatch, number)
    with pytest.raises(RunError) as error, FolderLock(tmp_path):
        pass
    assert type(error.value) is RunError
    assert f"cannot lock folder {tmp_path}: {os.strerror(number)}. Fix" in str(error.value)


def test_a_folder_that_is_missing_is_made_unless_a_file_is_in_the_way(tmp_path):
    with FolderLock(tmp_path / "new" / "one"):
        assert (tmp_path / "new" / "one").is_dir()
    (tmp_path / "file").write_text("x")
    with pytest.raises(RunError, match="cannot lock folder"), FolderLock(tmp_path / "file"):
        pass


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP])
def test_on_a_disk_without_locks_it_goes_on_and_says_so(tmp_path, monkeypatch, number):
    refusing(monkeypatch, number)
    said = []
    with FolderLock(tmp_path, say=said.append):
        pass
    assert said == [
        f"the disk of {tmp_path} has no locks ({os.strerror(number)}): see to it that no other "
        "process works in it"
    ]
    note(tmp_path, started=1.0)  # a dead one
    with FolderLock(tmp_path):
        pass
    note(tmp_path, host="elsewhere")  # nobody knows
    with FolderLock(tmp_path):
        pass
    assert list(tmp_path.iterdir()) == []


def test_on_a_disk_without_locks_a_live_owner_on_this_machine_is_still_found(tmp_path, monkeypatch):
    refusing(monkeypatch, errno.ENOLCK)
    note(tmp_path)
    assert f"in use by process {os.getpid()} on" in taken(tmp_path)
    assert (tmp_path / ".lock.json").exists()


def test_a_lock_without_flock_never_becomes_one_that_a_killed_process_would_leave(
    tmp_path, monkeypatch
):
    fcntl = pytest.importorskip("fcntl")

    def flock(handle, operation):
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))

    monkeypatch.setattr(fcntl, "flock", flock)
    said = []
    with FolderLock(tmp_path, say=said.append):
        pass
    assert "has no locks" in said[0]
    assert not [path for path in Path(tmp_path).iterdir() if path.suffix == ".json"]


def test_what_is_held_can_be_deleted_meanwhile(tmp_path):
    folder = tmp_path / "gone"
    folder.mkdir()
    with FolderLock(folder):
        for path in folder.iterdir():
            path.unlink()
        folder.rmdir()
