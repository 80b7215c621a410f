"""Checkpoint files: atomic to write, safe to read."""

import errno
import os
import pickle

import pytest
import torch

from freezeout.errors import CheckpointError, RunError
from freezeout.lab.training.checkpoint import load_checkpoint, save_checkpoint
from freezeout.storage import write_atomically


def test_round_trip(tmp_path):
    file = tmp_path / "checkpoint.pt"
    save_checkpoint(file, {"step": 3, "x": torch.arange(4.0)})
    state = load_checkpoint(file)
    assert state["step"] == 3
    assert torch.equal(state["x"], torch.arange(4.0))


def test_a_write_that_fails_leaves_the_old_file_and_no_other(tmp_path):
    file = tmp_path / "checkpoint.pt"
    save_checkpoint(file, {"step": 1})

    def fails(out):
        out.write(b"half of it")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with pytest.raises(RunError, match=r"No space left on device. What was saved before is unt"):
        write_atomically(file, fails)
    assert load_checkpoint(file)["step"] == 1
    assert [p.name for p in tmp_path.iterdir()] == ["checkpoint.pt"]


def test_an_interrupted_write_leaves_the_old_file_and_no_other(tmp_path):
    file = tmp_path / "checkpoint.pt"
    save_checkpoint(file, {"step": 1})

    def interrupted(out):
        out.write(b"half of it")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_atomically(file, interrupted)
    assert load_checkpoint(file)["step"] == 1
    assert [p.name for p in tmp_path.iterdir()] == ["checkpoint.pt"]


def test_a_folder_that_is_not_there_is_reported(tmp_path):
    with pytest.raises(RunError, match=r"cannot write .*absent.*: No such file or directory"):
        save_checkpoint(tmp_path / "absent" / "checkpoint.pt", {})


@pytest.mark.parametrize("keep", [0, 1, 10, 100, 0.5, 0.9, -1])
def test_a_truncated_file_is_refused(tmp_path, keep):
    file = tmp_path / "checkpoint.pt"
    save_checkpoint(file, {"x": torch.randn(1000)})
    content = file.read_bytes()
    file.write_bytes(content[: int(len(content) * keep) if isinstance(keep, float) else keep])
    with pytest.raises(CheckpointError, match="is damaged or not a checkpoint"):
        load_checkpoint(file)


def test_a_flipped_byte_in_a_tensor_is_noticed(tmp_path):
    file = tmp_path / "checkpoint.pt"
    x = torch.full((1000,), 3.0)
    save_checkpoint(file, {"x": x})
    content = bytearray(file.read_bytes())
    content[content.index(x[:8].numpy().tobytes()) + 5] ^= 0xFF
    file.write_bytes(content)
    with pytest.raises(CheckpointError, match="is damaged"):
        load_checkpoint(file)


class Evil:
    def __reduce__(self):
        return os.system, ("echo must not run > ran",)


def test_a_file_cannot_run_code(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save({"format": 1, "x": Evil()}, "a.pt")
    (tmp_path / "b.pt").write_bytes(pickle.dumps({"format": 1, "x": Evil()}, protocol=2))
    for name in ("a.pt", "b.pt"):
        with pytest.raises(CheckpointError):
            load_checkpoint(tmp_path / name)
    assert not (tmp_path / "ran").exists()


def test_other_files_are_refused(tmp_path):
    torch.save({"weight": torch.zeros(1)}, tmp_path / "weights.pt")
    with pytest.raises(CheckpointError, match="not a checkpoint of this version"):
        load_checkpoint(tmp_path / "weights.pt")
    torch.save([1, 2], tmp_path / "list.pt")
    with pytest.raises(CheckpointError, match="not a checkpoint of this version"):
        load_checkpoint(tmp_path / "list.pt")
    with pytest.raises(CheckpointError, match="there is no checkpoint"):
        load_checkpoint(tmp_path / "absent.pt")
