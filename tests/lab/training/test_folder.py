"""The folder of a run: what counts as empty, who holds it, which number it gets."""

import itertools
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from freezeout.errors import CheckpointError, RunError
from freezeout.lab.locks import FolderLock, is_lock
from freezeout.lab.training import RunFolder, held, next_free, resume, start
from freezeout.lab.training.checkpoint import load_checkpoint, save_checkpoint
from freezeout.lab.training.toml import toml_bytes
from freezeout.planning import plan
from freezeout.storage import json_line
from tests.lab.runs import KillAt, KilledError, Listening, small, train
from tests.strategies import made_costs


@pytest.fixture
def folder(tmp_path):
    return RunFolder(tmp_path / "run")


def begun(folder, *, step=0):
    """What a start leaves that was killed as it took its first step."""
    folder.create(small())
    folder.log("start", step=0)
    save_checkpoint(folder.checkpoint, {"step": step})


def test_a_folder_with_a_beginning_only_counts_as_empty(folder):
    folder.check_empty()
    folder.make()
    assert folder.only_begun()
    (folder.path / ".settings.toml.x.freezeout-part").write_text("half")
    (folder.path / ".lock").write_text("")
    folder.check_empty()
    folder.check_empty(resumable=False)
    folder.create(small())
    folder.plan_file.write_text("{")
    folder.check_empty()
    folder.log("start", step=0)
    folder.check_empty()
    begun(folder)
    folder.log("freeze", step=3, index=0, name="a")  # of steps that were never saved
    folder.tensorboard.mkdir()
    folder.check_empty()
    folder.create(small(epochs=1))
    assert {path.name for path in folder.path.iterdir() if not path.name.startswith(".")} == {
        "settings.toml",
        "tensorboard",
    }
    with pytest.raises(RunError, match=r"is not empty\. Give a new or empty folder with --out\.$"):
        folder.check_empty(resumable=False)


def add_file(folder):
    (folder.path / "notes.txt").write_text("mine")


def save_a_step(folder):
    save_checkpoint(folder.checkpoint, {"step": 1})


def damage_the_checkpoint(folder):
    folder.checkpoint.write_bytes(folder.checkpoint.read_bytes()[:-1])


def lose_the_checkpoint(folder):
    folder.log("epoch", step=4, epoch=1)
    folder.checkpoint.unlink()


def lose_and_damage_the_log(folder):
    folder.checkpoint.unlink()
    folder.log_file.write_text("{]\n")


def write_the_settings(folder):
    folder.settings_file.write_bytes(toml_bytes(small().to_dict()))


def change_the_settings(folder):
    folder.settings_file.write_text(
        folder.settings_file.read_text().replace("seed = 0", "seed = 1")
    )


def lose_the_settings(folder):
    folder.settings_file.unlink()


@pytest.mark.parametrize(
    "change",
    [
        add_file,
        save_a_step,
        damage_the_checkpoint,
        lose_the_checkpoint,
        lose_and_damage_the_log,
        write_the_settings,
        change_the_settings,
        lose_the_settings,
    ],
)
def test_what_may_be_missed_is_no_beginning(folder, change):
    begun(folder)
    folder.check_empty()
    change(folder)
    before = {path.name: path.read_bytes() for path in folder.path.iterdir()}
    with pytest.raises(RunError, match="is not empty"):
        folder.create(small())
    with pytest.raises(RunError, match="is not empty"):
        start(small(), folder)
    assert {path.name: path.read_bytes() for path in folder.path.iterdir()} == before


def test_hints_can_be_pasted_into_a_shell(tmp_path):
    folder = RunFolder(tmp_path / "my run")
    folder.make()
    (folder.path / "x").write_text("")
    with pytest.raises(RunError, match=r"freezeout train --resume '.*my run'$"):
        folder.check_empty()


def test_a_start_that_was_killed_is_started_again_by_the_same_call(whole, tmp_path):
    folder = RunFolder(tmp_path / "run")
    with pytest.raises(KilledError):
        start(small(), folder, [KillAt(2)])
    assert load_checkpoint(folder.checkpoint)["step"] == 0
    start(small(), folder)
    told = [[(r["event"], r["step"]) for r in run.read_log()] for run in (folder, whole)]
    assert told[0] == told[1]


def test_a_folder_without_settings_yet_says_how_to_go_on(folder):
    with pytest.raises(CheckpointError, match=r"there is no run in \S+: it has no settings\.toml"):
        resume(folder)
    assert not folder.path.exists()
    folder.make()
    (folder.path / ".settings.toml.x.freezeout-part").write_text("half")
    with pytest.raises(CheckpointError, match=rf"no run in \S+ yet: .* with --out {folder.path}$"):
        resume(folder)
    start(small(), folder)
    assert not list(folder.path.glob(".*.freezeout-part"))


def test_one_owner_a_folder(whole, tmp_path):
    folder = RunFolder(shutil.copytree(whole.path, tmp_path / "run"))
    part = folder.path / ".x.freezeout-part"
    with held(folder, new=False):
        part.write_text("")
        before = folder.log_file.read_bytes()
        with pytest.raises(RunError, match=r"is in use by process \d+ on .* since"):
            resume(RunFolder(folder.path))
        assert part.exists()  # parts go only where nobody else may be writing them
        assert folder.log_file.read_bytes() == before
        resume(folder)  # whoever holds it may use it
        with pytest.raises(RunError, match="is in use"), held(RunFolder(folder.path), new=False):
            pass
    resume(RunFolder(folder.path))
    assert not part.exists()


def test_a_new_folder_is_held_while_it_is_prepared(folder):
    with held(folder, new=True):
        with pytest.raises(RunError, match="is in use by process"):
            start(small(), RunFolder(folder.path))
        start(small(), folder)


def test_a_run_that_cannot_start_leaves_no_folder_but_one_that_was_there(tmp_path):
    wrong = small(padding=8)
    new, there = RunFolder(tmp_path / "a" / "new"), RunFolder(tmp_path / "there")
    there.make()
    claimed = RunFolder(next_free(tmp_path, "claimed"), made=True)
    for folder in (new, there, claimed):
        with pytest.raises(RunError, match="padding must be smaller"):
            start(wrong, folder)
    assert not new.path.exists()
    assert not claimed.path.exists()
    assert there.path.exists()
    assert all(map(is_lock, there.path.iterdir()))


def test_a_new_folder_that_cannot_be_locked_goes(tmp_path, monkeypatch):
    def refuse(lock):
        raise RunError("no lock.")

    monkeypatch.setattr(FolderLock, "__enter__", refuse)
    new, there = RunFolder(tmp_path / "new"), RunFolder(tmp_path / "there")
    there.make()
    for folder in (new, there):
        with pytest.raises(RunError, match="no lock"), held(folder, new=True):
            pass
    assert [path.name for path in tmp_path.iterdir()] == ["there"]


PLANNED = plan(made_costs([0.3, 1.0, 0.2]), 12, t0=0.6)


def die_at(monkeypatch, number):
    """Die before the n-th file operation from now on."""
    count = 0

    def mortal(operation):
        def act(*args, **rest):
            nonlocal count
            count += 1
            if count == number:
                raise KilledError
            return operation(*args, **rest)

        return act

    for name in ("unlink", "replace", "chmod"):
        monkeypatch.setattr(Path, name, mortal(getattr(Path, name)))


@pytest.mark.parametrize("saved", [False, True])
@pytest.mark.parametrize("now", [None, replace(PLANNED, total_steps=24)])
@pytest.mark.parametrize("before", [None, PLANNED])
def test_a_start_that_dies_at_any_moment_loses_no_prediction(tmp_path, before, now, saved):
    plans = {0: before, 1: now}
    found = []
    for number in itertools.count(1):
        folder = RunFolder(tmp_path / str(number))
        folder.create(small(seed=0), before)
        if saved:
            folder.log("start", step=0)
            save_checkpoint(folder.checkpoint, {"step": 0})
            folder.log("freeze", step=3, index=0, name="a")
        with pytest.MonkeyPatch.context() as patched:
            die_at(patched, number)
            try:
                folder.create(small(seed=1), now)
            except KilledError:
                died = True
            else:
                died = False
        again = RunFolder(folder.path)
        again.check_empty()  # the same start would begin
        if again.settings_file.exists():
            with held(again, new=False):  # or a resume go on
                seed = again.settings().seed
                assert again.plan() == plans[seed]
                assert again.checkpoint.exists() or not again.has_steps()
                found.append(seed)
        else:
            assert died
        if not died:
            break
    assert found[0] == 0
    assert found[-1] == 1
    assert number > 3


def test_a_damaged_log_does_not_stop_a_resume_and_is_told(whole, tmp_path):
    folder = RunFolder(tmp_path / "run")
    with pytest.raises(KilledError):
        start(small(), folder, [KillAt(6)])
    lines = folder.log_file.read_bytes().splitlines(keepends=True)
    place = next(i for i, line in enumerate(lines) if b"freeze" in line and b"index" in line)
    lines[place] = b"\xff\xfe\n"
    lines.insert(place, b"[]\n")
    folder.log_file.write_bytes(b"".join(lines))
    listening = Listening()
    assert folder.log_damage() == [
        f"line {place + 1}: no object, but list",
        f"line {place + 2}: not UTF-8",
    ]
    resume(folder, observers=[listening])
    assert listening.messages == [
        f"2 lines of {folder.log_file} left out as damaged (line {place + 1}: no object, but list)"
    ]
    rest = [r for r in whole.read_log() if (r["event"], r["step"]) != ("freeze", 3)]
    assert [(r["event"], r["step"]) for r in folder.read_log()] == [
        (r["event"], r["step"]) for r in rest
    ]
    assert folder.log_damage() == []


def test_settings_that_have_changed_are_told_from_those_of_before_there_were_digests(folder):
    train(folder.path)
    text = folder.settings_file.read_text()
    folder.settings_file.write_text(text.replace("lr = 0.1", "lr = 0.2"))
    with pytest.raises(RunError, match=r"settings\.toml is damaged: its digest is another\. If"):
        resume(folder)
    folder.settings_file.write_text("".join(text.splitlines(keepends=True)[1:]))
    assert folder.settings().lr == 0.1
    folder.settings_file.write_text(text + "# a remark\n")
    assert folder.settings().lr == 0.1


@pytest.mark.multiprocess
def test_two_that_resume_at_once(whole, tmp_path):
    folder = RunFolder(shutil.copytree(whole.path, tmp_path / "run"))
    command = [sys.executable, "-m", "freezeout", "train", "--resume", str(folder.path)]
    with held(folder, new=False):
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert "is in use by process" in done.stderr
    assert done.stderr.count("\n") == 1
    assert json_line({"event": "end"})[:8] in folder.log_file.read_text()


@pytest.mark.parametrize(
    "replace", [lambda path: path.mkdir(), os.mkfifo], ids=["a folder", "a pipe"]
)
def test_what_is_no_file_is_not_taken_for_a_file_that_is_missing(folder, replace):
    assert folder.plan() is None
    folder.path.mkdir()
    assert folder.plan() is None
    replace(folder.plan_file)
    with pytest.raises(CheckpointError, match=r"plan.*plan\.json"):
        folder.plan()
    replace(folder.settings_file)
    with pytest.raises(RunError, match=r"settings\.toml"):
        folder.settings()
