"""Reading pickles: the official kind is read, and nothing in any pickle is ever run."""

import os
import pickle
import sys

import pytest
import torch

from freezeout.errors import DataError
from freezeout.lab.data.cifar import read_cifar_file
from freezeout.lab.data.plain_pickle import ArrayRecipe, Recipe, read_plain_pickle


@pytest.fixture
def flag(tmp_path):
    """A file that any of the evil pickles below would make, were it run."""
    return tmp_path / "it-ran"


class Evil:
    def __init__(self, function, *arguments):
        self.recipe = function, arguments

    def __reduce__(self):
        return self.recipe


def evil_pickles(flag):
    code = f"open({str(flag)!r}, 'w').close()"
    shell = f"touch {flag}"
    short = code.encode()
    text = b"X" + len(short).to_bytes(4, "little") + short
    name = b"\x8c" + bytes([len("builtins")]) + b"builtins"
    yield "os.system", pickle.dumps(Evil(os.system, shell), 2), "system"
    yield "protocol 0", pickle.dumps(Evil(os.system, shell), 0), "operation PUT"
    yield "bare protocol 0", b"cposix\nsystem\n(" + text + b"tR.", r"'posix\.system'"
    yield "eval", pickle.dumps(Evil(eval, code), 2), r"'__builtin__\.eval'"
    yield "exec", pickle.dumps(Evil(exec, code), 2), r"'__builtin__\.exec'"
    yield "getattr", pickle.dumps(Evil(getattr, "", "upper"), 2), r"'__builtin__\.getattr'"
    yield "STACK_GLOBAL", pickle.dumps(Evil(eval, code), 4), "operation FRAME"
    yield "bare STACK_GLOBAL", name + b"\x8c\x04eval\x93" + text + b"\x85R.", "SHORT_BINUNICODE"
    yield "INST", b"(" + text + b"ibuiltins\neval\n.", "operation INST"
    yield "OBJ", b"(cbuiltins\neval\n" + text + b"o.", "operation OBJ"
    yield "numpy run", b"cnumpy.testing\nrunstring\n" + text + b"}\x86R.", "runstring"
    yield "numpy load", b"cnumpy\nload\n" + text + b"\x85R.", r"'numpy\.load'"
    yield "attribute of a name", b"cnumpy\nndarray.tofile\n)R.", "ndarray.tofile"
    yield "EXT1", b"\x82\x01" + text + b"\x85R.", "operation EXT1"
    yield "EXT2", b"\x83\x01\x00" + text + b"\x85R.", "operation EXT2"
    yield "EXT4", b"\x84\x01\x00\x00\x00" + text + b"\x85R.", "operation EXT4"
    yield "PERSID", b"P" + short + b"\n.", "operation PERSID"
    yield "BINPERSID", text + b"Q.", "operation BINPERSID"
    yield "NEWOBJ", b"cnumpy\nndarray\n)\x81.", "operation NEWOBJ"
    yield "BYTEARRAY8", b"\x96" + (8).to_bytes(8, "little") + b"12345678.", "BYTEARRAY8"


NAMES_OF_EVIL = [name for name, _, _ in evil_pickles("x")]


@pytest.mark.parametrize("which", NAMES_OF_EVIL)
def test_evil_is_refused_and_not_run(which, flag):
    content, words = next((c, w) for name, c, w in evil_pickles(flag) if name == which)
    with pytest.raises(DataError, match=words) as caught:
        read_plain_pickle(content, "evil.pkl")
    assert str(caught.value).startswith("evil.pkl is ")
    assert "\n" not in str(caught.value)
    assert not flag.exists()


@pytest.mark.parametrize("which", ["os.system", "eval", "exec", "protocol 0", "INST", "OBJ"])
def test_the_evil_pickles_are_evil(which, flag):
    # Without this, the test above could pass with pickles that do nothing anyway.
    content = next(c for name, c, _ in evil_pickles(flag) if name == which)
    pickle.loads(content)
    assert flag.exists()


def test_extension_registry_is_not_consulted(flag):
    import copyreg

    copyreg.add_extension("builtins", "eval", 0x7F)
    try:
        code = f"open({str(flag)!r}, 'w').close()".encode()
        content = b"\x82\x7fX" + len(code).to_bytes(4, "little") + code + b"\x85R."
        pickle.loads(content)
        flag.unlink()
        with pytest.raises(DataError, match="operation EXT1"):
            read_plain_pickle(content, "evil.pkl")
    finally:
        copyreg.remove_extension("builtins", "eval", 0x7F)
    assert not flag.exists()


def test_allowed_names_are_not_imported_and_not_called(monkeypatch):
    for module in [name for name in sys.modules if name.split(".")[0] == "numpy"]:
        monkeypatch.setitem(sys.modules, module, None)  # importing any of it would now fail
    array = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R."
    value = read_plain_pickle(array, "array")
    assert type(value) is ArrayRecipe
    assert value.arguments == (Recipe, (0,), "b")
    assert value.state is None


def test_a_name_is_not_something_to_build_on():
    with pytest.raises(DataError, match="__setstate__"):
        read_plain_pickle(b"cnumpy\nndarray\n}U\x01aK\x01sb.", "x")
    assert Recipe.state is None
    assert not hasattr(Recipe, "a")


@pytest.mark.parametrize(
    "value",
    [None, True, -5, 70_000, "text", [], {}, (), (1,), (1, 2), (1, 2, 3), (1, 2, 3, 4), [1, [2]]],
)
def test_plain_data_is_read_as_pickle_reads_it(value):
    assert read_plain_pickle(pickle.dumps(value, 2), "plain") == value


@pytest.mark.parametrize(
    "content",
    [b"K\x01K\x02.", b"](K\x01.", b"}K\x01K\x02s.", b"\x80\x04N."],
    ids=["two values", "a mark left over", "a number as key", "another protocol"],
)
def test_what_is_odd_but_plain_is_read_as_pickle_reads_it(content):
    assert read_plain_pickle(content, "odd") == pickle.loads(content)


@pytest.mark.parametrize(
    "value",
    [{"a": [1, 2], "b": {"c": (None, False)}}, [["shared"]] * 3, list(range(3000))],
)
def test_nested_data_is_read_as_pickle_reads_it(value):
    assert read_plain_pickle(pickle.dumps(value, 2), "plain") == value


def test_python_2_strings_keep_their_bytes():
    raw = bytes(range(256))
    content = b"\x80\x02T" + len(raw).to_bytes(4, "little") + raw + b"."
    assert read_plain_pickle(content, "x").encode("latin-1") == raw


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "pickle exhausted before seeing STOP"),
        (b"\x80\x02", "pickle exhausted"),
        (b"\xff.", "unknown"),
        (b".", "stack underflow"),
        (b"(.", "unexpected MARK found"),
        (b"e.", "could not find MARK"),
        (b"K\x01\x87.", "stack underflow"),
        (b"K\x01K\x02a.", "'int' object has no attribute 'append'"),
        (b"}(U\x01au.", "odd number of items"),
        (b"h\x05.", "Memo value not found"),
        (b"K\x01)R.", "'int' object is not callable"),
        (b"cnumpy\nndarray\nK\x01R.", "must be a tuple"),
        (b"cnumpy\nndarray\n)R}K\x01K\x02sa.", "no attribute 'append'"),
        (b"Nr\xff\xff\xff\x7f.", "memo 2147483647"),  # else room is made for so many
        (b"T\xff\xff\xff\x7fabc.", "expected 2147483647 bytes"),
        (b"U\x05ab.", "expected 5 bytes"),
    ],
)
def test_damage_is_reported(content, words):
    with pytest.raises(DataError, match=words) as caught:
        read_plain_pickle(content, "batch")
    assert "batch is not an intact pickle" in str(caught.value)


def test_knotted_containers_do_not_hang():
    # Forty lists that each hold the one before twice: written out they would fill any memory.
    knot = b"]" + b"".join(b"q%c](h%ch%ce" % (level, level, level) for level in range(40))
    for end in (b"\x93.", b"ibuiltins\neval\n.", b"K\x01a\x81."):
        with pytest.raises(DataError):
            read_plain_pickle(knot + end, "knot")


@pytest.fixture
def batch():
    generator = torch.Generator().manual_seed(1)
    images = torch.randint(256, (4, 3, 32, 32), generator=generator).to(torch.uint8)
    return images, torch.tensor([3, 1, 4, 1])


def test_a_cifar_file_is_read(batch, make_batch):
    images, labels = read_cifar_file(make_batch(*batch), "batch", label_key="labels")
    assert torch.equal(images, batch[0])
    assert torch.equal(labels, batch[1])
    assert (images.dtype, labels.dtype) == (torch.uint8, torch.int64)


@pytest.mark.parametrize("keep", [0.0, 0.01, 0.5, 0.999])
def test_a_truncated_cifar_file_is_reported(batch, make_batch, keep):
    content = make_batch(*batch)
    with pytest.raises(DataError, match="not an intact pickle"):
        read_cifar_file(content[: int(len(content) * keep)], "batch", label_key="labels")


def test_any_flipped_byte_of_the_frame_is_harmless(batch, make_batch):
    # Not every flip can be noticed (a label is a label), but none may do worse than DataError.
    content = make_batch(batch[0][:1], batch[1][:1])
    frame = [i for i in range(len(content)) if i < 260 or i > len(content) - 4]
    refused = 0
    for position in frame:
        for mask in (0x01, 0x20, 0xFF):
            damaged = bytearray(content)
            damaged[position] ^= mask
            try:
                read_cifar_file(bytes(damaged), "batch", label_key="labels")
            except DataError:
                refused += 1
    assert refused > len(frame)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"key": b"fine_labels"}, "KeyError: 'labels'"),
        ({"dtype": b"i2"}, "not an array of unsigned bytes"),
        ({"fortran": b"\x88"}, "not an array of unsigned bytes in C order"),
        ({"shape": (2, 3072)}, r"states the shape \(2, 3072\) and holds 12288 bytes"),
        ({"shape": (4, 768)}, "states the shape"),
    ],
)
def test_a_pickle_that_is_no_cifar_file_is_reported(batch, make_batch, change, words):
    with pytest.raises(DataError, match=words) as caught:
        read_cifar_file(make_batch(*batch, **change), "batch", label_key="labels")
    assert "batch does not hold CIFAR images" in str(caught.value)


def test_labels_that_do_not_match_are_reported(batch, make_batch):
    with pytest.raises(DataError, match="4 images and 2 labels"):
        read_cifar_file(make_batch(batch[0], batch[1][:2]), "batch", label_key="labels")
    with pytest.raises(DataError, match="does not hold CIFAR images"):
        read_cifar_file(pickle.dumps({"data": [], "labels": []}, 2), "batch", label_key="labels")
    with pytest.raises(DataError, match="does not hold CIFAR images"):
        read_cifar_file(pickle.dumps([1, 2], 2), "batch", label_key="labels")
