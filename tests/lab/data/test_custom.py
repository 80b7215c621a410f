"""Custom data: their forms; one line per mistake."""

import pytest
import torch

from freezeout.lab.data import data_shape, load
from tests.lab.training.custom import refused

IMAGES = "torch.arange(6 * 2 * 3 * 3).view(6, 2, 3, 3).to(torch.uint8)"
LABELS = "torch.tensor([0, 1, 2, 0, 1, 2])"


def loads(write, value, before=""):
    write(f"{before}\ndef load():\n    x, y = {IMAGES}, {LABELS}\n    return {value}", "my_data.py")
    return load("my_data:load")


@pytest.mark.parametrize(
    "value",
    [
        "x, y, x[:2], y[:2]",
        "x.numpy(), y.numpy(), x[:2].numpy(), y[:2].numpy()",
        "x, y.to(torch.int32), x[:2].numpy(), y[:2].numpy().astype('uint16')",
        "x, y.to(torch.uint8), x[:2], np.ascontiguousarray(y[:2]).astype('>i4')",
        "np.flip(np.flip(x.numpy())), y, x[:2], np.flip(np.flip(y[:2].numpy()))",
    ],
)
def test_data_may_be_tensors_or_arrays(write, value):
    dataset = loads(write, value)
    expected = torch.arange(6 * 2 * 3 * 3).view(6, 2, 3, 3).to(torch.uint8)
    assert torch.equal(dataset.train_images, expected)
    assert torch.equal(dataset.test_images, expected[:2])
    assert torch.equal(dataset.train_labels, torch.tensor([0, 1, 2, 0, 1, 2]))
    assert torch.equal(dataset.test_labels, torch.tensor([0, 1]))
    assert dataset.train_labels.dtype == dataset.test_labels.dtype == torch.int64
    assert (dataset.name, dataset.classes) == ("my_data:load", ("0", "1", "2"))


def test_read_only_arrays_do(write):
    dataset = loads(write, "x, y, fixed(x[:2]), y[:2]", before=(
        "def fixed(x):\n    x = x.numpy()\n    x.flags.writeable = False\n    return x"
    ))  # fmt: skip
    assert dataset.test_images.shape == (2, 2, 3, 3)


def test_data_may_be_a_dataset(write):
    value = "Dataset('mine', x, y, x[:2], y[:2], ('a', 'b', 'c', 'd'))"
    dataset = loads(write, value, before="from freezeout.lab.data import Dataset")
    assert (dataset.name, dataset.num_classes) == ("mine", 4)
    shape = data_shape("my_data:load")
    assert (shape.channels, shape.image_size) == (2, (3, 3))
    assert (shape.num_classes, shape.train_images) == (4, 6)


def test_data_drawn_at_random_are_the_same_every_time(write):
    state = torch.get_rng_state()
    one = loads(write, "(torch.rand(6, 2, 3, 3) * 255).byte(), y, x, y")
    assert torch.equal(state, torch.get_rng_state())
    torch.rand(3)
    assert torch.equal(one.train_images, load("my_data:load").train_images)


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("x", "must return a freezeout.lab.data.Dataset or a tuple .*, got Tensor"),
        ("x, y", r"a tuple \(train_images, train_labels, test_images, .*, got a tuple of 2"),
        ("None", "got None"),
        ("x / 255, y, x, y", "train_images must be a uint8 tensor, got torch.float32. Give pixels"),
        ("x, y, x.numpy() / 255.0, y", "test_images must be a uint8 tensor, got torch.float64"),
        ("x, y.float(), x, y", "train_labels must be an int64 tensor, got torch.float32"),
        ("x, y > 0, x, y", "train_labels must be an int64 tensor, got torch.bool"),
        ("x, [0, 1, 2, 0, 1, 2], x, y", "train_labels must be a tensor or a NumPy array, got list"),
        ("x, np.array(['a'] * 6), x, y", "train_labels must hold numbers, got an array of <U1"),
        ("x[:, 0], y, x, y", r"train_images must have a shape \(N, C, H, W\) .* got \(6, 3, 3\)"),
        ("x, y[:5], x, y", r"train_labels must have the shape \(6,\), got \(5,\)"),
        ("x, y - 1, x, y", r"train_labels must lie in \[0, 2\], got values from -1 to 1"),
        ("x, y + 99, x, y", "labels go up to 101, but there are only 12 images"),
        ("x[:0], y[:0], x, y", "train_images must have a shape .* without zeros"),
        ("x, y, x[:, :1], y", r"one shape \(C, H, W\), got \(2, 3, 3\) and \(1, 3, 3\)"),
        ("x.new_ones(6, 9, 8, 3), y, x.new_ones(6, 9, 8, 3), y", r"like \(N, H, W, C\). Permute"),
        ("x.new_ones(6, 8, 8, 1), y, x.new_ones(6, 8, 8, 1), y", r"like \(N, H, W, C\). Permute"),
        ("x.to_sparse(), y, x, y", "train_images must be an ordinary tensor, got one of layout"),
        ("x, y.to('meta'), x, y", "cannot be used as data: .*. Return tensors or NumPy arrays"),
        ("x.to('meta'), y, x, y", "train_images must be an ordinary tensor, got a tensor without"),
        ("x, y[0], x, y", r"train_labels must have the shape \(N,\), got \(\)"),
        ("x, y.view(6, 1), x, y", r"train_labels must have the shape \(N,\), got \(6, 1\)"),
        ("x, y.to(torch.complex64), x, y", "train_labels must be an int64 tensor, got torch.c"),
        ("x, np.array([2**63] * 6, dtype='uint64'), x, y", r"train_labels must lie in \[0, 2\]"),
        ("x, np.zeros(6, dtype='i4,i4'), x, y", "train_labels must hold numbers"),
        ("x, np.zeros(6, dtype='M8[s]'), x, y", "train_labels must hold numbers"),
        ("x, type('T', (), {'__array_interface__': property(lambda s: 1 / 0)})(), x, y", "ZeroDi"),
        ("x, type('T', (), {'__array_interface__': {}})(), x, y", "cannot be used as data: "),
        ("type('D', (type(x),), {})", "got the class D"),
        ("iter((x, y, x, y))", "got tuple_iterator"),
        ("1 / 0", "calling my_data:load failed: ZeroDivisionError: .* my_data.load()"),
    ],
)
def test_what_is_wrong_with_data_is_said_in_one_line(write, value, words):
    refused(lambda: loads(write, value), words)


def test_a_dataset_that_was_not_made_as_one_is_refused(write):
    refused(
        lambda: loads(write, "object.__new__(Dataset)", "from freezeout.lab.data import Dataset"),
        "cannot be used as data: AttributeError",
    )


def test_signals_that_are_one_pixel_wide_are_images(write):
    dataset = loads(write, "x.new_ones(6, 5, 9, 1), y, x.new_ones(6, 5, 9, 1), y")
    assert dataset.image_size == (9, 1)


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("def lod(): pass", "module my_data has no 'load'. Did you mean 'lod'?"),
        ("def load(folder): pass", "called without arguments, but needs folder"),
        (
            "from freezeout.lab.data import load as digits\nload = digits('digits')",
            "data set already",
        ),
        ("load = 3", "must be a function that returns the data, got int"),
    ],
)
def test_what_is_wrong_with_a_function_of_data_is_said_in_one_line(write, source, words):
    write(source, "my_data.py")
    refused(lambda: load("my_data:load"), words)
