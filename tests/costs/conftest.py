"""Fixtures of the tests of costs."""

import pytest

from tests.costs.costly import Clock, CostlySGD


@pytest.fixture
def virtual(monkeypatch):
    """A clock that only `costly` layers move."""
    clock = Clock()
    monkeypatch.setattr("freezeout.costs.bench.time", clock)
    monkeypatch.setattr(CostlySGD, "clock", clock)
    return clock
