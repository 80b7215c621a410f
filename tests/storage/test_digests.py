"""Digests: every changed bit shows, and what was written before there were any is read."""

from __future__ import annotations

import io
import json
import random
import zipfile

import pytest
import torch

from freezeout.storage import add_archive_digest, check_archive, with_digest
from freezeout.storage.digests import is_right, line_sum


def archive() -> bytes:
    file = io.BytesIO()
    torch.save({"weight": torch.arange(40.0), "step": 7}, file)
    add_archive_digest(file)
    return file.getvalue()


def loads(content: bytes) -> object:
    return torch.load(io.BytesIO(content), weights_only=True)


def test_an_archive_with_a_digest_is_read_as_any_other():
    content = archive()
    assert check_archive(io.BytesIO(content))
    found = loads(content)
    assert found["step"] == 7
    assert torch.equal(found["weight"], torch.arange(40.0))
    assert zipfile.ZipFile(io.BytesIO(content)).testzip() is None


def test_every_flipped_bit_is_seen():
    content = archive()
    draw = random.Random(0)
    places = [(i, 1 << bit) for i in range(len(content) - 80, len(content)) for bit in range(8)]
    places += [(draw.randrange(len(content)), 1 << draw.randrange(8)) for _ in range(1500)]
    for place, bit in places:
        damaged = bytearray(content)
        damaged[place] ^= bit
        assert not check_archive(io.BytesIO(damaged)), (place, bit)


@pytest.mark.parametrize("size", [0, 1, 21, 22, 71, 72, 500, -1, -49, -50])
def test_what_is_cut_off_is_seen(size):
    whole = archive()
    assert not check_archive(io.BytesIO(whole[:size]))
    assert not check_archive(io.BytesIO(whole + b"x"))


def test_an_archive_without_a_digest_is_taken_as_it_is():
    file = io.BytesIO()
    torch.save([1], file)
    assert check_archive(file)
    assert not check_archive(io.BytesIO(file.getvalue() + b"x"))
    assert not check_archive(io.BytesIO(b"no archive at all, but long enough to be one"))


@pytest.mark.parametrize(
    "content", [b"", b"no archive at all, but long enough to be one", archive()]
)
def test_only_an_archive_without_a_comment_gets_a_digest(content):
    file = io.BytesIO(content)
    with pytest.raises(ValueError, match="without a comment"):
        add_archive_digest(file)


def test_values_have_the_digest_of_their_content_not_of_their_form():
    values = {"b": [1, 2.5, None], "a": {"x": "é", 10: 1, 9: 2}}
    sealed = with_digest(values)
    assert list(sealed) == ["b", "a", "digest"]
    assert is_right(json.loads(json.dumps(sealed, indent=7)))
    assert is_right(json.loads(json.dumps(dict(reversed(sealed.items())))))
    assert with_digest(sealed) == sealed
    assert is_right({"b": 1})
    assert not is_right({**sealed, "b": [1, 2.5000000000000004, None]})
    assert not is_right({**sealed, "c": 0})
    assert not is_right({key: value for key, value in sealed.items() if key != "a"})
    assert not is_right({**sealed, "digest": 7})


def test_a_line_has_a_sum_of_its_content():
    assert line_sum({"a": 1, "b": 2}) == line_sum({"b": 2, "a": 1})
    assert line_sum({"a": 1}) != line_sum({"a": 2})
    assert len(line_sum({})) == 8
