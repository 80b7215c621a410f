"""FreezeOut in a loop with Accelerate: how far it counts, resumed, in two processes."""

import json
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F

from benchmarks.stacks import callbacks
from freezeout import CheckpointError, FreezeOut

pytest.importorskip("accelerate")

from accelerate.state import AcceleratorState, GradientState

from tests.integrations.stacks.accelerate_run import SETTINGS, Run
from tests.integrations.stacks.pages import load_example, run_page
from tests.integrations.stacks.processes import check_weights, launch

FROZEN = [0] * 15 + [1] * 8 + [2] * 8 + [3] * 9
"""Frozen layers after each of forty updates, whatever the number of processes."""


@pytest.fixture(autouse=True)
def _fresh_state():
    """Accelerate keeps its state in singletons."""
    yield
    AcceleratorState._reset_state(True)
    GradientState._reset_state()


def weights(run):
    return run.accelerator.unwrap_model(run.model).state_dict()


def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[k], other[k]) for k in one)


@pytest.mark.parametrize("processes", [1, 2, 7])
def test_progress_follows_updates_however_often_the_scheduler_is_stepped(processes, monkeypatch):
    # Accelerate steps it once per process, and by its own count only until total_steps
    state = SimpleNamespace(num_processes=processes)
    monkeypatch.setattr("accelerate.scheduler.AcceleratorState", lambda: state)
    run = Run()
    run.epochs(5)
    assert run.history == [(frozen, n / 40) for n, frozen in enumerate(FROZEN, 1)]
    assert run.scheduler.get_last_lr() == [0.0] * 4


def test_accumulation_clipping_and_mixed_precision_count_updates():
    run = Run(accumulation=2, mixed_precision="bf16")
    run.epochs(10)
    assert run.history == [(frozen, n / 40) for n, frozen in enumerate(FROZEN, 1)]
    frozen = [p for p in run.model.parameters() if not p.requires_grad]
    assert len(frozen) == 6
    assert not any(p in run.optimizer.optimizer.state for p in frozen)


def test_steps_that_a_gradient_scaler_skips_are_not_counted():
    run = Run(scaler=torch.amp.GradScaler("cpu"))
    overflows = {0, 1, 20}
    run.model[-1].weight.register_hook(
        lambda grad: grad * torch.inf if len(run.history) in overflows else grad
    )
    run.epochs(5)
    done = [sum(step not in overflows for step in range(n)) for n in range(1, 41)]
    assert run.history == [([0, *FROZEN][n], n / 40) for n in done]
    assert run.history[-1] == (3, 37 / 40)


def test_loop_trains_as_one_by_hand_does():
    run, twin = Run(), Run()
    run.epochs(5)
    model, optimizer = twin.accelerator.unwrap_model(twin.model), twin.optimizer.optimizer
    by_hand = FreezeOut(optimizer, model, 40, **SETTINGS)
    for _ in range(5):
        for x, y in twin.loader:
            F.cross_entropy(model(x), y).backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            by_hand.step()
            optimizer.zero_grad()
    assert same(weights(run), model.state_dict())


def test_prepared_objects_can_be_driven():
    run = Run()
    scheduler = FreezeOut(run.optimizer, run.model, 40, **SETTINGS)
    assert scheduler.optimizer is run.optimizer.optimizer
    run.freeze_out = scheduler
    run.scheduler = run.accelerator.prepare(scheduler)
    run.epochs(5)
    assert [frozen for frozen, _ in run.history] == FROZEN


def test_resumed_run_ends_as_the_uninterrupted_one(tmp_path):
    whole = Run()
    whole.epochs(3)  # 24 of 40 steps: two layers are frozen
    whole.accelerator.save_state(tmp_path)
    whole.epochs(2)

    resumed = Run()
    resumed.accelerator.load_state(tmp_path)
    assert (resumed.freeze_out.frozen, resumed.freeze_out.progress) == (2, 0.6)
    assert len(resumed.optimizer.optimizer.state) == 4
    resumed.epochs(2)
    assert resumed.history == whole.history[24:]
    assert same(weights(resumed), weights(whole))
    ours, theirs = (run.optimizer.state_dict() for run in (resumed, whole))
    assert ours["param_groups"] == theirs["param_groups"]
    assert ours["state"].keys() == theirs["state"].keys()
    assert len(ours["state"]) == 2  # weight and bias of the last layer

    other = Run(total_steps=50)
    with pytest.raises(CheckpointError, match="total_steps=40 there but total_steps=50 here"):
        other.accelerator.load_state(tmp_path)


def test_the_page_runs():
    run_page("accelerate")


def test_the_example_learns_and_freezes(capsys):
    accuracy, frozen = load_example("accelerate_digits").main(epochs=2)
    assert frozen == 5
    assert accuracy > 60
    assert capsys.readouterr().out.count(" froze\n") == 5


@pytest.mark.parametrize(
    "trainers",
    [
        ["accelerate"],
        pytest.param(["lightning", "transformers", "accelerate"], marks=pytest.mark.slow),
    ],
    ids=len,
)
def test_the_benchmark_of_callbacks_takes_turns_step_by_step(trainers, tmp_path):
    for trainer in trainers:
        pytest.importorskip(trainer)
    out = tmp_path / "found.json"
    arguments = ["--quick", "--repeats", "2", "--out", str(out), "--trainers", *trainers]
    assert callbacks.main(arguments) == 1  # two rounds decide nothing
    found = json.loads(out.read_text())
    assert [trainer["trainer"] for trainer in found["trainers"]] == trainers
    for trainer in found["trainers"]:
        assert trainer["rounds"] == 2
        assert trainer["verdict"] == "undecided"
        assert min(trainer["median"], *trainer["seconds"].values()) > 0
    assert found["hardware"]["threads"] == 1
    assert found["settings"]["model"] == "resnet-8-4"


@pytest.mark.multiprocess
def test_two_processes_exchange_less_and_train_and_resume_as_one(tmp_path):
    first, second = launch("accelerate_run", tmp_path)
    assert first == second
    assert first["history"] == [[frozen, n / 40] for n, frozen in enumerate(FROZEN, 1)]
    assert first["exchanged"] == [722] * 16 + [578] * 8 + [306] * 8 + [34] * 8
    assert first["resumed"] == first["exchanged"][24:]
    run = Run()
    run.epochs(5)
    check_weights(tmp_path, weights(run), atol=1e-4)
