"""Files and folders of data that cannot be read, or that would take all memory."""

import bz2
import gzip
import hashlib
import lzma
import os
import struct
import tracemalloc

import pytest

from freezeout.errors import DataError
from freezeout.lab.data import files, load, official
from freezeout.lab.data.compact import decode_batch
from freezeout.lab.data.idx import read_idx
from tests.lab.other_user import folder_of_another_user

NAMES = ("fashion-mnist", "cifar10", "cifar100")
LITTLE = 8 << 20  # bytes


def packed(content):
    return gzip.compress(content, mtime=0)


def header(*shape):
    return bytes([0, 0, 8, len(shape)]) + struct.pack(f">{len(shape)}I", *shape)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (packed(header(2**32 - 1, 2**32 - 1, 2**32 - 1)), r"it states the shape \(4294967295, "),
        (packed(header(*[2] * 255)), "it states the shape of 255 dimensions"),
        (packed(header(60_000, 100, 100) + bytes(9)), "and holds 9 values"),
        (packed(header(3) + bytes(50 << 20)), "and holds at least 4 values"),
        (packed(header(2**32 - 1)[:6]), "inside its header"),
    ],
)
def test_what_a_header_states_takes_no_memory(content, words):
    tracemalloc.start()
    try:
        with pytest.raises(DataError, match=words):
            read_idx(content, "file.gz")
        assert tracemalloc.get_traced_memory()[1] < LITTLE
    finally:
        tracemalloc.stop()


def test_an_unpacker_that_asks_for_much_memory_gets_none():
    filters = [{"id": lzma.FILTER_LZMA2, "preset": 0, "dict_size": 1 << 28}]
    content = lzma.compress(bytes(3072), filters=filters)
    with pytest.raises(DataError, match=r"batch is damaged: it does not unpack \(Memory"):
        decode_batch(content, 1, "batch")


@pytest.mark.parametrize("name", NAMES)
def test_folders_that_may_not_be_searched_are_named(name):
    load("digits")  # as this user, what is needed is imported
    with folder_of_another_user() as folder:
        (folder / "data").mkdir(mode=0)
        with pytest.raises(DataError, match=r"(cannot read|must name a folder).*Permission denied"):
            load(name, data_dir=folder / "data")
        with pytest.raises(DataError, match=r"(cannot read|must name a folder).*Permission denied"):
            load(name, data_dir=folder / "data" / "below")


@pytest.mark.parametrize("mode", [0o000, 0o111])
def test_files_that_may_not_be_read_are_named(tiny_fashion, mode):
    name = "train-images-idx3-ubyte.gz"
    with folder_of_another_user() as folder:
        for each, content in tiny_fashion.items():
            (folder / each).write_bytes(content)
        (folder / name).chmod(mode)
        with pytest.raises(DataError, match=rf"cannot read .*{name}: Permission denied"):
            load("fashion-mnist", data_dir=folder)


def test_links_that_lead_to_themselves_are_named(tmp_path):
    (tmp_path / "cifar10").symlink_to("cifar10")
    with pytest.raises(DataError, match=r"cannot read .*cifar10.*: Too many levels"):
        load("cifar10", data_dir=tmp_path, download=False)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no pipes with a name")
@pytest.mark.parametrize("name", ["fashion-mnist", "cifar10"])
def test_a_pipe_in_place_of_a_file_is_not_waited_for(tmp_path, name):
    for each in ("train-images-idx3-ubyte.gz", official.CIFAR10.archive):
        os.mkfifo(tmp_path / each)
    with pytest.raises(DataError, match="not a regular file"):
        load(name, data_dir=tmp_path)


def test_files_far_too_large_are_no_data(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "MOST_BYTES", 10)
    path = tmp_path / "file"
    path.write_bytes(bytes(10))
    assert files.read_bytes(path) == bytes(10)
    path.write_bytes(bytes(11))
    with pytest.raises(DataError, match="it has more than 10 bytes"):
        files.read_bytes(path)


def test_a_folder_in_place_of_the_archive_and_a_file_in_place_of_the_folder(tmp_path):
    (tmp_path / "one" / official.CIFAR10.archive).mkdir(parents=True)
    with pytest.raises(DataError, match=r"cannot read .*: Is a directory"):
        load("cifar10", data_dir=tmp_path / "one")
    (tmp_path / "two").mkdir()
    (tmp_path / "two" / official.CIFAR10.folder).write_bytes(b"x")
    with pytest.raises(DataError, match="is incomplete: it lacks data_batch_1"):
        load("cifar10", data_dir=tmp_path / "two")


def test_a_file_that_vanishes_while_it_is_looked_for_is_named(tiny_fashion, tmp_path, monkeypatch):
    for each, content in tiny_fashion.items():
        (tmp_path / each).write_bytes(content)
    find = files.find

    def find_and_lose(*given):
        path = find(*given)
        path.unlink()
        return path

    monkeypatch.setattr("freezeout.lab.data.fashion_mnist.find", find_and_lose)
    with pytest.raises(DataError, match=r"cannot read .*: No such file or directory"):
        load("fashion-mnist", data_dir=tmp_path)


def test_an_archive_packed_in_another_way_is_named(tiny_cifar, tmp_path, monkeypatch):
    facts = official.CIFAR10
    content = bz2.compress(tiny_cifar[facts.archive])
    (tmp_path / facts.archive).write_bytes(content)
    monkeypatch.setitem(official.MD5, facts.archive, hashlib.md5(content).hexdigest())
    with pytest.raises(DataError, match="does not unpack"):
        load("cifar10", data_dir=tmp_path)
