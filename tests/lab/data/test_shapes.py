"""What is said of a data set without its files is what is in its files."""

import doctest
import sys

import pytest

from freezeout.lab.data import NAMES, DataShape, data_shape, load, registry


def shape_of(dataset):
    return DataShape(
        channels=dataset.channels,
        image_size=dataset.image_size,
        num_classes=dataset.num_classes,
        train_images=len(dataset.train_images),
    )


def test_digits_are_the_real_ones():
    assert data_shape("digits") == shape_of(load("digits"))


@pytest.mark.parametrize("fixture", ["fashion_mnist", "cifar10"])
def test_files_hold_what_is_said(fixture, request):
    dataset = request.getfixturevalue(fixture)
    assert data_shape(dataset.name) == shape_of(dataset)


@pytest.mark.slow
def test_cifar100_holds_what_is_said(shared_data):
    dataset = load("cifar100", data_dir=shared_data, download=False)
    assert data_shape("cifar100") == shape_of(dataset)


@pytest.mark.parametrize("name", NAMES)
def test_every_name_has_a_shape_and_nothing_is_read(name, monkeypatch):
    for loader in ("load_digits", "load_fashion_mnist", "load_cifar"):
        monkeypatch.setattr(registry, loader, refuse)
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    monkeypatch.setattr("builtins.open", refuse)
    monkeypatch.setattr("pathlib.Path.open", refuse)
    assert data_shape(name).train_images > 0
    assert data_shape(name) is data_shape(name.upper().replace("-", "_"))


def refuse(*_, **__):
    raise AssertionError("a shape was about to be read from a file")


def test_unknown_name():
    with pytest.raises(ValueError, match=r"must be one of digits, .*, got 'imagenet'"):
        data_shape("imagenet")


def test_its_example_runs():
    failures, attempted = doctest.testmod(registry)
    assert (failures, attempted) == (0, 4)
