"""Signals end the program at any moment: one line, 130 or 143, no traceback, no process left."""

import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from freezeout.lab.cli import main
from freezeout.lab.training import StopSignals, stop_code
from tests.lab.experiments.processes import children, read, wait_for
from tests.lab.runs import SMALL_ARGUMENTS

pytestmark = pytest.mark.multiprocess

OLDER = Path(__file__).parents[2] / "files" / "v0.1.0" / "whole"
ENDS = {signal.SIGINT: (130, "freezeout: interrupted\n")}
ENDS[signal.SIGTERM] = (143, "freezeout: terminated\n")
BOTH = pytest.mark.parametrize("number", ENDS, ids=lambda number: number.name)
WITH_PROC = pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs /proc")

START = "import runpy; runpy.run_module('freezeout', run_name='__main__', alter_sys=True)"
ENTRY = "from freezeout.lab.cli import main; sys.exit(main())"  # as the installed script has it

# A module whose import sends a signal and, as some packages do, turns what that raises into
# another exception.
AT_IMPORT = """
import os, signal, sys

class Sends:
    def find_spec(self, name, path=None, target=None):
        if name == {module!r}:
            try:
                os.kill(os.getpid(), {number})
            except BaseException as error:
                raise ImportError("not what it was") from error

sys.meta_path.insert(0, Sends())
sys.argv[0] = "freezeout"
{start}
"""

CUSTOM = """
import os, signal

def once():
    os.kill(os.getpid(), NUMBER)

def swallowed():
    for _ in range(2):
        try:
            once()
        except BaseException:
            pass

class Dying:
    def __del__(self):
        once()

def finalizer():
    Dying()
"""


def run(*command, **more):
    return subprocess.run(
        [sys.executable, *map(str, command)],
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
        **more,
    )


def assert_ended(done, number):
    assert (done.returncode, done.stderr) == ENDS[number]


WORDS = {
    "train": (["train", *SMALL_ARGUMENTS], "torch"),
    "plan": (["plan", *SMALL_ARGUMENTS], "freezeout.costs.measure"),
    "compare": (["compare", *SMALL_ARGUMENTS], "rich.progress"),
    "sweep": (["sweep", "--preset", "paper-small", "--out", "out"], "filelock"),
    "report": (["report", OLDER, "--out", "out"], "jinja2"),
    "help": (["--help"], "rich_argparse"),
    "words": (["--version"], "argparse"),
}


@BOTH
@pytest.mark.parametrize("verb", WORDS)
def test_during_an_import(tmp_path, verb, number):
    words, module = WORDS[verb]
    start = START if verb == "train" else ENTRY
    program = AT_IMPORT.format(module=module, number=int(number), start=start)
    assert_ended(run("-c", program, *words, cwd=tmp_path), number)
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


@BOTH
@pytest.mark.parametrize(
    ("verb", "function"),
    [("train", "once"), ("plan", "swallowed"), ("compare", "once"), ("train", "finalizer")],
)
def test_in_ordinary_code(tmp_path, verb, function, number):
    (tmp_path / "custom.py").write_text(CUSTOM.replace("NUMBER", str(int(number))))
    words = [verb, *SMALL_ARGUMENTS, "--data", f"custom:{function}"]
    assert_ended(run("-m", "freezeout", *words, cwd=tmp_path), number)
    left = {path.name for path in tmp_path.rglob("*") if path.is_file()}
    # In a finalizer nothing can be cleaned up: a note about a lock may stay, which nobody holds.
    assert left <= {"custom.py", "experiment.json", ".lock", ".lock.json"}


@BOTH
def test_once_the_end_is_settled_signals_change_nothing(number):
    program = (
        f"import os, sys; sys.argv[:] = ['freezeout', '--version']\n"
        f"from freezeout.lab.cli import main\ncode = main()\nos.kill(os.getpid(), {int(number)})\n"
        "sys.exit(code)"
    )
    done = run("-c", program)
    assert (done.returncode, done.stderr) == (0, "")


@BOTH
def test_inside_another_program_signals_stay_with_it(number):
    program = (
        "import signal\nfrom freezeout.lab.cli import main\n"
        f"before = signal.signal({int(number)}, lambda *_: print('mine'))\n"
        "main(['report', 'absent'])\n"
        f"signal.raise_signal({int(number)})\n"
    )
    assert run("-c", program).stdout == "mine\n"


def test_a_forked_process_has_signals_as_usual():
    program = (
        "import os, signal, sys\n"
        "from freezeout.lab.cli.signals import EndSignals\n"
        "EndSignals().catch()\n"
        "child = os.fork()\n"
        "if not child:\n"
        "    signal.raise_signal(signal.SIGTERM)\n"
        "print(os.waitpid(child, 0)[1])\n"
    )
    done = run("-c", program)
    assert (done.stdout, done.stderr) == (f"{int(signal.SIGTERM)}\n", "")


def started(*words, cwd):
    """The program in a process of its own, once it listens to signals."""
    process = subprocess.Popen(
        [sys.executable, "-m", "freezeout", *map(str, words)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=cwd,
    )
    status = Path(f"/proc/{process.pid}/status")
    while True:
        caught = next(line for line in status.read_text().splitlines() if "SigCgt" in line)
        if int(caught.split()[1], 16) >> (signal.SIGTERM - 1) & 1:
            return process
        assert process.poll() is None


@pytest.mark.slow
@WITH_PROC
@BOTH
@pytest.mark.parametrize("verb", ["train", "plan", "compare", "sweep", "report"])
def test_at_many_moments_of_the_start(tmp_path, verb, number):
    words, _ = WORDS[verb]
    for i in range(25):
        process = started(*words, "--out", f"out-{i}", cwd=tmp_path)
        time.sleep(0.003 * 1.32**i)  # 3 ms to 2 s
        process.send_signal(number)
        out, err = process.communicate(timeout=600)
        code, line = ENDS[number]
        saved = process.returncode == code and err == "" and "go on with: freezeout" in out
        done = process.returncode == 0 and err == ""
        assert saved or done or (process.returncode, err) == (code, line), (i, out, err)


@WITH_PROC
@BOTH
@pytest.mark.parametrize("times", [1, 2])
def test_no_process_of_an_experiment_is_left_behind(tmp_path, number, times):
    words = [*SMALL_ARGUMENTS, "--epochs", "60", "--seeds", "2", "--out", "out"]
    process = started("compare", *words, cwd=tmp_path)
    wait_for(lambda: children(process.pid) or process.poll() is not None)
    found = children(process.pid)
    assert found, process.communicate()
    for _ in range(times):
        process.send_signal(number)
        time.sleep(0.05)
    _, err = process.communicate(timeout=600)
    code, line = ENDS[number]
    assert process.returncode == code
    assert err == "" or (times == 2 and err == line)
    wait_for(lambda: not any(read(Path(f"/proc/{child}/cmdline")) for child in found))


def test_a_stop_of_earlier_work_is_forgotten():
    with StopSignals(threading.Event()):
        signal.raise_signal(signal.SIGTERM)
    assert stop_code() == 143
    main(["report", "absent"])
    assert stop_code() == 130
