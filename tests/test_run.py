"""Whole runs: what they compute, what they leave on disk, and going on after any interruption."""

import itertools
import json
import math
import os
import shutil
import signal
import subprocess
import sys
import threading
import time

import pytest
import torch
import torch.nn.functional as F

from freezeout import models, reference
from freezeout.data import Augmentation, TensorLoader, channel_statistics, load
from freezeout.errors import CheckpointError, DivergenceError, RunError
from freezeout.layers import split_layers
from freezeout.training import Observer, RunFolder, Settings, resume, start
from freezeout.training import run as run_module
from freezeout.training.checkpoint import load_checkpoint
from freezeout.training.trainer import Trainer
from runs import SMALL_ARGUMENTS, KillAt, KilledError, assert_same_end, small, train


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run that nothing interrupted."""
    return train(tmp_path_factory.mktemp("whole") / "run")


SHORT = {"steps": 11, "epochs": 7, "evaluate_every": 2}
"""Two whole epochs of four steps and three steps of a third; `epochs` does not count."""


@pytest.fixture(scope="module")
def short(tmp_path_factory):
    """A run that ends within an epoch."""
    return train(tmp_path_factory.mktemp("short") / "run", **SHORT)


@pytest.mark.parametrize(("fixture", "total", "in_last"), [("whole", 12, 4), ("short", 11, 3)])
def test_a_run_ends_in_the_weights_of_the_reference(fixture, total, in_last, request):
    # The same data, order, augmentation and seed by hand, with nothing ever frozen.
    run = request.getfixturevalue(fixture)
    s = run.settings()
    data = load("digits")
    images, labels = data.train_images[: s.train_size], data.train_labels[: s.train_size]
    mean, std = channel_statistics(images)
    torch.manual_seed(s.seed)
    model = models.build(s.model, num_classes=10, in_channels=1, image_size=(8, 8))
    model = model.to(memory_format=torch.channels_last)
    loader = TensorLoader(
        images,
        labels,
        batch_size=s.batch_size,
        device="cpu",
        seed=s.seed,
        augmentation=Augmentation(padding=s.padding, flip=s.flip),
        channels_last=True,
        mean=mean,
        std=std,
    )
    optimizer = torch.optim.SGD(
        model.parameters(), lr=0.1, momentum=0.9, nesterov=True, weight_decay=1e-4
    )
    losses = reference.train(
        model,
        optimizer,
        itertools.islice((b for epoch in range(3) for b in loader.epoch(epoch)), total),
        F.cross_entropy,
        layers=split_layers(model),
        schedule=s.schedule,
        total_steps=total,
    )
    state = load_checkpoint(run.checkpoint)
    for name, value in model.state_dict().items():
        assert torch.equal(value, state["model"][name]), name
    last = losses[-in_last:]
    assert state["history"][-1]["train_loss"] == pytest.approx(sum(last) / len(last), abs=1e-6)


def test_layers_freeze_one_by_one_and_lose_their_optimizer_state(whole):
    log = whole.read_log()
    frozen = [(r["index"], r["step"]) for r in log if r["event"] == "freeze"]
    starts = next(r for r in log if r["event"] == "start")
    assert frozen == [(i, n) for i, n in enumerate(starts["freeze_steps"]) if n is not None]
    assert len(frozen) == len(starts["layers"]) - 1
    state = load_checkpoint(whole.checkpoint)["optimizer"]
    head = {i for group in state["param_groups"][-1:] for i in group["params"]}
    assert set(state["state"]) == head  # momentum is held for the classifier alone


def test_the_log_has_one_line_per_epoch(whole):
    epochs = [r for r in whole.read_log() if r["event"] == "epoch"]
    assert [r["epoch"] for r in epochs] == [1, 2, 3]
    assert [r["step"] for r in epochs] == [4, 8, 12]
    for record in epochs:
        assert 0 <= record["test_error"] <= 100
        assert record["train_loss"] > 0
        assert record["seconds"] > 0
    assert whole.read_log()[-1]["event"] == "end"


def test_the_full_settings_are_saved(whole):
    s = whole.settings()
    assert s.to_dict().items() >= small(padding=1, flip=False).to_dict().items()
    assert (s.padding, s.flip, s.device) == (1, False, "cpu")


@pytest.mark.parametrize("step", [1, 2, 3, 4, 5, 7, 8, 9, 11, 12])
def test_killed_at_any_step_and_resumed_it_ends_with_the_same_bits(whole, tmp_path, step):
    folder = RunFolder(tmp_path / "run")
    with pytest.raises(KilledError):
        start(small(), folder, [KillAt(step)])
    result = resume(folder)
    assert not result.interrupted
    assert_same_end(whole, folder)
    # The log tells of every epoch and every freeze once, as if nothing had happened.
    told = [(r["event"], r["step"]) for r in folder.read_log()]
    assert told == [(r["event"], r["step"]) for r in whole.read_log()]


@pytest.mark.parametrize("seconds_between", [0.0, 60.0])
def test_killed_three_times_with_saves_in_the_middle_of_an_epoch(whole, tmp_path, seconds_between):
    # With a checkpoint after every step, a kill at step n goes on from step n - 1.
    settings = small(checkpoint_minutes=max(seconds_between / 60, 1e-9))
    folder = RunFolder(tmp_path / "run")
    with pytest.raises(KilledError):
        start(settings, folder, [KillAt(3)])
    begun = load_checkpoint(folder.checkpoint)["step"]
    assert begun == (2 if seconds_between == 0.0 else 0)
    for step in (6, 10):
        with pytest.raises(KilledError):
            resume(folder, observers=[KillAt(step)])
    resume(folder)
    assert_same_end(whole, folder)


class SignalAt(Observer):
    """Sends this process a signal after a step."""

    def __init__(self, step, number):
        self.step, self.number, self.said = step, number, []

    def progress(self, progress):
        if progress.step == self.step:
            os.kill(os.getpid(), self.number)

    def message(self, text):
        self.said.append(text)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("step", [2, 4, 6])
def test_a_signal_ends_the_run_at_once_with_all_saved(whole, tmp_path, step, number):
    folder = RunFolder(tmp_path / "run")
    observer = SignalAt(step, number)
    handlers = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    result = start(small(), folder, [observer])
    assert result.interrupted
    # The step under way is finished; the signal of step 4 comes when an epoch is done.
    assert load_checkpoint(folder.checkpoint)["step"] == (step if step == 4 else step + 1)
    assert len(observer.said) == 1
    assert f"freezeout train --resume {folder.path}" in observer.said[0]
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == handlers
    assert not resume(folder).interrupted
    assert_same_end(whole, folder)


def test_a_signal_in_the_last_step_finishes_the_run(whole, tmp_path):
    folder = RunFolder(tmp_path / "run")
    result = start(small(), folder, [SignalAt(11, signal.SIGINT)])
    assert not result.interrupted
    assert_same_end(whole, folder)


def test_a_run_works_outside_the_main_thread(whole, tmp_path):
    folder = RunFolder(tmp_path / "run")
    thread = threading.Thread(target=start, args=(small(), folder))
    thread.start()
    thread.join()
    assert_same_end(whole, folder)


@pytest.mark.multiprocess
def test_a_killed_process_leaves_a_run_that_can_be_resumed(whole, tmp_path):
    folder = RunFolder(tmp_path / "run")
    command = [sys.executable, "-m", "freezeout", "train", *SMALL_ARGUMENTS]
    process = subprocess.Popen(
        [*command, "--out", str(folder.path), "--display", "none"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    deadline = time.monotonic() + 120
    while not folder.checkpoint.exists():
        assert process.poll() is None, process.stderr.read()
        assert time.monotonic() < deadline
        time.sleep(0.002)
    process.kill()
    process.communicate()
    resume(folder)
    assert_same_end(whole, folder)


def test_a_finished_run_can_be_resumed_and_stays_as_it_is(whole, tmp_path):
    folder = RunFolder(tmp_path / "run")
    shutil.copytree(whole.path, folder.path)
    assert not resume(folder).interrupted
    assert_same_end(whole, folder)


def test_a_line_cut_off_by_a_crash_is_dropped(whole, tmp_path):
    folder = RunFolder(tmp_path / "run")
    shutil.copytree(whole.path, folder.path)
    with folder.log_file.open("a") as file:
        file.write('{"event": "epo')
    folder.rewind_log(8)
    assert [json.loads(line)["step"] for line in folder.log_file.read_text().splitlines()] == [
        r["step"] for r in whole.read_log() if r["step"] <= 8
    ]


# -- so many steps in place of whole epochs --------------------------------------------------


def test_a_run_of_so_many_steps_closes_its_partial_epoch_like_a_whole_one(short):
    log = short.read_log()
    epochs = [r for r in log if r["event"] == "epoch"]
    assert [(r["epoch"], r["step"]) for r in epochs] == [(1, 4), (2, 8), (3, 11)]
    # The last epoch is tested always, an odd one otherwise not.
    assert [r["test_error"] is None for r in epochs] == [True, False, False]
    assert (log[0]["total_steps"], log[-1]["step"], log[-1]["finished"]) == (11, 11, True)
    state = load_checkpoint(short.checkpoint)
    assert (state["step"], state["epoch"], state["batch"]) == (11, 3, 0)
    assert state["sums"]["images"] == 0
    # Time is counted from where the partial epoch began, and each step once.
    clock = resume(short).trainer.clock
    assert epochs[-1]["seconds"] == pytest.approx(clock.total_since(8))
    assert sum(r["seconds"] for r in epochs) == pytest.approx(clock.total_since(0))


def test_layers_freeze_over_so_many_steps_and_the_last_rate_is_zero(short):
    log = short.read_log()
    frozen = [(r["index"], r["step"]) for r in log if r["event"] == "freeze"]
    times = [(0.6 + 0.4 * i / 4) ** 3 for i in range(4)]
    assert frozen == [(i, math.ceil(11 * t)) for i, t in enumerate(times)]
    groups = load_checkpoint(short.checkpoint)["optimizer"]["param_groups"]
    assert [group["lr"] for group in groups] == [0.0] * len(groups)


def test_as_many_steps_as_the_epochs_have_end_with_the_same_bits(whole, tmp_path):
    folder = train(tmp_path / "run", steps=12, epochs=1)
    assert_same_end(whole, folder)
    told = [(r["event"], r["step"]) for r in folder.read_log()]
    assert told == [(r["event"], r["step"]) for r in whole.read_log()]


@pytest.mark.parametrize("minutes", [1e-9, 10.0], ids=["saved every step", "saved every epoch"])
@pytest.mark.parametrize("step", [8, 9, 10, 11])
def test_killed_in_the_partial_epoch_and_resumed_it_ends_with_the_same_bits(
    short, tmp_path, step, minutes
):
    folder = RunFolder(tmp_path / "run")
    with pytest.raises(KilledError):
        start(small(**SHORT, checkpoint_minutes=minutes), folder, [KillAt(step)])
    saved = load_checkpoint(folder.checkpoint)["step"]
    assert saved == (step - 1 if minutes < 1 else 4 if step == 8 else 8)
    assert not resume(folder).interrupted
    assert_same_end(short, folder)
    told = [(r["event"], r["step"]) for r in folder.read_log()]
    assert told == [(r["event"], r["step"]) for r in short.read_log()]


def test_killed_with_all_steps_saved_but_the_partial_epoch_open(short, tmp_path, monkeypatch):
    folder = RunFolder(tmp_path / "run")
    real = Trainer.test

    def test(trainer):
        if trainer.step == 11:
            raise KilledError
        return real(trainer)

    monkeypatch.setattr(Trainer, "test", test)
    with pytest.raises(KilledError):
        start(small(**SHORT, checkpoint_minutes=1e-9), folder)
    monkeypatch.undo()
    state = load_checkpoint(folder.checkpoint)
    assert (state["step"], state["epoch"], state["batch"]) == (11, 2, 3)
    resume(folder)  # not finished yet: test and record are missing
    assert_same_end(short, folder)
    assert [r["step"] for r in folder.read_log() if r["event"] == "epoch"] == [4, 8, 11]


@pytest.mark.parametrize(("step", "interrupted"), [(9, True), (10, False)])
def test_a_signal_in_the_partial_epoch(short, tmp_path, step, interrupted):
    # The step under way is finished; that of the second signal is the last of the run.
    folder = RunFolder(tmp_path / "run")
    observer = SignalAt(step, signal.SIGINT)
    result = start(small(**SHORT), folder, [observer])
    assert result.interrupted is interrupted
    assert result.trainer.step == step + 1
    said = "".join(observer.said)
    assert ("stopped after step 10 of 11" in said) is interrupted
    if interrupted:
        assert load_checkpoint(folder.checkpoint)["step"] == 10
        resume(folder)
    assert_same_end(short, folder)


def test_a_finished_run_of_so_many_steps_has_nothing_left_to_do(short, tmp_path):
    folder = RunFolder(tmp_path / "run")
    shutil.copytree(short.path, folder.path)
    seen = []

    class Watch(Observer):
        def progress(self, progress):
            seen.append(progress)

        def epoch(self, record):
            seen.append(record)

    result = resume(folder, {"steps": 11}, [Watch()])
    assert (result.interrupted, seen) == (False, [])
    assert list(result.trainer.batches()) == []
    assert_same_end(short, folder)
    with pytest.raises(CheckpointError, match=r"has steps=11, got 12\. A resumed run keeps its"):
        resume(folder, {"steps": 12})


@pytest.mark.parametrize("steps", [1, 3])
def test_fewer_steps_than_an_epoch_has(tmp_path, steps):
    told = []

    class Watch(Observer):
        def start(self, title, layer_names, freeze_steps, total_steps, epochs, done_steps):
            told.append((total_steps, epochs))

    folder = train(tmp_path / "run", observers=(Watch(),), steps=steps)
    epochs = [r for r in folder.read_log() if r["event"] == "epoch"]
    assert [(r["epoch"], r["step"]) for r in epochs] == [(1, steps)]
    assert 0 <= epochs[0]["test_error"] <= 100
    assert load_checkpoint(folder.checkpoint)["step"] == steps
    assert told == [(steps, 1)]


# -- refusals: nothing that was saved is lost ------------------------------------------------


def unchanged(folder):
    return {p.name: p.read_bytes() for p in sorted(folder.path.iterdir())}


def test_a_folder_with_something_in_it_is_refused(whole):
    before = unchanged(whole)
    with pytest.raises(RunError, match=r"is not empty\. Give a new or empty folder with --out, or"):
        start(small(), whole)
    assert unchanged(whole) == before


def test_a_file_in_place_of_the_folder_is_refused(tmp_path):
    (tmp_path / "run").write_text("mine")
    with pytest.raises(RunError, match="is a file"):
        start(small(), RunFolder(tmp_path / "run"))
    with pytest.raises(RunError, match=r"cannot .*run/sub.*: Not a directory"):
        start(small(), RunFolder(tmp_path / "run" / "sub"))
    assert (tmp_path / "run").read_text() == "mine"


def test_a_changed_setting_is_refused_on_resume(whole):
    before = unchanged(whole)
    with pytest.raises(CheckpointError, match=r"has lr=0.1, got 0.2. A resumed run keeps its"):
        resume(whole, {"lr": 0.2})
    assert unchanged(whole) == before
    # The value it has already, and where it runs, may be said again.
    assert not resume(whole, {"lr": 0.1, "device": "cpu", "checkpoint_minutes": 5.0}).interrupted


def test_a_checkpoint_of_another_network_is_refused(whole, tmp_path):
    folder = RunFolder(tmp_path / "run")
    shutil.copytree(whole.path, folder.path)
    other = train(tmp_path / "other", model="resnet-8-4")
    shutil.copy(other.checkpoint, folder.checkpoint)
    before = unchanged(folder)
    with pytest.raises(CheckpointError, match=r"made with model='resnet-8-4', but .*'resnet-8-8'"):
        resume(folder)
    assert unchanged(folder) == before


def test_weights_that_do_not_fit_are_refused_even_where_settings_match(whole):
    state = load_checkpoint(whole.checkpoint)
    state["model"]["stem.conv.weight"] = torch.zeros(1)
    settings = whole.settings()
    trainer = Trainer(settings, run_module.prepare(settings)[1])
    with pytest.raises(CheckpointError, match="belongs to another network"):
        trainer.load_state_dict(state)


def test_a_truncated_checkpoint_is_refused(whole, tmp_path):
    folder = RunFolder(tmp_path / "run")
    shutil.copytree(whole.path, folder.path)
    content = folder.checkpoint.read_bytes()
    folder.checkpoint.write_bytes(content[: len(content) // 2])
    before = unchanged(folder)
    with pytest.raises(CheckpointError, match="is damaged or not a checkpoint"):
        resume(folder)
    assert unchanged(folder) == before


def test_a_folder_without_a_run_is_refused(tmp_path):
    with pytest.raises(CheckpointError, match="there is no run in"):
        resume(RunFolder(tmp_path))


def test_a_full_disk_keeps_the_last_checkpoint(tmp_path, monkeypatch):
    folder = RunFolder(tmp_path / "run")
    saves = []
    real = torch.save

    def save(state, file):
        saves.append(state["step"])
        if state["step"] == 8:
            file.write(b"some of it")
            raise OSError(28, "No space left on device")
        real(state, file)

    monkeypatch.setattr(torch, "save", save)
    with pytest.raises(RunError, match=r"checkpoint\.pt: No space left on device"):
        start(small(), folder)
    assert saves == [0, 4, 8]
    assert load_checkpoint(folder.checkpoint)["step"] == 4
    assert not list(folder.path.glob("*.part"))
    assert not list(folder.path.glob(".*"))


@pytest.mark.parametrize("lr", [1e4, 1e18])
def test_a_diverging_run_says_at_which_step_and_keeps_the_last_good_checkpoint(tmp_path, lr):
    folder = RunFolder(tmp_path / "run")
    seen = []

    class Watch(Observer):
        def progress(self, progress):
            seen.append(progress.step)

    with pytest.raises(DivergenceError, match=r"training diverged: .* at step \d+\. The last") as e:
        start(small(lr=lr, epochs=20), folder, [Watch()])
    assert e.value.step in (seen[-1], seen[-1] + 1)
    assert f"at step {e.value.step}." in str(e.value)
    state = load_checkpoint(folder.checkpoint)
    assert state["step"] < e.value.step
    for name, value in state["model"].items():
        assert torch.isfinite(value).all(), name


def test_no_checkpoint_of_infinite_weights_is_ever_written(tmp_path):
    settings = small(padding=1, flip=False)
    trainer = Trainer(settings, run_module.prepare(settings)[1])
    trainer.take_step(*next(trainer.batches()))
    assert trainer.state_dict()["step"] == 1
    with torch.no_grad():
        next(trainer.model.parameters())[0] = math.inf
    with pytest.raises(DivergenceError, match="a weight became infinite or NaN at step 1"):
        trainer.state_dict()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model": "rsenet-20"}, "unknown network 'rsenet-20'"),
        ({"model": "resnet-9"}, "depth"),
        ({"model": "densenet-75-12"}, "depth"),
        ({"train_size": 2000}, "train_size must be at most 1437"),
        ({"holdout": 5000}, "5000"),
        ({"batch_size": 1, "steps": 1}, "every training batch must hold at least 2 images"),
        ({"warmup_steps": 4, "steps": 13}, "warmup_steps must not exceed 3"),
        ({"padding": 8}, "padding must be smaller than the image"),
        ({"times": (0.5, 1.0)}, "times holds 2 freeze times, but the model was cut into 5 layers"),
        ({"warmup_steps": 4}, "warmup_steps must not exceed 3"),
        ({"device": "cuda:7"}, "device 'cuda:7' is not there"),
    ],
)
def test_what_does_not_fit_together_is_refused_before_anything_is_written(
    tmp_path, changes, message
):
    folder = RunFolder(tmp_path / "run")
    with pytest.raises(RunError) as caught:
        start(small(**changes), folder)
    assert message in str(caught.value)
    assert not folder.path.exists()


# -- variants ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "changes",
    [
        {"precision": "bf16"},
        {"optimizer": "adamw", "lr": 1e-3},
        {"channels_last": False},
        {"holdout": 100},
        {"model": "densenet-10-4"},
        {"model": "wrn-10-1"},
        {"model": "vgg11-4"},
        {"times": (0.3, 0.5, 0.7, 0.9, 1.0)},
        {"warmup_steps": 2, "scale_cap": 1.5, "anneal": "linear"},
        {"t0": 1.0},
    ],
    ids=str,
)
def test_every_variant_trains_and_resumes_to_the_same_bits(tmp_path, changes):
    one = train(tmp_path / "one", **changes)
    folder = RunFolder(tmp_path / "two")
    with pytest.raises(KilledError):
        start(small(**changes), folder, [KillAt(6)])
    resume(folder)
    assert_same_end(one, folder)
    first, last = (one.read_log()[i] for i in (0, -1))
    assert (first["event"], last["event"], last["finished"]) == ("start", "end", True)


def test_threads_and_kernels_are_put_back(tmp_path):
    before = torch.get_num_threads(), torch.backends.cudnn.deterministic
    seen = []

    class Watch(Observer):
        def progress(self, progress):
            seen.append((torch.get_num_threads(), torch.backends.cudnn.deterministic))

    train(tmp_path / "run", observers=(Watch(),), threads=2, epochs=1)
    assert set(seen) == {(2, True)}
    assert (torch.get_num_threads(), torch.backends.cudnn.deterministic) == before


@pytest.mark.gpu
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("model", ["resnet-8-8", "densenet-10-4", "wrn-10-1", "vgg11-4"])
def test_on_a_gpu_a_killed_run_resumes_to_the_same_bits(tmp_path, model, precision):
    # Loss and freezes are read after every window of 20 steps there.
    changes = {"device": "cuda", "model": model, "precision": precision, "epochs": 12}
    one = train(tmp_path / "one", **changes)
    folder = RunFolder(tmp_path / "two")
    with pytest.raises(KilledError):
        start(small(**changes), folder, [KillAt(20)])
    resume(folder)
    assert_same_end(one, folder)
    assert one.read_log()[0]["device"].startswith("cuda")


def test_bf16_runs_in_bf16(tmp_path):
    settings = small(precision="bf16", padding=1, flip=False)
    trainer = Trainer(settings, run_module.prepare(settings)[1])
    kinds = set()
    trainer.model.blocks[0].register_forward_hook(lambda m, a, out: kinds.add(out.dtype))
    trainer.take_step(*next(trainer.batches()))
    assert kinds == {torch.bfloat16}
    assert {p.dtype for p in trainer.model.parameters()} == {torch.float32}


def test_a_seed_decides_the_run(whole, tmp_path):
    again = train(tmp_path / "again")
    other = train(tmp_path / "other", seed=1)
    assert_same_end(whole, again)
    a, b = (load_checkpoint(f.checkpoint)["model"] for f in (whole, other))
    assert not torch.equal(a["stem.conv.weight"], b["stem.conv.weight"])


def test_a_run_learns(tmp_path):
    folder = train(tmp_path / "run", train_size=600, epochs=6, batch_size=32)
    errors = [r["test_error"] for r in folder.read_log() if r["event"] == "epoch"]
    assert errors[-1] < 25 < errors[0]


def test_testing_only_every_second_epoch_and_at_the_end(tmp_path):
    folder = train(tmp_path / "run", evaluate_every=2)
    errors = [r["test_error"] for r in folder.read_log() if r["event"] == "epoch"]
    assert [error is None for error in errors] == [True, False, False]


def test_tensorboard_events_are_written(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    from freezeout.training.tensorboard import TensorBoardObserver

    board = TensorBoardObserver(tmp_path / "events", every=4)
    folder = train(tmp_path / "run", observers=(board,))
    board.close()
    events = EventAccumulator(str(tmp_path / "events"))
    events.Reload()
    depth = [(e.step, e.value) for e in events.Scalars("freezeout/depth")]
    log = folder.read_log()
    assert depth == [(r["step"], r["index"] + 1) for r in log if r["event"] == "freeze"]
    errors = [e.value for e in events.Scalars("test/error")]
    assert errors == pytest.approx([r["test_error"] for r in log if r["event"] == "epoch"])
    assert [e.step for e in events.Scalars("train/running_loss")] == [4, 8, 12]


def test_tensorboard_hides_steps_that_are_done_again(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    from freezeout.training.tensorboard import TensorBoardObserver

    folder, events = RunFolder(tmp_path / "run"), tmp_path / "events"
    for stretch in ("killed", "resumed"):
        board = TensorBoardObserver(events, every=1)
        if stretch == "killed":
            with pytest.raises(KilledError):
                start(small(), folder, [board, KillAt(7)])
        else:
            resume(folder, observers=[board])
        board.close()
    told = EventAccumulator(str(events))
    told.Reload()
    assert [e.step for e in told.Scalars("train/running_loss")] == list(range(1, 13))


def test_trainer_wants_resolved_settings():
    with pytest.raises(ValueError, match="padding and flip must be resolved"):
        Trainer(Settings(device="cpu"), load("digits"))
