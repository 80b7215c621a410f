import gzip
import hashlib
import importlib.util
import io
import struct
import sys
import tarfile
from pathlib import Path

import pytest
import torch

from freezeout.lab.data import load, official

SHARED = Path(__file__).resolve().parents[3] / "../shared/data"


@pytest.fixture(scope="session")
def shared_data():
    if not SHARED.is_dir():
        pytest.skip("the folder shared/data with the real data sets is not beside the checkout")
    return SHARED


@pytest.fixture(scope="session")
def reference_loader(shared_data):
    """The loader that came with the shared data: an oracle for ours."""
    script = shared_data / "load_data.py"
    if not script.is_file():
        pytest.skip("shared/data has no load_data.py")
    spec = importlib.util.spec_from_file_location("shared_load_data", script)
    module = importlib.util.module_from_spec(spec)
    before, sys.dont_write_bytecode = sys.dont_write_bytecode, True
    try:
        spec.loader.exec_module(module)
    finally:
        sys.dont_write_bytecode = before
    return module


@pytest.fixture(scope="session")
def cifar10(shared_data):
    return load("cifar10", data_dir=shared_data, download=False)


@pytest.fixture(scope="session")
def fashion_mnist(shared_data):
    return load("fashion-mnist", data_dir=shared_data, download=False)


def python2_text(text):
    return b"U" + bytes([len(text)]) + text


def python2_batch(images, labels, key=b"labels", dtype=b"u1", fortran=b"\x89", shape=None):
    """A CIFAR file as Python 2 pickles it: protocol 2, byte strings, an old-style NumPy array."""
    raw = images.contiguous().numpy().tobytes()
    rows, values = shape or (len(images), images[0].numel())
    array = (
        b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R"
        b"(K\x01M" + rows.to_bytes(2, "little") + b"M" + values.to_bytes(2, "little") + b"\x86"
        b"cnumpy\ndtype\n" + python2_text(dtype) + b"K\x00K\x01\x87R"
        b"(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
        + fortran
        + b"T"
        + len(raw).to_bytes(4, "little")
        + raw
        + b"tb"
    )
    numbers = b"".join(b"K" + bytes([int(label)]) for label in labels)
    return (
        b"\x80\x02}q\x01("
        + python2_text(key)
        + b"](" + numbers + b"e"
        + python2_text(b"data")
        + array
        + b"u."
    )  # fmt: skip


@pytest.fixture(scope="session")
def make_batch():
    return python2_batch


def idx(values, shape, type_code=8):
    header = bytes([0, 0, type_code, len(shape)]) + struct.pack(f">{len(shape)}I", *shape)
    return gzip.compress(header + bytes(values), mtime=0)


def md5(content):
    return hashlib.md5(content).hexdigest()


@pytest.fixture
def tiny_fashion(monkeypatch):
    """Four tiny files in the place of the official ones: name -> content."""
    files = {
        "train-images-idx3-ubyte.gz": idx(range(18), (3, 2, 3)),
        "train-labels-idx1-ubyte.gz": idx([9, 0, 4], (3,)),
        "t10k-images-idx3-ubyte.gz": idx(range(100, 112), (2, 2, 3)),
        "t10k-labels-idx1-ubyte.gz": idx([1, 2], (2,)),
    }
    for name, content in files.items():
        monkeypatch.setitem(official.MD5, name, md5(content))
    return files


def tar_of(files):
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return packed.getvalue()


@pytest.fixture
def tiny_cifar(monkeypatch):
    """Tiny CIFAR-10 and CIFAR-100 files in the place of the official ones: path -> content."""
    generator = torch.Generator().manual_seed(5)
    files = {}
    for facts in (official.CIFAR10, official.CIFAR100):
        for number, name in enumerate((*facts.train_files, facts.test_file)):
            images = torch.randint(256, (2, 3, 32, 32), generator=generator).to(torch.uint8)
            labels = torch.tensor([number, 9])
            files[f"{facts.folder}/{name}"] = python2_batch(
                images, labels, key=facts.label_key.encode()
            )
    for facts in (official.CIFAR10, official.CIFAR100):
        files[facts.archive] = tar_of({k: v for k, v in files.items() if facts.folder in k})
    for path, content in files.items():
        monkeypatch.setitem(official.MD5, path, md5(content))
    return files


@pytest.fixture(scope="session")
def make_tar():
    return tar_of
