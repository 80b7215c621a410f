"""Folders with numbers: one for each of those who ask, gone if nothing came of it."""

import multiprocessing
from pathlib import Path

import pytest

from freezeout.errors import RunError
from freezeout.lab.training import drop_empty, next_free


def claim(place):
    return next_free(Path(place), "run").name


@pytest.mark.multiprocess
def test_all_who_ask_at_once_get_a_folder_of_their_own(tmp_path):
    with multiprocessing.get_context("spawn").Pool(4) as pool:
        names = pool.map(claim, [tmp_path / "runs"] * 40, chunksize=1)
    assert sorted(names) == sorted(f"run-{n}" for n in range(1, 41))
    assert sorted(path.name for path in (tmp_path / "runs").iterdir()) == sorted(names)


def test_a_place_that_takes_no_folder_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match=r"file is a file\. Give a folder with --out\."):
        next_free(tmp_path / "file", "run")
    with pytest.raises(RunError, match=r"cannot make folder .*: File name too long"):
        next_free(tmp_path, "x" * 300)


def test_a_parent_that_another_takes_away_is_made_again(tmp_path, monkeypatch):
    make = Path.mkdir
    gone = []

    def mkdir(path, *args, **rest):
        if path.name == "run-1" and len(gone) < 2:
            gone.append(path.parent.rmdir())
        return make(path, *args, **rest)

    monkeypatch.setattr(Path, "mkdir", mkdir)
    assert next_free(tmp_path / "runs", "run").is_dir()
    assert len(gone) == 2


def test_a_folder_goes_if_nothing_came_of_it(tmp_path):
    for name in (".lock", ".lock.json", ".x.json.a1.freezeout-part"):
        claimed = next_free(tmp_path / "runs", "run")
        (claimed / name).touch()
        drop_empty(claimed, claimed=True)
        assert not (tmp_path / "runs").exists()
    first, second = (next_free(tmp_path / "runs", "run") for _ in range(2))
    (first / "notes.txt").write_text("mine")
    (first / ".lock").touch()
    for folder in (first, second, second):
        drop_empty(folder, claimed=True)
    assert [path.name for path in (tmp_path / "runs").iterdir()] == ["run-1"]
    assert {path.name for path in first.iterdir()} == {"notes.txt", ".lock"}
    drop_empty(next_free(tmp_path / "more", "run"))
    assert list((tmp_path / "more").iterdir()) == []
