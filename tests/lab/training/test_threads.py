"""The threads of a run: measured where nobody sets them, told, and kept with the run."""

from dataclasses import replace

import pytest
import torch

from freezeout import plan
from freezeout.lab.cli import main
from freezeout.lab.training import RunFolder, Trainer, prepare, resume, run_costs, start
from freezeout.lab.training.processes import Processes
from freezeout.lab.training.threads import chosen_threads, most_threads, pick_threads
from tests.lab.runs import (
    SMALL_ARGUMENTS,
    KillAt,
    KilledError,
    Listening,
    assert_same_end,
    small,
    train,
)


@pytest.fixture
def used(monkeypatch):
    """All numbers of threads that were set; none really is, as other things run beside tests."""
    numbers = [1]
    monkeypatch.setattr(torch, "set_num_threads", numbers.append)
    monkeypatch.setattr(torch, "get_num_threads", lambda: numbers[-1])
    return numbers


@pytest.fixture
def two_fastest(monkeypatch, used):
    """A machine with four cores on which a step is fastest with two threads."""
    times = {1: 0.020, 2: 0.010, 4: 0.5}
    asked = []

    def step_seconds(trainer, most):
        asked.append(most)
        return {count: times[count] for count in times if count <= most}

    monkeypatch.setattr("freezeout.lab.training.threads.step_seconds", step_seconds)
    monkeypatch.setattr("freezeout.lab.training.threads.most_threads", lambda processes=1: 4)
    return asked


def test_the_fastest_number_is_taken_told_and_kept(tmp_path, two_fastest, used):
    listening, folder = Listening(), RunFolder(tmp_path / "run")
    start(small(), folder, [listening])
    assert two_fastest == [4]
    assert folder.settings().threads == 2
    text = (
        "2 threads: a training step takes 20.00 ms with 1, 10.00 ms with 2, 500.00 ms with 4 "
        "(--threads sets it)"
    )
    assert listening.messages.count(text) == 1
    assert used == [1, 2, 1]  # within the run alone


def test_a_number_that_was_set_is_kept_and_nothing_is_measured(tmp_path, two_fastest):
    assert train(tmp_path / "run", threads=3).settings().threads == 3
    assert two_fastest == []


def test_a_resumed_run_takes_the_same_number_and_does_not_measure(tmp_path, two_fastest, used):
    folder = RunFolder(tmp_path / "run")
    with pytest.raises(KilledError):
        start(small(), folder, [KillAt(7)])
    assert two_fastest == [4]
    result = resume(folder)
    assert result.trainer.finished
    assert result.trainer.settings.threads == 2
    assert two_fastest == [4]
    assert used == [1, 2, 1, 2, 1]
    assert_same_end(folder, train(tmp_path / "whole", threads=2))


def test_a_plan_brings_the_threads_that_it_was_measured_with(tmp_path, two_fastest):
    trainer = Trainer(*prepare(small(threads=1)))
    costs = replace(run_costs(trainer, rounds=1), threads=3, device="CPU, 3 threads")
    made = plan(costs, 12, t0=0.6)
    result = start(small(), RunFolder(tmp_path / "run"), plan=made)
    assert result.trainer.settings.threads == 3
    assert result.plan is not None  # it holds
    result = start(small(threads=1), RunFolder(tmp_path / "other"), plan=made)
    assert result.trainer.settings.threads == 1
    assert result.plan is None
    assert two_fastest == []


def test_several_processes_share_out_the_cores(monkeypatch):
    trainer = Trainer(*prepare(small()))
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(8)), raising=False)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 8)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")  # of four processes on two machines
    chosen = pick_threads(trainer, Processes(1, 4, 1))
    assert (chosen.count, chosen.text) == (4, "")
    monkeypatch.delenv("LOCAL_WORLD_SIZE")
    assert pick_threads(trainer, Processes(1, 4, 1)).count == 2
    assert most_threads(3) == 2
    assert most_threads(100) == 1
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)  # as torchrun sets it
    assert pick_threads(trainer, Processes(1, 4, 1)).count == 1


def test_one_core_leaves_no_choice_and_nothing_to_say():
    chosen = pick_threads(Trainer(*prepare(small())))
    assert (chosen.count, chosen.text) == (1, "")


def test_one_thread_is_one_thread():
    assert chosen_threads({1: 0.010, 2: 0.009}).text.startswith("1 thread: ")


@pytest.mark.filterwarnings("ignore:a training step takes")  # with half of them: noise
def test_the_program_says_it_once_and_plan_does_too(tmp_path, two_fastest, capsys):
    words = [*SMALL_ARGUMENTS, "--out", str(tmp_path / "run"), "--display", "lines"]
    assert main(["train", *words]) == 0
    assert capsys.readouterr().out.count("2 threads: a training step takes") == 1
    words = [
        "plan",
        "--model",
        "resnet-8-8",
        "--batch-size",
        "16",
        "--device",
        "cpu",
        "--rounds",
        "1",
        "--t0",
        "0.6",
        "--out",
    ]
    assert main([*words, str(tmp_path / "plan")]) == 0
    out = capsys.readouterr().out
    assert out.count("note: 2 threads: a training step takes") == 1
    assert "(CPU, 2 threads, torch" in out
    # Costs bring their threads along; those of other threads are refused.
    costs = str(tmp_path / "plan" / "costs.json")
    words = [w for w in words if w not in ("--rounds", "1")]
    assert main([*words, str(tmp_path / "again"), "--costs", costs]) == 0
    assert main([*words, str(tmp_path / "no"), "--costs", costs, "--threads", "1"]) == 2
    assert "CPU, 2 threads in place of CPU, 1 thread" in capsys.readouterr().err
