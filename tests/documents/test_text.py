"""JSON in and out says the same, to the last digit."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from telemetry_lake.documents.text import parse_json

DIGITS = st.text("0123456789", min_size=17, max_size=30)
VALUES = st.recursive(
    st.integers(-(10**25), 10**25)
    | st.floats(allow_nan=False, allow_infinity=False)
    | DIGITS
    | DIGITS.map(lambda digits: f"/rev/{digits}")
    | DIGITS.map(lambda digits: f"[{digits}, -{digits}"),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(DIGITS, inner, max_size=4),
)


@given(VALUES, st.sampled_from([None, 1]), st.sampled_from(["", "long " * 1_000]), st.booleans())
def test_every_digit_is_kept(value, indent, padding, in_front):
    text = json.dumps([padding, value] if in_front else [value, padding], indent=indent).encode()
    read = parse_json(text)
    assert repr(read) == repr(json.loads(text))


@pytest.mark.parametrize("text", [b"123456789012345678901", b"[0.1234567890123456789,123456789012345678901]"])
def test_a_large_integer_stays_an_integer(text):
    assert repr(parse_json(text)) == repr(json.loads(text))
