"""Fixtures of the tests of wrappers."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.wrappers import small_run
from tests.wrappers.ranks import Ranks, joined


@pytest.fixture(scope="module")
def pair() -> Iterator[Ranks]:
    with joined(2) as ranks:
        yield ranks


@pytest.fixture(scope="module")
def alone() -> dict[str, Any]:
    return small_run.single()
