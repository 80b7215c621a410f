"""Plant a fault in the product, let the campaign look for it, and print what it found as JSON.

python -m tests.benchmarks.planted_faults NAME ...
"""

import json
import re
import shutil
import signal
import sys
import time
from contextlib import ExitStack, suppress
from pathlib import Path
from unittest import mock

import torch

from benchmarks.reliability import damage, harm, kept, readers, tiny, words
from benchmarks.reliability.campaign import run_case
from benchmarks.reliability.children import run_child
from benchmarks.reliability.kinds import KINDS
from freezeout.lab.training import RunFolder, Settings, run, stretch
from freezeout.planning import Plan


def not_whole(path, state):
    """Write a checkpoint into its place, bit by bit."""
    torch.save({"format": 1, **state}, path)


def in_two_steps(path, target):
    """Move a file so that another process may see it empty."""
    Path(target).write_bytes(b"")
    Path(target).write_bytes(path.read_bytes())
    path.unlink()
    return Path(target)


def trusting(path):
    """Read a checkpoint as torch did once: it may run code."""
    try:
        return torch.load(path, weights_only=False)
    except Exception as error:
        raise run.CheckpointError(f"{path} is damaged.") from error


def unchecked(cls, path):
    """Read a plan for what it says, whatever its digest."""
    values = {k: v for k, v in json.loads(path.read_text()).items() if k != "digest"}
    return cls.from_dict(values)


def forgetful(plain):
    """Log where the disk takes it, and say nothing where it does not."""

    def log(self, *event, **values):
        with suppress(Exception):
            plain(self, *event, **values)

    return log


def gone(*_, **__):
    raise KeyError("gone")


def endless(*_, **__):
    begun = time.process_time()
    while time.process_time() < begun + 1.5:
        pass


def only(name):
    made = {"half a run": kept._half_a_run, "plan": kept._plan}[name]()
    return mock.patch.object(damage, "draw_kept", return_value=made)


def no_momentum():
    return [mock.patch.object(torch.optim.SGD, "load_state_dict")]


PLANTED = {
    "a checkpoint is not written whole": (
        *("kills", "checkpoint.pt is"),  # damaged, or no checkpoint
        lambda: [
            mock.patch.object(stretch, "save_checkpoint", not_whole),
            mock.patch.object(run, "save_checkpoint", not_whole),
        ],
    ),
    "a resumed run forgets its momentum": ("kills", "other bits .*weights", no_momentum),
    "a file is moved to its place in two steps": (
        *("outputs", "files are torn"),
        lambda: [mock.patch.object(Path, "replace", in_two_steps)],
    ),
    "a resumed comparison forgets its momentum": ("sweeps", "other bits .*weights", no_momentum),
    "one of two that go on forgets its momentum": ("starts", "other bits .*weights", no_momentum),
    "a log line is lost on a failing disk": (
        *("disks", "other bits .*log"),
        lambda: [mock.patch.object(RunFolder, "log", forgetful(RunFolder.log))],
    ),
    "a checkpoint may run code": (
        *("damage", "ran code"),
        lambda: [
            only("half a run"),
            mock.patch.dict(harm.HARMS, {"pickle": harm.HARMS["pickle"]}, clear=True),
            mock.patch.object(run, "load_checkpoint", trusting),
        ],
    ),
    "a changed plan is taken as it is": (
        *("damage", "not a word: other plan"),
        lambda: [
            only("plan"),
            mock.patch.dict(harm.HARMS, {"bit": harm.HARMS["bit"]}, clear=True),
            mock.patch.object(Plan, "load", classmethod(unchecked)),
        ],
    ),
    "a reader raises a KeyError": (
        *("text", "KeyError: 'gone'"),
        lambda: [mock.patch.object(Plan, "load", classmethod(gone))],
    ),
    "a reader never ends": (
        *("text", "of processor time"),
        lambda: [mock.patch.object(Plan, "load", classmethod(endless))],
    ),
    "a command line ends in a traceback": (
        *("words", "KeyError: 'gone'"),
        lambda: [mock.patch.object(Settings, "from_dict", classmethod(gone))],
    ),
    "signals are not caught": (
        *("signals", "^SIG(INT|TERM) after|lines after SIG"),
        lambda: [mock.patch.object(signal, "signal")],
    ),
}
"""By what is wrong: which kind must find it, how that reads, and how to plant it."""

MOST_CASES = 60


def look_for(name):
    """Return what is found where a fault is planted, and what the same case finds then.

    A case that depends on a moment may find it once only; then the next one is tried.
    """
    kind, sign, plant = PLANTED[name]
    with ExitStack() as stack:
        for patch in plant():
            stack.enter_context(patch)
        for seed in range(1, MOST_CASES):
            found = [run_case(kind, KINDS[kind].work, seed).finding for _ in range(2)]
            if all(one is not None and re.search(sign, one.text, re.S) for one in found):
                return {"found": found[0].text, "again": found[1].text, "case": str(found[0])}
    return {"found": None}


def main(names):
    tiny.get_ready()
    readers.documents()  # while nothing is wrong yet
    words._home()
    found = {}
    try:
        for name in names:
            home = tiny.scratch_home()
            end = run_child(lambda n=name: print(json.dumps(look_for(n))) or 0, home, seconds=500)
            found[name] = json.loads(end.out) if end.code == 0 else {"broken": end.out + end.err}
    finally:
        shutil.rmtree(tiny.scratch_home(), ignore_errors=True)
    print(json.dumps(found))


if __name__ == "__main__":
    main(sys.argv[1:])
