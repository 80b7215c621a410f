"""Training in several processes: the result of one, exact resume, and one end for all."""

import itertools
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import torch.distributed as dist

from freezeout.cli.launcher import Launcher
from freezeout.data import TensorLoader, load
from freezeout.distributed import reduced_elements
from freezeout.training import RunFolder, Trainer, resume, start
from freezeout.training.checkpoint import load_checkpoint
from freezeout.training.exchange import spread
from freezeout.training.run import prepare
from ranks import joined
from runs import SMALL_ARGUMENTS, KillAt, KilledError, assert_same_end, small
from several_jobs import job, uneven

pytestmark = pytest.mark.multiprocess

UNEVEN = [*SMALL_ARGUMENTS, "--train-size", "75", "--flip"]
"""The settings of `uneven`, as words."""

# Sums in another order move float32 by about 1e-7 of each sum; fifteen steps carry that on.
CLOSE = {"rtol": 2e-5, "atol": 2e-6}


def assert_close_end(one, other, **tolerance):
    """Both runs ended with the same weights, moments and losses but for rounding."""
    a, b = load_checkpoint(one.checkpoint), load_checkpoint(other.checkpoint)
    tolerance = tolerance or CLOSE
    for name, value in a["model"].items():
        torch.testing.assert_close(value, b["model"][name], **tolerance, msg=name)
    assert a["optimizer"]["param_groups"] == b["optimizer"]["param_groups"]
    assert a["optimizer"]["state"].keys() == b["optimizer"]["state"].keys()
    for key, state in a["optimizer"]["state"].items():
        for name, value in state.items():
            found = b["optimizer"]["state"][key][name]
            torch.testing.assert_close(value, found, **tolerance, msg=f"{key} {name}")
    assert a["scheduler"] == b["scheduler"]
    assert a["step"] == b["step"]
    for x, y in zip(a["history"], b["history"], strict=True):
        for name in ("train_loss", "test_loss"):
            assert x[name] == pytest.approx(y[name], rel=tolerance["rtol"])
        for name in ("epoch", "step", "frozen", "train_error", "test_error"):
            assert x[name] == y[name], name


def events(folder):
    """What happened when, but for resumes."""
    told = [(r["event"], r["step"], r.get("index")) for r in folder.read_log()]
    return [event for event in told if event[0] != "resume"]


@pytest.fixture(scope="module")
def pair():
    """Two processes that train together, and go from one job to the next."""
    with joined(2) as ranks:
        yield ranks


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return tmp_path_factory.mktemp("several")


@pytest.fixture(scope="module")
def one(place):
    """The run in one process."""
    folder = RunFolder(place / "one")
    start(uneven(), folder)
    return folder


@pytest.fixture(scope="module")
def two(pair, place):
    """The same run in two."""
    assert pair.run(job, "whole", place) == [(15, False)] * 2
    return RunFolder(place / "whole")


# -- parts of a batch ---------------------------------------------------------------------------


@pytest.mark.parametrize("parts", [2, 3, 7])
def test_parts_of_a_batch_are_the_batch_with_the_same_crops_and_flips(parts):
    data = load("digits")

    def loader(number, count):
        from freezeout.data import Augmentation

        return TensorLoader(
            data.train_images[:75],
            data.train_labels[:75],
            batch_size=16,
            device="cpu",
            seed=3,
            augmentation=Augmentation(padding=1, flip=True),
            part=(number, count),
        )

    whole = list(loader(0, 1).epoch(2))
    shares = [list(loader(number, parts).epoch(2)) for number in range(parts)]
    for i, (images, labels) in enumerate(whole):
        assert loader(0, parts).images_in(i) == len(labels)
        assert torch.equal(torch.cat([share[i][0] for share in shares]), images)
        assert torch.equal(torch.cat([share[i][1] for share in shares]), labels)
        sizes = [len(share[i][1]) for share in shares]
        assert max(sizes) - min(sizes) <= 1


def test_a_part_that_is_none_is_refused():
    images = torch.zeros(4, 1, 2, 2, dtype=torch.uint8)
    for part in ((2, 2), (-1, 2), (0, 0)):
        with pytest.raises(ValueError, match=r"part\[[01]\] must be"):
            TensorLoader(images, torch.arange(4), batch_size=2, device="cpu", part=part)


# -- two processes ------------------------------------------------------------------------------


def test_two_processes_end_where_one_does(one, two):
    assert_close_end(one, two)
    assert events(one) == events(two)
    assert [r["processes"] for r in (one.read_log()[0], two.read_log()[0])] == [1, 2]
    assert not two.path.with_name("whole-1").exists()  # rank 1 writes nothing
    assert one.settings() == two.settings()


def test_what_goes_between_processes_shrinks_with_every_freeze(pair, place, two):
    steps = pair.run(job, "exchange", place)[0]
    assert_same_end(two, RunFolder(place / "exchange"))  # looking changes nothing
    elements = [n for n, _, _ in steps]
    frozen = [r["step"] for r in two.read_log() if r["event"] == "freeze"]
    changes = [i + 1 for i in range(1, 15) if elements[i] != elements[i - 1]]
    assert changes == sorted(set(frozen))
    assert elements == sorted(elements, reverse=True)
    assert elements[-1] == 330  # the classifier
    # In the last epoch only losses are told: frozen BatchNorms have nothing to say.
    messages = [n for _, n, _ in steps]
    assert [b - a for a, b in itertools.pairwise(messages[10:])] == [1, 1, 1, 1]
    assert messages[1] - messages[0] > 7  # each of seven BatchNorms, there and back, and losses
    assert {n for _, _, n in steps} == {0}  # no buffers


@pytest.mark.parametrize("name", ["again", "each_step"])
def test_killed_and_resumed_in_two_processes_it_ends_with_the_same_bits(pair, place, two, name):
    assert pair.run(job, name, place) == [(15, False)] * 2
    assert_same_end(two, RunFolder(place / name))
    assert events(RunFolder(place / name)) == events(two)


def test_a_signal_to_one_process_stops_both_after_the_same_step(pair, place, two):
    first, second = pair.run(job, "signalled", place)
    assert (first[0], second[0]) == ((7, True), (7, True))
    assert (first[2], second[2]) == ((15, False), (15, False))
    assert "stopped after step 7 of 15, all saved" in first[1][-1]
    assert_same_end(two, RunFolder(place / "signalled"))


def test_begun_in_one_process_it_goes_on_in_two(pair, place, one):
    folder = RunFolder(place / "from_another")
    with pytest.raises(KilledError):
        start(uneven(checkpoint_minutes=1e-9), folder, [KillAt(8)])
    assert load_checkpoint(folder.checkpoint)["step"] == 7
    (first, said), _ = pair.run(job, "from_another", place)
    assert first == (15, False)
    assert "goes on in 2 processes, after 1: the same result but for rounding" in said
    assert_close_end(one, folder)
    assert events(folder) == events(one)
    note = next(r for r in folder.read_log() if r["event"] == "resume")
    assert (note["step"], note["processes"]) == (7, 2)


def test_begun_in_two_processes_it_goes_on_in_one(pair, place, one):
    pair.run(job, "for_another", place)
    folder = RunFolder(place / "for_another")
    assert not resume(folder).interrupted
    assert_close_end(one, folder)
    assert events(folder) == events(one)


def test_a_network_of_the_users_own_with_dropout_resumes_to_the_same_bits(pair, place):
    (said, seed), (_, other_seed) = pair.run(job, "own", place)
    assert_same_end(RunFolder(place / "own"), RunFolder(place / "own_again"))
    a, b = (load_checkpoint(place / n / "checkpoint.pt") for n in ("own", "own_again"))
    for one, other in zip(a["generators"], b["generators"], strict=True):
        assert torch.equal(one[0], other[0])
    assert seed == 0 != other_seed  # masks of their own
    assert any("OtherNorm normalises in each process by itself" in text for text in said)


def test_the_control_and_another_optimizer(pair, place):
    assert pair.run(job, "control", place) == [(15, False)] * 2
    folder = RunFolder(place / "control_alone")
    start(uneven(freeze=False, optimizer="adamw", lr=1e-3), folder)
    # AdamW divides by the root of what may be tiny.
    assert_close_end(folder, RunFolder(place / "control"), rtol=1e-3, atol=1e-5)


def test_what_cannot_begin_is_refused_in_every_process(pair, place):
    first, second = pair.run(job, "refused", place)
    assert first.keys() == second.keys()
    assert "const_time needs measured costs" in first["const_time"]
    assert "cuda:0" in first["device"]
    assert "gives other data in process 1 than in process 0" in first["data"]
    assert "train_size must be at most 1437" in first["first"]
    assert "is not empty" in first["full"]
    assert re.search(r"diverged: .* at step \d+\.", first["diverged"])
    assert first == second
    left = ("const_time", "device", "data", "first")
    assert not [p for name in left for p in place.glob(f"{name}*")]
    assert (place / "full" / "file").read_text() == "mine"


def test_batchnorm_over_all_processes_is_that_of_the_whole_batch(pair, place):
    for worst, same_names, local in pair.run(job, "norm", place):
        assert worst < 1e-11  # in double precision; parts have 5 and 6 images
        assert same_names
        assert local == []


@pytest.mark.slow
def test_three_processes(place, one, two):
    with joined(3) as ranks:
        assert ranks.run(job, "whole", place / "three") == [(15, False)] * 3
        whole = RunFolder(place / "three" / "whole")
        assert_close_end(one, whole)
        for name in ("again", "each_step"):
            assert ranks.run(job, name, place / "three") == [(15, False)] * 3
            # With three, sums depend on how gradients are packed, but for a fixed order.
            assert_same_end(whole, RunFolder(place / "three" / name))
        messages = ranks.run(job, "refused", place / "three")
        assert "at least an image for each of the 3 processes, got 2" in messages[0]["images"]
        for worst, _, _ in ranks.run(job, "norm", place / "three"):
            assert worst < 1e-11
        from_two = RunFolder(place / "three" / "from_another")
        shutil.copytree(two.path, from_two.path)
        assert ranks.run(job, "from_another", place / "three")[0][0] == (15, False)


@pytest.mark.slow
def test_bf16(pair, place):
    assert pair.run(job, "bf16", place) == [(15, False)] * 2
    folder = RunFolder(place / "bf16_alone")
    start(uneven(precision="bf16"), folder)
    a, b = (load_checkpoint(f.checkpoint) for f in (folder, RunFolder(place / "bf16")))
    for x, y in zip(a["history"], b["history"], strict=True):
        assert x["train_loss"] == pytest.approx(y["train_loss"], rel=0.05)


# -- the program --------------------------------------------------------------------------------


def free_port():
    with socket.socket() as made:
        made.bind(("127.0.0.1", 0))
        return str(made.getsockname()[1])


def torchrun(*words, cwd, processes=2):
    """The program under torchrun, begun."""
    command = [sys.executable, "-m", "torch.distributed.run", f"--nproc-per-node={processes}"]
    return subprocess.Popen(
        [*command, f"--master-port={free_port()}", "-m", "freezeout", "train", *map(str, words)],
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
        told = [process.communicate(timeout=100) for process in begun]
    finally:
        for process in begun:
            process.kill()
    return [process.returncode for process in begun], *zip(*told, strict=True)


def test_torchrun_trains_and_one_process_tells(tmp_path, one):
    process = torchrun(*UNEVEN, "--out", "run", cwd=tmp_path)
    out, err = process.communicate(timeout=150)
    assert process.returncode == 0, err
    folder = RunFolder(tmp_path / "run")
    assert_close_end(one, folder)
    assert len(re.findall(r"^epoch [123]/3 ", out, re.M)) == 3
    assert out.count("froze layer 0 ") == 1
    assert out.count("test error      ") == 1
    assert sorted(p.name for p in folder.path.iterdir()) == [
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
    out, err = process.communicate(timeout=150)
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
from several_jobs import Net

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


TESTS = str(Path(__file__).parent)


@pytest.mark.slow
def test_an_error_in_one_process_ends_both_with_one_line(tmp_path):
    words = failing(tmp_path, "raise ValueError('no more')")
    codes, out, err = together(*words, cwd=tmp_path, PYTHONPATH=TESTS)
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
    deadline = time.monotonic() + 100
    while not any(r["event"] == "epoch" for r in folder.read_log()):
        assert process.poll() is None, process.stderr.read()
        assert time.monotonic() < deadline
        time.sleep(0.05)
    process.send_signal(signalled)
    out, err = process.communicate(timeout=60)
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
    codes, _, err = together(*words, cwd=tmp_path, PYTHONPATH=TESTS)
    assert codes == [2, -9]
    assert err[0].count("\n") == 1
    assert "one of the 2 processes is gone without a word" in err[0]


@pytest.mark.slow
def test_a_defect_in_one_process_is_shown_once(tmp_path):
    words = failing(tmp_path, "raise SystemError")
    (tmp_path / "sitecustomize.py").write_text(
        "import freezeout.training.own as own\n"
        "def fail(self, error, images):\n    raise ZeroDivisionError('a defect') from error\n"
        "own.OwnNetwork._failed = fail\n"
    )
    path = f"{tmp_path}{os.pathsep}{TESTS}"
    codes, _, err = together(*words, cwd=tmp_path, PYTHONPATH=path)
    assert codes == [1, 1]
    assert err[0] == ""
    assert err[1].count("ZeroDivisionError: a defect") == 1


@pytest.mark.slow
def test_a_folder_that_goes_away_ends_both(tmp_path):
    # Rank 0 alone writes, and so it alone fails.
    words = failing(tmp_path, "__import__('shutil').rmtree('run')")
    codes, _, err = together(*words, cwd=tmp_path, PYTHONPATH=TESTS)
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
