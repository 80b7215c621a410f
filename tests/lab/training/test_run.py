"""Whole runs: what they compute, what they leave on disk, going on after any interruption."""

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

from freezeout import reference
from freezeout.errors import CheckpointError
from freezeout.lab import models
from freezeout.lab.data import Augmentation, TensorLoader, channel_statistics, load
from freezeout.lab.training import Observer, RunFolder, Trainer, resume, start
from freezeout.lab.training.checkpoint import load_checkpoint
from freezeout.layers import split_layers
from tests.lab.runs import (
    SHORT,
    SMALL_ARGUMENTS,
    KillAt,
    KilledError,
    assert_same_end,
    small,
    train,
)


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
    deadline = time.monotonic() + 600
    while not folder.checkpoint.exists():
        assert process.poll() is None or folder.checkpoint.exists(), process.stderr.read()
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
    folder.rewind_log(8, 2)
    assert [json.loads(line)["step"] for line in folder.log_file.read_text().splitlines()] == [
        r["step"] for r in whole.read_log() if r["step"] <= 8
    ]


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
        def start(self, run):
            told.append((run.total_steps, run.epochs))

    folder = train(tmp_path / "run", observers=(Watch(),), steps=steps)
    epochs = [r for r in folder.read_log() if r["event"] == "epoch"]
    assert [(r["epoch"], r["step"]) for r in epochs] == [(1, steps)]
    assert 0 <= epochs[0]["test_error"] <= 100
    assert load_checkpoint(folder.checkpoint)["step"] == steps
    assert told == [(steps, 1)]
