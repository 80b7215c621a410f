"""The folder of an experiment: one owner at a time, and no start is lost that was killed."""

import json
import re
import subprocess
import sys

import pytest

from freezeout.errors import RunError
from freezeout.lab.cli import main
from freezeout.lab.experiments import Experiment
from freezeout.lab.locks import FolderLock
from freezeout.storage import is_part
from tests.lab.experiments.small_experiments import VALUES, Pretend, made

START = """
import sys
from pathlib import Path
from freezeout.errors import RunError
from freezeout.lab.experiments import Experiment, Grid

class Holds:
    def run(self, teams, *, deadline=None):
        print("owner", flush=True)
        sys.stdin.read()
        return False

experiment = Experiment(Path(sys.argv[1]), Grid.from_dict(%r, "test"))
try:
    experiment.run(Holds())
except RunError as error:
    print(error, flush=True)
"""


@pytest.mark.multiprocess
def test_of_two_starts_at_once_one_works_and_the_other_is_told(tmp_path):
    program = START % {**VALUES, "t0": 1.0}
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    command = [sys.executable, "-c", program, str(tmp_path / "new")]
    with subprocess.Popen(command, **pipes) as one, subprocess.Popen(command, **pipes) as other:
        said = {process: process.stdout.readline() for process in (one, other)}
        (owner,) = (process for process, line in said.items() if line == "owner\n")
        (told,) = (line for line in said.values() if line != "owner\n")
        assert f"{tmp_path / 'new'} is in use by process {owner.pid} on " in told
        for process in (one, other):
            process.stdin.close()
            assert process.wait() == 0


@pytest.mark.parametrize("verb", ["sweep", "compare"])
def test_the_second_to_go_on_is_told_who_holds_the_folder(tmp_path, capsys, verb):
    experiment = made(tmp_path, arms={"equal_time": True})
    experiment.save()
    before = experiment.description.read_bytes()
    with FolderLock(tmp_path):
        assert main([verb, "--resume", str(tmp_path)]) == 2
    error = capsys.readouterr().err
    assert re.fullmatch(
        r"freezeout: error: \S+ is in use by process \d+ on .+ since \d{4}-.*:\d\d\. Wait .*\n",
        error,
    )
    assert experiment.description.read_bytes() == before


def test_a_start_that_was_killed_at_its_first_moments_is_begun_by_the_same_command(tmp_path):
    note = {"pid": 1, "host": "gone", "started": 1.0, "since": 2.0}
    left = {".lock": "", ".lock.json": json.dumps(note), ".experiment.json.a1.freezeout-part": "{"}
    for end in range(len(left) + 1):
        folder = tmp_path / str(end)
        folder.mkdir()
        for name in [*left][:end]:
            (folder / name).write_text(left[name])
        experiment = made(folder, t0=1.0)
        assert experiment.run(Pretend())
        assert Experiment.load(folder) == experiment
        assert not any(map(is_part, folder.iterdir()))


@pytest.mark.parametrize("name", [".hidden", ".lock.txt", ".other.json.x.part", "lock", "x.part"])
def test_what_is_not_our_own_is_left_alone(tmp_path, name):
    (tmp_path / name).write_text("mine")
    with pytest.raises(RunError, match="is not empty and holds no experiment"):
        made(tmp_path).run(None)
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_what_killed_writes_have_left_is_removed(tmp_path):
    experiment = made(tmp_path, t0=1.0)
    assert experiment.run(Pretend())
    plan = experiment.plan_file(experiment.grid.cells[0])
    plan.parent.mkdir(exist_ok=True)
    (data,) = (tmp_path / "data").iterdir()
    parts = [
        path.with_name(f".{path.name}.a1b2.freezeout-part")
        for path in (experiment.description, data, plan)
    ]
    for part in parts:
        part.write_text("half")
    with FolderLock(tmp_path), pytest.raises(RunError, match="is in use by"):
        experiment.run(Pretend())
    assert all(part.exists() for part in parts)  # they may be of the one that works
    assert experiment.run(Pretend())
    assert not any(part.exists() for part in parts)
    assert data.exists()
