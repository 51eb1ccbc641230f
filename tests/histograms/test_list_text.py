"""Lists of numbers as text: what is written is read back, one by one or all at once, and nothing else is."""

from itertools import pairwise

import pyarrow as pa
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from telemetry_lake.failures import FatalError
from telemetry_lake.histograms.list_kernels import read_lists
from telemetry_lake.histograms.list_text import list_numbers, list_text

LOWEST, HIGHEST = -(2**63), 2**63 - 1
TOO_LARGE = (str(HIGHEST + 1), str(LOWEST - 1), "9" * 30)
numbers = st.lists(st.integers(LOWEST, HIGHEST) | st.sampled_from([LOWEST, -1, 0, HIGHEST]), max_size=5)


@given(st.lists(numbers, max_size=6), st.integers(0, 6), st.integers(0, 6))
@example([[LOWEST, HIGHEST], [], [0]], 0, 3)
def test_what_is_written_is_read_back(lists: list[list[int]], first: int, length: int):
    texts = [list_text(each) for each in lists]
    assert [list_numbers(text) for text in texts] == lists
    starts, found = read_lists(pa.array(texts, pa.string()).slice(first, length))
    assert [found[start:end].tolist() for start, end in pairwise(starts)] == lists[first : first + length]


def test_the_text_is_plain_decimal_and_absent_for_no_numbers():
    assert list_text([0, 14, -3]) == "0,14,-3"
    assert list_text([]) is None


def test_an_array_without_texts_needs_no_offsets():
    starts, found = read_lists(
        pa.Array.from_buffers(pa.string(), 0, [None, pa.py_buffer(b""), pa.py_buffer(b"")])
    )
    assert (starts.tolist(), found.tolist()) == ([0], [])


@pytest.mark.parametrize(
    "text", [",", "1,", ",1", "1,,2", "-", "--1", "1-", "+1", " 1", "1.0", "x", "é", *TOO_LARGE]
)
def test_whatever_else_is_there_is_an_error_that_shows_it(text: str):
    with pytest.raises(FatalError, match=r"is not a list of numbers") as error:
        read_lists(pa.array(["1,2", None, text, "3"]))
    assert repr(text) in str(error.value)
