"""Training under torchrun: one process tells, and all end together."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import torch.distributed as dist

from freezeout.lab.locks import is_lock
from freezeout.lab.training import RunFolder, Trainer, prepare, resume, start
from freezeout.lab.training.checkpoint import load_checkpoint
from freezeout.lab.training.processes import Launcher, spread
from freezeout.wrappers import reduced_elements
from tests.lab.runs import SMALL_ARGUMENTS, assert_same_end, search_path, small
from tests.lab.training.close_ends import CLOSE, assert_close_end, events
from tests.lab.training.several_jobs import uneven

pytestmark = pytest.mark.multiprocess

UNEVEN = [*SMALL_ARGUMENTS, "--train-size", "75", "--flip"]
"""The settings of `uneven`, as words."""


def free_port():
    with socket.socket() as made:
        made.bind(("127.0.0.1", 0))
        return str(made.getsockname()[1])


def torchrun(*words, cwd, processes=2):
    """The program under torchrun, begun."""
    command = [sys.executable, "-m", "torch.distributed.run", f"--nproc-per-node={processes}"]
    return subprocess.Popen(
        [*command, "--standalone", "-m", "freezeout", "train", *map(str, words)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=cwd,
        env={**os.environ, "GLOO_SOCKET_IFNAME": "lo"},
    )


def together(*words, cwd, processes=2, **changes):
    """The program in processes that nobody launches: codes, outputs and errors of each."""
    store = dist.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)  # as torchrun
    begun = [
        subprocess.Popen(
            [sys.executable, "-m", "freezeout", *map(str, words)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=cwd,
            env={
                **os.environ,
                "GLOO_SOCKET_IFNAME": "lo",
                **{"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(processes)},
                **{"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(store.port), **changes},
                "TORCHELASTIC_USE_AGENT_STORE": "True",
            },
        )
        for rank in range(processes)
    ]
    try:
        told = [process.communicate(timeout=600) for process in begun]
    finally:
        for process in begun:
            process.kill()
    return [process.returncode for process in begun], *zip(*told, strict=True)


def test_torchrun_trains_and_one_process_tells(tmp_path, one):
    process = torchrun(*UNEVEN, "--out", "run", cwd=tmp_path)
    out, err = process.communicate(timeout=600)
    assert process.returncode == 0, err
    folder = RunFolder(tmp_path / "run")
    assert_close_end(one, folder)
    assert len(re.findall(r"^epoch [123]/3 ", out, re.M)) == 3
    assert out.count("froze layer 0 ") == 1
    assert out.count("test error      ") == 1
    assert sorted(p.name for p in folder.path.iterdir() if not is_lock(p)) == [
        *("checkpoint.pt", "log.jsonl", "run.png", "settings.toml", "summary.json")
    ]
    assert "Traceback" not in err


ON_A_GPU = pytest.param("cuda", marks=pytest.mark.gpu)


@pytest.mark.parametrize("device", [pytest.param("cpu", marks=pytest.mark.slow), ON_A_GPU])
def test_torchrun_with_a_process_for_each_gpu(tmp_path, device):
    """One process needs no other; on two GPUs the second half of the batch goes through NCCL."""
    processes = min(2, torch.cuda.device_count()) if device == "cuda" else 1
    process = torchrun(
        *UNEVEN, "--device", device, "--out", "run", cwd=tmp_path, processes=processes
    )
    out, err = process.communicate(timeout=600)
    assert process.returncode == 0, err
    alone, folder = RunFolder(tmp_path / "alone"), RunFolder(tmp_path / "run")
    start(uneven(device=device), alone)
    begun = folder.read_log()[0]
    assert begun["processes"] == processes
    assert begun["device"].startswith(device)
    assert out.count("froze layer 0 ") == 1
    assert events(folder) == events(alone)
    if processes == 1:
        assert_same_end(alone, folder)
    else:  # the GPU's sums are coarser than the CPU's
        assert_close_end(alone, folder, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("device", ["cpu", ON_A_GPU])
def test_what_the_launcher_joins_exchanges_gradients_where_they_are(device, monkeypatch):
    """A process by itself shares with nobody, but through the same calls: NCCL's on a GPU."""
    place = {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "127.0.0.1"}
    for name, value in {**place, "MASTER_PORT": free_port()}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("TORCHELASTIC_USE_AGENT_STORE", raising=False)
    settings, data = prepare(small(device=device))
    plain, joined_up = (Trainer(settings, data) for _ in range(2))
    processes = Launcher(os.environ).join()
    try:
        group = dist.group.WORLD._get_backend(torch.device(device))
        assert group.name() == ("nccl" if device == "cuda" else "gloo")
        assert processes.gather([1.0]) == [[1.0]]
        network = spread(joined_up.model, joined_up.device, unused=False, same_bits=True)
        joined_up.network = network
        sent = []
        while not plain.finished:
            for (images, labels), (same, too) in zip(
                plain.batches(), joined_up.batches(), strict=True
            ):
                sent.append(reduced_elements(network))
                plain.take_step(images, labels)
                joined_up.take_step(same, too)
                assert joined_up.frozen == plain.frozen
            plain.finish_epoch()
            joined_up.finish_epoch()
        assert len(set(sent)) == plain.frozen + 1 == 5
        assert sent == sorted(sent, reverse=True)
        tolerance = CLOSE if device == "cpu" else {"rtol": 1e-3, "atol": 1e-4}
        for one, other in zip(plain.model.parameters(), network.parameters(), strict=True):
            torch.testing.assert_close(one, other, **tolerance)
    finally:
        dist.destroy_process_group()


FAILING = """
import os, time
from tests.lab.training.several_jobs import Net

class Failing(Net):
    calls = 0

    def forward(self, x):
        self.calls += self.training
        if self.calls == 7 and os.environ["RANK"] == "1":
            {what}
        return super().forward(x)

def make_net(num_classes, in_channels):
    return Failing(num_classes, in_channels)
"""


def failing(folder, what):
    """Words for a run in which rank 1 fails in its seventh step."""
    (folder / "failing.py").write_text(FAILING.format(what=what))
    return ["train", *UNEVEN, "--model", "failing:make_net", "--out", "run", "--display", "none"]


ROOT = Path(__file__).parents[3]


@pytest.mark.slow
def test_an_error_in_one_process_ends_both_with_one_line(tmp_path):
    words = failing(tmp_path, "raise ValueError('no more')")
    codes, out, err = together(*words, cwd=tmp_path, PYTHONPATH=search_path(ROOT))
    assert codes == [2, 2], err
    assert err[0].count("\n") == 1, err[0]
    assert "freezeout: error: what failing:make_net makes does not run on" in err[0]
    assert "ValueError: no more (failing.py, line " in err[0]
    assert (out, err[1]) == (("", ""), "")
    assert load_checkpoint(tmp_path / "run" / "checkpoint.pt")["step"] == 5  # the first epoch


@pytest.mark.slow
@pytest.mark.parametrize("signalled", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_to_torchrun_saves_and_one_process_goes_on(tmp_path, signalled):
    words = [*UNEVEN, "--epochs", "150", "--no-predict"]
    process = torchrun(*words, "--out", "run", cwd=tmp_path)
    folder = RunFolder(tmp_path / "run")
    deadline = time.monotonic() + 600
    while not any(r["event"] == "epoch" for r in folder.read_log()):
        assert process.poll() is None, process.stderr.read()
        assert time.monotonic() < deadline
        time.sleep(0.05)
    process.send_signal(signalled)
    out, err = process.communicate(timeout=600)
    assert process.returncode != 0
    step = load_checkpoint(folder.checkpoint)["step"]
    assert 5 <= step < 750
    assert out.count(f"stopped after step {step} of ") == 1
    assert folder.read_log()[-1]["event"] == "end"
    assert json.loads(folder.summary_file.read_text())["interrupted"] is True
    assert "freezeout: error" not in err
    result = resume(folder)
    assert (result.interrupted, result.trainer.step) == (False, 750)


@pytest.mark.slow
def test_a_process_that_is_killed_ends_the_other(tmp_path):
    words = failing(tmp_path, "os.kill(os.getpid(), 9)")
    codes, _, err = together(*words, cwd=tmp_path, PYTHONPATH=search_path(ROOT))
    assert codes == [2, -9]
    assert err[0].count("\n") == 1
    assert "one of the 2 processes is gone without a word" in err[0]


@pytest.mark.slow
def test_a_defect_in_one_process_is_shown_once(tmp_path):
    words = failing(tmp_path, "raise SystemError")
    (tmp_path / "sitecustomize.py").write_text(
        "import freezeout.lab.training.custom as custom\n"
        "def fail(self, error, images):\n    raise ZeroDivisionError('a defect') from error\n"
        "custom.CustomNetwork._failed = fail\n"
    )
    codes, _, err = together(*words, cwd=tmp_path, PYTHONPATH=search_path(tmp_path, ROOT))
    assert codes == [1, 1]
    assert err[0] == ""
    assert err[1].count("ZeroDivisionError: a defect") == 1


@pytest.mark.slow
def test_a_folder_that_goes_away_ends_both(tmp_path):
    # Rank 0 alone writes, and so it alone fails.
    words = failing(tmp_path, "__import__('shutil').rmtree('run')")
    codes, _, err = together(*words, cwd=tmp_path, PYTHONPATH=search_path(ROOT))
    assert codes == [2, 2], err
    assert err[0].count("\n") == 1
    assert "cannot write run" in err[0]
    assert err[1] == ""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["train", "--nonsense"], "unrecognized arguments: --nonsense"),
        (["plan"], "only freezeout train works in several processes"),
        (["train", *UNEVEN, "--lr", "1e30", "--out", "run"], "training diverged"),
        (["train", *UNEVEN, "--predict"], "predict needs measured costs"),
        (["train", "--resume", "absent"], "there is no run in absent"),
    ],
    ids=["usage", "verb", "diverged", "predict", "resume"],
)
def test_bad_input_is_told_once(tmp_path, words, line):
    codes, _, err = together(*words, cwd=tmp_path)
    assert codes == [2, 2]
    assert err[0].count("\n") == 1
    assert line in err[0]
    assert err[1] == ""
