"""Answers at the limit of their size."""

import json

import pytest

from web.dashboard.documents import ANSWER_MAX_BYTES, fitting_count, limited
from web.edge import AnswerTooLarge


def test_an_answer_may_have_a_million_bytes_and_no_more() -> None:
    assert len(limited("é" + "x" * (ANSWER_MAX_BYTES - 2))) == ANSWER_MAX_BYTES
    with pytest.raises(AnswerTooLarge, match=r"1,000,001 bytes, and at most 1,000,000 are possible: choose"):
        limited("é" + "x" * (ANSWER_MAX_BYTES - 1))


@pytest.mark.parametrize("count", [0, 1, 3])
def test_as_many_items_as_fit_are_listed(count: int) -> None:
    items = [{"key": f"é{number}", "pings": number} for number in range(3)]
    size = sum(len(json.dumps(item, separators=(",", ":"))) + 1 for item in items[:count])
    assert fitting_count(items, size) == count
    assert fitting_count(items, size - 1) == max(0, count - 1)
