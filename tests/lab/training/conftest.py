"""Fixtures of the tests of training."""

import pytest

from freezeout.lab.training import RunFolder, Settings, start
from tests.lab.runs import SHORT, train
from tests.lab.training.custom import CUSTOM, DATA, NETS
from tests.lab.training.several_jobs import uneven


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run that nothing interrupted."""
    return train(tmp_path_factory.mktemp("whole") / "run")


@pytest.fixture(scope="module")
def short(tmp_path_factory):
    """A run that ends within an epoch."""
    return train(tmp_path_factory.mktemp("short") / "run", **SHORT)


@pytest.fixture
def custom(write):
    """A custom network, custom data, and settings that name them."""
    write(NETS)
    write(DATA, "my_data.py")

    def settings(**changes):
        return Settings(**{**CUSTOM, **changes})

    return settings


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return tmp_path_factory.mktemp("several")


@pytest.fixture(scope="module")
def one(place):
    """The run in one process."""
    folder = RunFolder(place / "one")
    start(uneven(), folder)
    return folder
