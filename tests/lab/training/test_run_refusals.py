"""What a run refuses, and that nothing saved is lost."""

import math
import shutil

import pytest
import torch

from freezeout.errors import CheckpointError, DivergenceError, RunError
from freezeout.lab.locks import is_lock
from freezeout.lab.training import Observer, RunFolder, Trainer, prepare, resume, start
from freezeout.lab.training.checkpoint import load_checkpoint
from tests.lab.runs import small, train


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
    trainer = Trainer(settings, prepare(settings)[1])
    with pytest.raises(CheckpointError, match="belongs to another network"):
        trainer.load_state_dict(state)


def test_a_truncated_checkpoint_is_refused(whole, tmp_path):
    folder = RunFolder(tmp_path / "run")
    shutil.copytree(whole.path, folder.path)
    content = folder.checkpoint.read_bytes()
    folder.checkpoint.write_bytes(content[: len(content) // 2])
    before = unchanged(folder)
    with pytest.raises(CheckpointError, match="is damaged: it does not end as"):
        resume(folder)
    assert unchanged(folder) == before


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"device": "wrn-0-0"}, "device must be auto, cpu, cuda or cuda:N, got 'wrn-0-0'"),
        ({"data_dir": ""}, "data_dir must name a folder, got ''"),
        ({"checkpoint_minutes": -1.0}, "checkpoint_minutes must be above 0"),
        ({"checkpoint_minutes": "often"}, "checkpoint_minutes must be a number"),
    ],
    ids=str,
)
def test_what_no_setting_can_be_is_refused_on_resume_too(whole, changes, message):
    before = unchanged(whole)
    with pytest.raises(RunError) as caught:
        resume(whole, changes)
    assert message in str(caught.value)
    assert unchanged(whole) == before


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
    assert not [path for path in folder.path.glob(".*") if not is_lock(path)]


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
    trainer = Trainer(settings, prepare(settings)[1])
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
