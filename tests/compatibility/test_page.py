"""The page says what the lists say, and every row of the lists has a test."""

from __future__ import annotations

import pytest

from tests.compatibility.other_schedulers import BESIDE
from tests.compatibility.outcome import MEANING, named_tests
from tests.compatibility.page import PAGE, page, tried_with
from tests.compatibility.surgeries import SURGERIES
from tests.compatibility.uses import USES
from tests.compatibility.wrappers import WRAPPERS, Wrapper


def test_the_page_is_written_from_the_lists() -> None:
    text = PAGE.read_text()
    if tried_with() not in " ".join(text.split()):
        pytest.skip("other versions are installed than the page is for")
    assert text == page(), "run python -m tests.compatibility.page"


@pytest.mark.parametrize("row", WRAPPERS, ids=lambda row: row.name)
def test_every_wrapper_has_a_test(row: Wrapper) -> None:
    assert row.test in named_tests(row.file)
    if row.outcome == "refused":
        assert "refus" in row.test or "stop" in row.test or "agree" in row.test


def test_every_outcome_is_one_of_three_and_says_its_words() -> None:
    for row in (*SURGERIES, *USES, *BESIDE):
        assert row.outcome in MEANING
        assert bool(row.words) is (row.outcome != "works"), row.name


@pytest.mark.parametrize("rows", [SURGERIES, USES, BESIDE, WRAPPERS])
def test_no_row_stands_twice(rows: list[Wrapper]) -> None:
    names = [row.name for row in rows]
    assert len(names) == len(set(names))
