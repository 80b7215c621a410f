"""The processes that a test has begun, and waiting for what they do."""

import os
import time
from pathlib import Path


def children(pid=None):
    """Processes that a process has started and that work for an experiment."""
    found = []
    for task in Path(f"/proc/{pid or os.getpid()}/task").iterdir():
        for child in read(task / "children").split():
            words = read(Path(f"/proc/{child}/cmdline"))
            if "freezeout.lab.experiments.runners.worker" in words:
                found.append(int(child))
    return found


def read(path):
    try:
        return path.read_text()
    except OSError:  # not there yet, or gone
        return ""


def first_epoch(run):
    """The beginning of a run's log, with the seconds that its first epoch took."""
    lines = read(run / "log.jsonl").splitlines()[:6]
    assert any('"epoch"' in line for line in lines)
    return lines[: 1 + next(i for i, line in enumerate(lines) if '"epoch"' in line)]


def wait_for(condition, seconds=600):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.05)
