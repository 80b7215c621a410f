"""A process that dies before any file operation: nothing is lost, and nothing is told twice."""

import os
import random
from pathlib import Path

import pytest

from freezeout.lab.locks import is_lock
from freezeout.lab.training import RunFolder, resume, start
from freezeout.lab.training.stretch import Stretch
from tests.lab.runs import assert_same_end, small, train

BRIEF = {"model": "resnet-8-2", "train_size": 32, "steps": 5, "t0": 0.3}
"""Two whole epochs of two steps and one step of a third; layers freeze in between."""
OFTEN = {**BRIEF, "checkpoint_minutes": 1e-9}
"""The same, saved after every step, so that the end of an epoch is saved twice."""


class GoneError(BaseException):
    """Stands for the end of the process, which nothing can catch."""


class Death:
    """Lets a number of file operations in a folder happen, and none after them.

    Locks are left out: the system lets go of those of a process that is dead.
    """

    def __init__(self, monkeypatch, folder, *, after):
        self.left, self.done = after, 0
        for name in ("open", "replace", "unlink", "rmdir"):
            monkeypatch.setattr(Path, name, self._wrapped(getattr(Path, name), folder))
        real = os.fsync
        monkeypatch.setattr(os, "fsync", lambda handle: (self._count(), real(handle)))

    def _wrapped(self, real, folder):
        def operation(path, *args, **words):
            if folder in path.parents and not is_lock(path):
                try:
                    self._count()
                except GoneError:
                    if args == ("a",):
                        with open(path, "a") as file:  # noqa: PTH123 - `Path.open` is this
                            file.write('{"event": "epoch", "st')
                    raise
            return real(path, *args, **words)

        return operation

    def _count(self):
        if self.left == 0:
            raise GoneError
        self.left, self.done = self.left - 1, self.done + 1


def go_on(folder):
    """Do what the user does: resume, or start again what has no settings yet."""
    if folder.settings_file.is_file():
        resume(folder)
    else:
        start(small(**OFTEN), folder)


def told(folder):
    return [(r["event"], r["step"], r.get("epoch"), r.get("index")) for r in folder.read_log()]


@pytest.fixture(scope="module")
def unharmed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("unharmed")
    with pytest.MonkeyPatch.context() as patches:
        death = Death(patches, folder, after=10**9)
        run = train(folder / "run", **OFTEN)
    assert [event for event, *_ in told(run)].count("epoch") == 3
    assert [event for event, *_ in told(run)].count("freeze") == 4
    return run, death.done


def die(monkeypatch, place, act, *, after):
    """Whether the process died before it was done."""
    with monkeypatch.context() as patches:
        Death(patches, place, after=after)
        try:
            act()
        except GoneError:
            return True
    return False


@pytest.mark.parametrize(
    "part", [0, *(pytest.param(part, marks=pytest.mark.slow) for part in range(1, 6))]
)
def test_a_kill_before_any_file_operation(unharmed, tmp_path, monkeypatch, part):
    whole, operations = unharmed
    assert operations > 50
    for after in range(part, operations, 6):
        folder = RunFolder(tmp_path / str(after) / "run")
        died = die(monkeypatch, tmp_path, lambda f=folder: start(small(**OFTEN), f), after=after)
        assert died
        go_on(RunFolder(folder.path))
        assert_same_end(whole, folder)
        assert told(folder) == told(whole), after
        assert not [path for path in folder.path.glob(".*") if not is_lock(path)]


@pytest.mark.parametrize("seed", range(4))
def test_several_kills_one_after_another(unharmed, tmp_path, monkeypatch, seed):
    whole, operations = unharmed
    draw = random.Random(seed)
    folder = RunFolder(tmp_path / "run")
    die(
        monkeypatch,
        tmp_path,
        lambda: start(small(**OFTEN), folder),
        after=draw.randrange(operations),
    )
    for _ in range(4):  # most of them early, as the log is being rewound
        after = draw.choice((*range(8), draw.randrange(operations)))
        die(monkeypatch, tmp_path, lambda: go_on(RunFolder(folder.path)), after=after)
    go_on(RunFolder(folder.path))
    assert_same_end(whole, folder)
    assert told(folder) == told(whole)


@pytest.mark.parametrize("words", [BRIEF, OFTEN], ids=["saved every epoch", "saved every step"])
def test_a_kill_between_the_line_of_an_epoch_and_its_checkpoint(
    unharmed, tmp_path, monkeypatch, words
):
    folder = RunFolder(tmp_path / "run")
    real = Stretch.save

    def save(stretch):
        if stretch.trainer.epoch == 2 and not stretch.trainer.batch:
            raise GoneError
        real(stretch)

    monkeypatch.setattr(Stretch, "save", save)
    with pytest.raises(GoneError):
        start(small(**words), folder)
    monkeypatch.undo()
    assert told(folder)[-1] == ("epoch", 4, 2, None)
    resume(folder)
    assert told(folder) == told(unharmed[0])
    assert_same_end(unharmed[0], folder)
