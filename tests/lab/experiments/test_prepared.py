"""Data that are kept prepared, and what is wrong with a file of them."""

import io
import zipfile
from contextlib import suppress

import pytest
import torch

from freezeout.errors import RunError
from freezeout.lab.experiments.prepared import load_prepared, save_prepared
from freezeout.storage import write_archive
from tests.lab.runs import small

SETTINGS = small(shrink=2, holdout=100, threads=1)


def kept(folder):
    return save_prepared(SETTINGS, folder)


def values(path):
    return torch.load(path, weights_only=True)


def test_damage_at_any_place_is_seen_or_does_no_harm(tmp_path):
    path = kept(tmp_path)
    whole, data = path.read_bytes(), load_prepared(path)
    step = 67  # with 8 kinds of flips, some hundred places
    for number, place in enumerate(range(0, len(whole), step)):
        damaged = bytearray(whole)
        damaged[place] ^= 1 << (number % 8)
        path.write_bytes(damaged)
        if place < len(whole) - 50:
            with pytest.raises(RunError, match="is damaged"):
                load_prepared(path)
        else:  # the digest itself, or its mark
            with suppress(RunError):
                assert torch.equal(load_prepared(path).train_images, data.train_images)


def test_damaged_data_are_prepared_again_and_whole_ones_left(tmp_path):
    path = kept(tmp_path)
    whole = path.read_bytes()
    before = path.stat().st_mtime_ns
    assert kept(tmp_path) == path
    assert path.stat().st_mtime_ns == before
    for damaged in (b"", b"x", whole[:-1000], whole[:2000] + b"\x01" + whole[2001:]):
        path.write_bytes(damaged)
        with pytest.raises(RunError, match=r"is damaged: .*The data are prepared again"):
            load_prepared(path)
        assert kept(tmp_path) == path
        assert len(load_prepared(path).train_images) == 64


def test_a_file_without_digest_or_version_is_taken_if_its_checksums_hold(tmp_path):
    path = kept(tmp_path)
    older = {name: value for name, value in values(path).items() if name != "version"}
    torch.save(older, path)
    content = path.read_bytes()
    assert b"freezeout" not in content
    assert torch.equal(load_prepared(path).train_images, older["train_images"])
    assert kept(tmp_path).read_bytes() == content
    raw = older["train_images"].numpy().tobytes()
    place = content.index(raw)
    path.write_bytes(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])
    with pytest.raises(RunError, match=r"is damaged: .*data/0"):
        load_prepared(path)


def test_an_entry_that_says_that_it_is_a_folder_is_refused(tmp_path):
    path = kept(tmp_path)
    buffer = io.BytesIO()
    with zipfile.ZipFile(path) as whole, zipfile.ZipFile(buffer, "w") as other:
        for entry in whole.infolist():
            content = whole.read(entry)
            entry.external_attr = 0x10 if entry.filename.endswith("data/0") else 0
            other.writestr(entry, content)
    path.write_bytes(buffer.getvalue())
    with pytest.raises(RunError, match=r"is damaged: its entry '.*data/0' is marked as something"):
        load_prepared(path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"version": 9}, "is of another version of freezeout: it has layout 9, not 1"),
        ({"version": "x" * 999}, "is of another version"),
        ({"train_labels": torch.zeros(5, dtype=torch.int64)}, r"train_labels must have the shape"),
        ({"test_labels": torch.full((100,), 10)}, r"test_labels must lie in \[0, 9\]"),
        ({"classes": ("0", "1")}, r"must lie in \[0, 1\]"),
        ({"classes": tuple(range(10))}, "classes must be a non-empty tuple of names"),
        ({"classes": "0123456789"}, "classes must be a non-empty tuple of names"),
        ({"train_images": torch.zeros(64, 1, 4, 4)}, "must be a uint8 tensor"),
        ({"train_images": torch.zeros(64, 1, 2, 2, dtype=torch.uint8)}, "must have one shape"),
        ({"test_images": None}, "test_images must be a uint8 tensor"),
        ({"name": 5}, "name must be a non-empty string"),
        ({"more": 1}, "it holds other entries"),
    ],
)
def test_other_content_is_refused_and_prepared_again(tmp_path, changes, message):
    path = kept(tmp_path)
    content = {**values(path), **changes}
    write_archive(path, lambda file: torch.save(content, file))
    with pytest.raises(RunError, match=message):
        load_prepared(path)
    assert kept(tmp_path) == path
    assert len(load_prepared(path).train_images) == 64


def test_what_is_no_data_set_is_refused(tmp_path):
    path = kept(tmp_path)
    write_archive(path, lambda file: torch.save([1, 2], file))
    with pytest.raises(RunError, match="it holds no data set, but list"):
        load_prepared(path)
    path.unlink()
    with pytest.raises(RunError, match="there is no prepared data file"):
        load_prepared(path)


def test_one_that_cannot_be_read_is_not_taken_for_damaged_nor_replaced(tmp_path):
    path = kept(tmp_path)
    path.unlink()
    path.mkdir()
    for use in (lambda: load_prepared(path), lambda: kept(tmp_path)):
        with pytest.raises(RunError, match=r"cannot read the prepared data file .*nothing against"):
            use()


def test_a_folder_that_cannot_be_made_is_said(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(RunError, match="file"):
        kept(tmp_path / "file" / "data")
    assert (tmp_path / "file").read_text() == "x"
