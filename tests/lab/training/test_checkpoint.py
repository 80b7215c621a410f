"""Checkpoint files: atomic to write, safe to read."""

import errno
import os
import pickle
import random

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
    with pytest.raises(CheckpointError, match=r"the checkpoint .* is damaged: it"):
        load_checkpoint(file)


def test_a_flipped_byte_in_a_tensor_is_noticed(tmp_path):
    file = tmp_path / "checkpoint.pt"
    x = torch.full((1000,), 3.0)
    save_checkpoint(file, {"x": x})
    content = bytearray(file.read_bytes())
    content[content.index(x[:8].numpy().tobytes()) + 5] ^= 0xFF
    file.write_bytes(content)
    with pytest.raises(CheckpointError, match="is damaged: its digest is another"):
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


def test_four_sentences_for_four_things(tmp_path):
    file = tmp_path / "checkpoint.pt"

    def said():
        with pytest.raises(CheckpointError) as caught:
            load_checkpoint(file)
        return str(caught.value).replace(str(file), "FILE")

    assert said() == ("there is no checkpoint FILE. Give the folder of a run that has saved one.")
    file.mkdir()
    assert said().startswith("cannot read the checkpoint FILE: Is a directory. That says nothing")
    file.rmdir()
    restore = "Restore it from a copy, or start the run again in an empty folder."
    for other in ({"weight": torch.zeros(1)}, [1, 2], {"format": "1"}):
        torch.save(other, file)
        assert said() == (
            f"the checkpoint FILE is damaged: it holds something else than a checkpoint. {restore}"
        )
    torch.save({"format": 2}, file)
    assert said() == (
        "the checkpoint FILE is of another version of freezeout: it has layout 2, this one reads "
        f"layout 1. Use the version that wrote it. {restore}"
    )


def test_one_of_before_there_were_digests_is_read(tmp_path):
    torch.save({"format": 1, "x": torch.ones(3)}, tmp_path / "old.pt")
    assert load_checkpoint(tmp_path / "old.pt")["x"].tolist() == [1, 1, 1]


def test_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "checkpoint.pt")
    with pytest.raises(CheckpointError, match=r"checkpoint\.pt is no checkpoint, but a pipe or a"):
        load_checkpoint(tmp_path / "checkpoint.pt")


def test_a_flipped_bit_anywhere_is_refused(tmp_path):
    file = tmp_path / "checkpoint.pt"
    save_checkpoint(file, {"x": torch.arange(50.0)})
    content, draw = file.read_bytes(), random.Random(0)
    for _ in range(300):
        damaged = bytearray(content)
        damaged[draw.randrange(len(content))] ^= 1 << draw.randrange(8)
        file.write_bytes(damaged)
        with pytest.raises(CheckpointError, match=r"^the checkpoint \S+ is damaged: it"):
            load_checkpoint(file)
    file.write_bytes(content)
    assert load_checkpoint(file)["x"].sum() == 1225
