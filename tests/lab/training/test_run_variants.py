"""Every variant of a run, precision, threads, TensorBoard."""

import pytest
import torch

from freezeout.lab.data import load
from freezeout.lab.training import Observer, RunFolder, Settings, Trainer, prepare, resume, start
from freezeout.lab.training.checkpoint import load_checkpoint
from tests.lab.runs import KillAt, KilledError, assert_same_end, small, train


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
        {"max_freezes": 1},
        {"max_freezes": 2, "freeze": False},
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
    trainer = Trainer(settings, prepare(settings)[1])
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

    from freezeout.lab.training import TensorBoardObserver

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

    from freezeout.lab.training import TensorBoardObserver

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
