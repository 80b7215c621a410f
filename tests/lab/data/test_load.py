"""Loading by name: every official form, the compact copy, and every way in which files can fail."""

import gzip
import hashlib
import lzma
import re
import shutil
import struct
import sys
from dataclasses import replace

import pytest
import torch

from freezeout.errors import DataError
from freezeout.lab.data import compact, load, official, registry
from freezeout.lab.data.cifar import read_cifar_file
from freezeout.lab.data.compact import decode_batch
from freezeout.lab.data.idx import read_idx
from freezeout.lab.data.plain_pickle import read_plain_pickle


def md5(content):
    return hashlib.md5(content).hexdigest()


def same_data(left, right):
    for split in ("train_images", "train_labels", "test_images", "test_labels"):
        assert torch.equal(getattr(left, split), getattr(right, split)), split


class TestDigits:
    def test_need_no_file_and_keep_their_split(self, tmp_path):
        dataset = load("digits", data_dir=tmp_path / "nowhere", download=False)
        assert dataset.train_images.shape == (1437, 1, 8, 8)
        assert dataset.test_images.shape == (360, 1, 8, 8)
        assert dataset.classes == tuple("0123456789")
        assert not (tmp_path / "nowhere").exists()

    def test_are_those_of_scikit_learn_scaled_to_bytes(self):
        from sklearn.datasets import load_digits

        bunch, dataset = load_digits(), load("digits")
        images = torch.cat([dataset.train_images, dataset.test_images])
        labels = torch.cat([dataset.train_labels, dataset.test_labels])
        assert labels.tolist() == bunch.target.tolist()
        for value in range(17):
            scaled = images[:, 0][torch.as_tensor(bunch.images) == value].unique().tolist()
            assert scaled == [round(value * 255 / 16)]

    def test_have_every_class_in_both_splits(self):
        dataset = load("digits")
        assert torch.bincount(dataset.train_labels).min() > 130
        assert torch.bincount(dataset.test_labels).min() > 30

    def test_say_what_to_install(self, monkeypatch):
        monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
        with pytest.raises(DataError, match=r"pip install 'freezeout\[lab\]'"):
            load("digits")


class TestArguments:
    def test_unknown_name(self):
        with pytest.raises(ValueError, match=r"must be one of digits, .*, got 'imagenet'"):
            load("imagenet")

    def test_data_dir_of_another_type(self):
        with pytest.raises(TypeError, match="data_dir must be a path or None, got 3"):
            load("cifar10", data_dir=3)

    def test_data_dir_that_is_a_file(self, tmp_path):
        (tmp_path / "file").touch()
        with pytest.raises(DataError, match=r"is a file, and --data-dir .* must be a folder"):
            load("cifar10", data_dir=tmp_path / "file")

    def test_home_is_expanded(self, tmp_path, monkeypatch):
        monkeypatch.setenv("HOME", str(tmp_path))
        with pytest.raises(DataError) as caught:
            load("cifar10", data_dir="~/data", download=False)
        assert str(caught.value).startswith(
            "cifar-10-batches-py or cifar-10-python.tar.gz was not found under "
            f"{tmp_path / 'data'}, and downloading is switched off."
        )

    @pytest.mark.parametrize("data_dir", ["a\0b", "x" * 5000, "~nobody-of-this-name/data"])
    @pytest.mark.parametrize("download", [False, True])
    def test_data_dir_that_no_system_takes(self, data_dir, download):
        with pytest.raises(DataError, match=r"--data-dir \(data_dir=\) must name a folder, got '"):
            load("cifar10", data_dir=data_dir, download=download)

    @pytest.mark.parametrize("name", ["cifar10", "cifar100", "fashion-mnist"])
    def test_nothing_there_and_no_download(self, name, tmp_path):
        root = tmp_path / "absent"
        with pytest.raises(DataError, match="downloading is switched off") as caught:
            load(name, data_dir=root, download=False)
        message = str(caught.value)
        assert str(root) in message
        assert "--data-dir" in message
        assert "or download http" in message
        assert len(message) < 330 + len(str(root))
        assert "\n" not in message
        assert not root.exists()


def packed(content):
    return gzip.compress(content, mtime=0)  # the time of day would make each worker's tests differ


def idx(values, shape, type_code=8):
    header = bytes([0, 0, type_code, len(shape)]) + struct.pack(f">{len(shape)}I", *shape)
    return packed(header + bytes(values))


class TestIdx:
    def test_is_read_in_c_order(self):
        tensor = read_idx(idx(range(24), (2, 3, 4)), "x")
        assert torch.equal(tensor, torch.arange(24, dtype=torch.uint8).view(2, 3, 4))

    @pytest.mark.parametrize(
        ("content", "words"),
        [
            (idx(range(24), (2, 3, 4))[:-9], "it does not unpack"),
            (idx(range(24), (2, 3, 4))[:20], "it does not unpack"),
            (b"not gzip", "it does not unpack"),
            (packed(b""), "it begins with nothing"),
            (packed(b"\x01\x00\x08\x01"), "it begins with 01000801"),
            (idx(range(4), (1,), 0x0D), "its values are of type 0x0d"),
            (packed(b"\x00\x00\x08\x03\x00\x00"), "ends after 6 bytes, inside its header"),
            (idx(range(23), (2, 3, 4)), r"states the shape \(2, 3, 4\) and holds 23 values"),
            (
                idx(range(25), (2, 3, 4)),
                r"shape \(2, 3, 4\) and holds at least 25 values",
            ),
            (idx([], (0, 4)), r"states the shape \(0, 4\)"),
            (idx([7], ()), r"states the shape \(\)"),
        ],
    )
    def test_damage_is_reported(self, content, words):
        with pytest.raises(DataError, match=words) as caught:
            read_idx(content, "file.gz")
        assert "file.gz is not an intact IDX file" in str(caught.value)


def write(folder, files):
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


class TestFashionMnist:
    @pytest.mark.parametrize("folder", ["", "fashion_mnist", "fashion-mnist", "FashionMNIST/raw"])
    def test_is_found_where_people_keep_it(self, tiny_fashion, tmp_path, folder):
        write(tmp_path / folder, tiny_fashion)
        dataset = load("fashion_mnist", data_dir=str(tmp_path), download=False)
        assert dataset.train_images.flatten().tolist() == list(range(18))
        assert dataset.train_labels.tolist() == [9, 0, 4]
        assert dataset.test_images.shape == (2, 1, 2, 3)
        assert dataset.classes[9] == "Ankle boot"

    def test_damage_is_named_and_not_fetched_over(self, tiny_fashion, tmp_path, monkeypatch):
        monkeypatch.setattr("freezeout.lab.data.fashion_mnist.fetch", refuse_to_fetch)
        name = "t10k-labels-idx1-ubyte.gz"
        write(tmp_path, {**tiny_fashion, name: tiny_fashion[name][:-1]})
        with pytest.raises(DataError) as caught:
            load("fashion-mnist", data_dir=tmp_path)
        message = str(caught.value)
        assert f"{tmp_path / name} is damaged" in message
        assert md5(tiny_fashion[name]) in message
        assert md5(tiny_fashion[name][:-1]) in message

    def test_a_folder_in_place_of_a_file(self, tiny_fashion, tmp_path):
        (tmp_path / "train-images-idx3-ubyte.gz").mkdir()
        with pytest.raises(DataError, match=r"cannot read .*train-images.*: Is a directory"):
            load("fashion-mnist", data_dir=tmp_path)

    def test_real(self, fashion_mnist, reference_loader):
        x, y, xt, yt = reference_loader.fashion_mnist()
        assert fashion_mnist.train_images.shape == (60_000, 1, 28, 28)
        assert (fashion_mnist.train_images[:, 0].numpy() == x).all()
        assert (fashion_mnist.test_images[:, 0].numpy() == xt).all()
        assert (fashion_mnist.train_labels.numpy() == y).all()
        assert (fashion_mnist.test_labels.numpy() == yt).all()
        assert torch.bincount(fashion_mnist.train_labels).tolist() == [6000] * 10
        assert torch.bincount(fashion_mnist.test_labels).tolist() == [1000] * 10


def refuse_to_fetch(*_, **__):
    raise AssertionError("a damaged file was about to be fetched over")


def folder_of(files, facts):
    return {path: content for path, content in files.items() if path.startswith(facts.folder + "/")}


@pytest.mark.parametrize("facts", [official.CIFAR10, official.CIFAR100], ids=lambda f: f.name)
class TestOfficialCifar:
    def test_folder_and_archive_hold_the_same(self, tiny_cifar, tmp_path, facts):
        places = {
            "folder": folder_of(tiny_cifar, facts),
            f"nested/{facts.name}": folder_of(tiny_cifar, facts),
            "archive": {facts.archive: tiny_cifar[facts.archive]},
            f"nested archive/{facts.name}": {facts.archive: tiny_cifar[facts.archive]},
        }
        for place, files in places.items():
            write(tmp_path / place, files)
        first, *others = (
            load(facts.name, data_dir=tmp_path / place.split("/")[0], download=False)
            for place in places
        )
        expected = [0, 9, 1, 9, 2, 9, 3, 9, 4, 9] if facts.name == "cifar10" else [0, 9]
        assert first.train_labels.tolist() == expected
        assert first.test_labels.tolist() == [5 if facts.name == "cifar10" else 1, 9]
        assert first.train_images.shape == (len(expected), 3, 32, 32)
        for other in others:
            same_data(first, other)
        # Reading the archive writes nothing.
        assert [path.name for path in (tmp_path / "archive").iterdir()] == [facts.archive]

    def test_damaged_member_of_the_folder(self, tiny_cifar, tmp_path, facts, monkeypatch):
        monkeypatch.setattr("freezeout.lab.data.cifar.fetch", refuse_to_fetch)
        write(tmp_path, folder_of(tiny_cifar, facts))
        path = tmp_path / facts.folder / facts.test_file
        content = path.read_bytes()
        path.write_bytes(content[:-1] + b"!")
        with pytest.raises(DataError) as caught:
            load(facts.name, data_dir=tmp_path)
        for part in (f"{path} is damaged", md5(content), md5(content[:-1] + b"!")):
            assert part in str(caught.value)

    def test_incomplete_folder_is_never_fetched_over(
        self, tiny_cifar, tmp_path, facts, monkeypatch
    ):
        monkeypatch.setattr("freezeout.lab.data.cifar.fetch", refuse_to_fetch)
        write(tmp_path, folder_of(tiny_cifar, facts))
        folder = tmp_path / facts.folder
        (folder / facts.test_file).unlink()
        words = f"{folder} is incomplete: it lacks {facts.test_file}. "
        with pytest.raises(DataError, match=re.escape(words)) as caught:
            load(facts.name, data_dir=tmp_path)
        assert f"to have {facts.archive} fetched" in str(caught.value)
        assert "permissions" not in str(caught.value)

    def test_incomplete_folder_gives_way_to_a_complete_form(self, tiny_cifar, tmp_path, facts):
        files = folder_of(tiny_cifar, facts)
        write(tmp_path, files)
        (tmp_path / facts.folder / facts.test_file).unlink()
        write(tmp_path, {facts.archive: tiny_cifar[facts.archive]})
        from_archive = load(facts.name, data_dir=tmp_path, download=False)
        (tmp_path / facts.archive).unlink()
        write(tmp_path / facts.name, files)
        same_data(load(facts.name, data_dir=tmp_path, download=False), from_archive)

    def test_damaged_archive(self, tiny_cifar, tmp_path, facts, monkeypatch):
        monkeypatch.setattr("freezeout.lab.data.cifar.fetch", refuse_to_fetch)
        damaged = tiny_cifar[facts.archive][:-100]
        write(tmp_path, {facts.archive: damaged})
        with pytest.raises(DataError, match=f"is damaged .* its MD5 is {md5(damaged)}"):
            load(facts.name, data_dir=tmp_path)
        assert (tmp_path / facts.archive).read_bytes() == damaged
        # And with the checksum out of the way, the reader itself reports it.
        monkeypatch.setitem(official.MD5, facts.archive, md5(damaged))
        with pytest.raises(DataError, match="does not unpack"):
            load(facts.name, data_dir=tmp_path)

    def test_archive_with_another_member(self, tiny_cifar, make_tar, tmp_path, facts, monkeypatch):
        member = f"{facts.folder}/{facts.test_file}"
        files = folder_of(tiny_cifar, facts)
        for change, words in (
            ({**files, member: b"other"}, f"got {md5(b'other')}"),
            ({k: v for k, v in files.items() if k != member}, "got no such member"),
        ):
            archive = make_tar(change)
            write(tmp_path, {facts.archive: archive})
            monkeypatch.setitem(official.MD5, facts.archive, md5(archive))
            with pytest.raises(DataError, match=rf"does not hold {member} as published.*{words}"):
                load(facts.name, data_dir=tmp_path)


def encode(images):
    """The compact form, value by value, from its description."""
    data = images.to(torch.int64).clone()
    data[:, 0] -= data[:, 1]
    data[:, 2] -= data[:, 1]
    data %= 256
    out = bytearray()
    for plane in data.flatten(0, 1).tolist():
        for row in range(32):
            for column in range(32):
                left = plane[row][column - 1] if column else 0
                up = plane[row - 1][column] if row else 0
                if row and column:
                    predicted = sorted((left, up, left + up - plane[row - 1][column - 1]))[1]
                else:
                    predicted = left if column else up
                miss = (plane[row][column] - predicted + 128) % 256 - 128
                out.append(2 * miss if miss >= 0 else -2 * miss - 1)
    return lzma.compress(bytes(out), preset=0)


@pytest.fixture
def tiny_compact(monkeypatch, tmp_path):
    """A compact copy of CIFAR-10 with two images a batch, its folder and its images."""
    generator = torch.Generator().manual_seed(9)
    images = torch.randint(256, (12, 3, 32, 32), generator=generator).to(torch.uint8)
    images[0], images[1] = 255, 0  # a step of everything at once
    labels = (
        b"\x93NUMPY\x01\x00" + struct.pack("<H", 6) + b"{....}" + bytes(range(10)) + b"\x05\x07"
    )
    files = {name: encode(images[2 * i : 2 * i + 2]) for i, name in enumerate(compact._FILES)}
    write(tmp_path / "cifar10", {**files, "labels.npy": labels})
    facts = replace(
        official.CIFAR10,
        labels_sha256=hashlib.sha256(labels).hexdigest(),
        pixels_sha256=tuple(
            hashlib.sha256(images[i : i + 2].numpy().tobytes()).hexdigest() for i in range(0, 12, 2)
        ),
    )
    monkeypatch.setattr(registry, "CIFAR10", facts)
    monkeypatch.setattr(compact, "_BATCH", 2)
    monkeypatch.setattr(compact, "_BATCH_BYTES", 2 * 3072)
    return tmp_path, images


class TestCompactCopy:
    def test_is_decoded(self, tiny_compact):
        root, images = tiny_compact
        dataset = load("cifar10", data_dir=root, download=False)
        assert torch.equal(dataset.train_images, images[:10])
        assert torch.equal(dataset.test_images, images[10:])
        assert dataset.train_labels.tolist() == list(range(10))
        assert dataset.test_labels.tolist() == [5, 7]

    @pytest.mark.parametrize("name", ["labels.npy", "data_batch_3.xz", "test_batch.xz"])
    def test_damage_is_named(self, tiny_compact, name):
        root, _ = tiny_compact
        path = root / "cifar10" / name
        content = path.read_bytes()
        path.write_bytes(content[:-8])
        with pytest.raises(DataError, match=rf"{name} is damaged: "):
            load("cifar10", data_dir=root)
        path.unlink()
        with pytest.raises(DataError, match=rf"cifar10 is incomplete: it lacks {name}\."):
            load("cifar10", data_dir=root)

    def test_stands_in_for_an_incomplete_official_folder(self, tiny_compact):
        root, images = tiny_compact
        (root / "cifar-10-batches-py").mkdir()
        dataset = load("cifar10", data_dir=root, download=False)
        assert torch.equal(dataset.test_images, images[10:])

    def test_intact_xz_of_other_pixels_is_noticed(self, tiny_compact):
        root, images = tiny_compact
        (root / "cifar10" / "data_batch_2.xz").write_bytes(encode(images[:2]))
        with pytest.raises(
            DataError, match=r"data_batch_2.xz is damaged: the SHA-256 of its pixel"
        ):
            load("cifar10", data_dir=root)

    @pytest.mark.parametrize(
        ("content", "words"),
        [
            (b"", "unpacks to at least 0 bytes instead of 3072"),
            (b"no xz at all", "it does not unpack"),
            (lzma.compress(bytes(3071)), "it unpacks to 3071 bytes"),
            (lzma.compress(bytes(3073)), "it unpacks to .*3073 bytes"),
            (lzma.compress(bytes(10**7)), "it unpacks to at least 3073 bytes"),
            (lzma.compress(bytes(3072))[:-5], "unpacks to at least 3072 bytes"),
        ],
    )
    def test_bad_xz_is_reported(self, content, words):
        with pytest.raises(DataError, match=f"batch is damaged: .*{words}"):
            decode_batch(content, 1, "batch")

    @pytest.mark.slow
    def test_real_batch_equals_the_official_pickle(self, cifar10, reference_loader):
        content = reference_loader.official_cifar10(5)
        assert md5(content) == official.MD5["cifar-10-batches-py/test_batch"]
        images, labels = read_cifar_file(content, "test_batch", label_key="labels")
        assert torch.equal(images, cifar10.test_images)
        assert torch.equal(labels, cifar10.test_labels)

    def test_real_cifar10_is_whole(self, cifar10, reference_loader):
        for split, images in (("train", cifar10.train_images), ("test", cifar10.test_images)):
            actual = hashlib.sha256(images.numpy().tobytes()).hexdigest()
            assert actual == reference_loader.ARRAY_SHA256[f"cifar10 {split}"]
        assert cifar10.train_images.shape == (50_000, 3, 32, 32)
        assert torch.bincount(cifar10.train_labels).tolist() == [5000] * 10
        assert torch.bincount(cifar10.test_labels).tolist() == [1000] * 10

    @pytest.mark.slow
    def test_real_cifar100_is_whole(self, shared_data, reference_loader):
        dataset = load("cifar100", data_dir=shared_data, download=False)
        for split, images in (("train", dataset.train_images), ("test", dataset.test_images)):
            actual = hashlib.sha256(images.numpy().tobytes()).hexdigest()
            assert actual == reference_loader.ARRAY_SHA256[f"cifar100 {split}"]
        assert torch.bincount(dataset.train_labels).tolist() == [500] * 100
        assert torch.bincount(dataset.test_labels).tolist() == [100] * 100

    @pytest.mark.slow
    def test_real_official_files_hold_the_same(self, shared_data, reference_loader, tmp_path):
        reference_loader.write_official(tmp_path)
        for name in ("cifar10", "cifar100"):
            same_data(load(name, data_dir=tmp_path), load(name, data_dir=shared_data))
        shutil.rmtree(tmp_path)


def test_class_names_are_those_of_the_authors(shared_data):
    for path, key, facts in (
        ("cifar10/batches.meta", "label_names", official.CIFAR10),
        ("cifar100/meta", "fine_label_names", official.CIFAR100),
    ):
        meta = read_plain_pickle((shared_data / path).read_bytes(), path)
        assert tuple(meta[key]) == facts.classes


def test_published_checksums_are_those_of_the_shared_data(reference_loader):
    for path, expected in reference_loader.OFFICIAL_MD5.items():
        ours = path.removeprefix("fashion_mnist/")
        if not path.endswith("meta"):
            assert official.MD5[ours] == expected
