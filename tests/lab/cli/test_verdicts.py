"""What is said at the end of an experiment in which some runs are missing."""

import pytest

from freezeout.lab.cli import verdicts
from freezeout.lab.experiments import Unread
from tests.lab.experiments.small_experiments import made

DIVERGED = Unread("cell/b/seed-0", "training diverged.", failed=True)
STOPPED = Unread("cell/b/seed-1", "it was stopped", failed=True)
DAMAGED = Unread("cell/a/seed-2", "cannot be read: the log is damaged. Copy it again.")
RETRY = "Try again with: freezeout sweep --resume {folder} --retry"
COPY = "Copy again what cannot be read, or delete it, then: freezeout sweep --resume {folder}"


@pytest.mark.parametrize(
    ("unread", "listed", "line"),
    [
        (
            [DIVERGED, STOPPED],
            ["failed: cell/b/seed-0: training diverged.", "failed: cell/b/seed-1: it was stopped"],
            "2 runs failed, the others are done. First: cell/b/seed-0: training diverged. " + RETRY,
        ),
        (
            [DAMAGED],
            ["left out: cell/a/seed-2: cannot be read: the log is damaged. Copy it again."],
            "1 run cannot be read, the others are done. First: cell/a/seed-2: cannot be read: the "
            "log is damaged. Copy it again. " + COPY,
        ),
        (
            [DAMAGED, STOPPED],
            [
                "left out: cell/a/seed-2: cannot be read: the log is damaged. Copy it again.",
                "failed: cell/b/seed-1: it was stopped",
            ],
            "1 run failed and 1 run cannot be read, the others are done. First: cell/a/seed-2: "
            "cannot be read: the log is damaged. Copy it again. " + f"{COPY}; or {RETRY}",
        ),
    ],
    ids=["failed", "damaged", "both"],
)
def test_every_run_that_is_missing_is_named_for_what_it_is(
    tmp_path, monkeypatch, capsys, unread, listed, line
):
    monkeypatch.setattr(verdicts, "read_runs", lambda folders: ([], unread))
    assert verdicts.show(made(tmp_path), "sweep", finished=True) == 2
    out, err = capsys.readouterr()
    assert out.splitlines()[1:] == listed
    assert err == f"freezeout: error: {line.format(folder=tmp_path)}\n"
