"""Files appear whole or not at all, and only our own parts are removed."""

from __future__ import annotations

import io
import json

import pytest
import torch

from freezeout.errors import RunError
from freezeout.storage import (
    check_archive,
    json_line,
    remove_parts,
    write_archive,
    write_atomically,
    write_json,
    write_text,
)
from freezeout.storage.digests import line_sum


def test_an_archive_is_written_with_its_digest(tmp_path):
    file = tmp_path / "x.pt"
    write_archive(file, lambda stream: torch.save({"a": torch.ones(3)}, stream))
    content = bytearray(file.read_bytes())
    assert check_archive(io.BytesIO(content))
    assert torch.load(file, weights_only=True)["a"].tolist() == [1, 1, 1]
    content[40] ^= 1
    assert not check_archive(io.BytesIO(content))


def test_a_write_that_fails_leaves_the_old_file_and_no_part(tmp_path):
    file = tmp_path / "x.json"
    write_json(file, {"a": 1})
    before = file.read_bytes()

    def fails(stream):
        stream.write(b"half")
        raise OSError(28, "No space left on device")

    with pytest.raises(RunError, match="No space left on device"):
        write_atomically(file, fails)
    assert [path.name for path in tmp_path.iterdir()] == ["x.json"]
    assert file.read_bytes() == before


def test_parts_of_others_stay(tmp_path):
    mine = tmp_path / ".x.json.abc.freezeout-part"
    others = [tmp_path / ".x.json.abc.part", tmp_path / "x.freezeout-part", tmp_path / ".freezeout"]
    for path in (mine, *others):
        path.write_text("")
    remove_parts(tmp_path)
    assert {*tmp_path.iterdir()} == {*others}
    remove_parts(tmp_path / "not there")


def test_a_part_has_the_name_that_is_removed_and_one_that_the_system_takes(tmp_path, monkeypatch):
    names = []
    file = tmp_path / ("x" * 250)
    write_atomically(file, lambda stream: names.append(stream.name))
    (tmp_path / names[0]).write_text("")
    remove_parts(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [file.name]


def test_a_line_has_its_checksum(tmp_path):
    line = json_line({"step": 1, "loss": 0.5})
    assert line.endswith("}\n")
    values = json.loads(line)
    assert values.pop("sum") == line_sum(values)
    write_text(tmp_path / "x", "ä\n")
    assert (tmp_path / "x").read_bytes() == "ä\n".encode()
