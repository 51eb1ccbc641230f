"""Reading text by words says the same as reading it byte by byte."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from telemetry_lake.convert.fast_histograms.swar import (
    PADDING_BYTES,
    digit_count,
    digits_at,
    number_of,
    past_plain,
    same_text,
)

any_text = st.binary(max_size=30) | st.text("0123456789/:", max_size=12).map(str.encode)


def padded(text, behind=b"\0"):
    return np.frombuffer(text + (behind * PADDING_BYTES)[:PADDING_BYTES], np.uint8)


@given(any_text, st.integers(0, 30))
def test_digits_at_a_position(text, at):
    at = min(at, len(text))
    leading = text[at : at + 8]
    expected = len(leading) - len(leading.lstrip(b"0123456789"))
    digits = np.uint64(digits_at(padded(text), np.uint64(at)))
    assert digit_count(digits) == expected
    if expected:
        assert number_of(digits, np.uint64(expected)) == int(leading[:expected])


@given(any_text, any_text, st.integers(0, 5), st.integers(0, 5), st.binary(min_size=1, max_size=3))
def test_texts_are_compared_to_their_last_byte(one, other, at, begin, behind):
    for length in range(min(len(one) - at, len(other) - begin) + 1):
        same = same_text(
            padded(one), np.uint64(at), padded(other, behind), np.uint64(begin), np.uint64(length)
        )
        assert same == (one[at : at + length] == other[begin : begin + length])


@given(st.binary(min_size=1, max_size=30), st.data())
def test_one_byte_makes_texts_differ(text, data):
    place = data.draw(st.integers(0, len(text) - 1))
    other = bytearray(text)
    other[place] ^= 1 << data.draw(st.integers(0, 7))
    zero = np.uint64(0)
    for length in range(len(text) + 1):
        assert same_text(padded(text), zero, padded(bytes(other)), zero, np.uint64(length)) == (
            length <= place
        )


@given(st.text('a"\\\0é', max_size=40).map(str.encode), st.integers(0, 40))
def test_the_end_of_plain_text(text, at):
    at = min(at, len(text))
    following = text[at:] + b"\0"
    assert past_plain(padded(text), np.uint64(at)) == at + min(
        place for place, byte in enumerate(following) if byte in b'"\\\0'
    )
