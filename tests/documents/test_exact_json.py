"""JSON is read and written as everywhere else, without the stack: any integer, any half of a pair."""

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from telemetry_lake.documents.exact_json import (
    read_exactly,
    texts_in,
    with_members,
    with_texts,
    write_exactly,
)
from telemetry_lake.documents.nesting import DOCUMENT_MAX_DEPTH, is_nested_too_deep
from telemetry_lake.documents.restore import stored_document, with_halves_spelled
from telemetry_lake.documents.text import has_halves, parse_json

TEXTS = st.text(st.characters() | st.sampled_from('\ud83d\ude00\ufffd\u2028\\"/\0a0'), max_size=6)
SCALARS = (
    st.none() | st.booleans() | st.integers() | st.integers(2**60, 2**80) | TEXTS
    | st.floats(allow_nan=False, allow_infinity=False)
)  # fmt: skip
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS, inner, max_size=4)
)
PIECES = st.sampled_from(
    [
        *'{}[],:" \n\t\\',
        '"a"',
        '"\\ud83d"',
        "\\u",
        "d8",
        "true",
        "nul",
        "-",
        "0",
        "1",
        ".5",
        "e9",
        "1e999",
        "\x01",
    ]
)


def oracle(text: str) -> object:
    """The standard library, without what is not JSON."""

    def refused(word: str) -> object:
        raise ValueError(word)

    def finite(number: str) -> float:
        return refused(number) if math.isinf(float(number)) else float(number)  # type: ignore[return-value]

    return json.loads(text, parse_constant=refused, parse_float=finite)


@given(VALUES, st.sampled_from([None, 1]), st.booleans())
def test_reading_and_writing_are_those_of_the_standard_library(value, indent, ensure_ascii):
    text = json.dumps(value, indent=indent, ensure_ascii=ensure_ascii)
    if not ensure_ascii and any("\ud800" <= character <= "\udfff" for character in text):
        text = json.dumps(value, indent=indent)
    expected = json.loads(text)
    assert repr(read_exactly(text.encode())) == repr(parse_json(text.encode())) == repr(expected)
    assert repr(json.loads(write_exactly(value))) == repr(expected)
    assert write_exactly(value, sort_names=True) == write_exactly(
        json.loads(json.dumps(value, sort_keys=True))
    )


@given(st.lists(PIECES, max_size=12).map("".join))
def test_what_is_not_json_is_refused(text):
    try:
        expected = oracle(text)
    except ValueError:
        with pytest.raises(ValueError, match=r"[a-z]"):
            read_exactly(text.encode())
    else:
        assert repr(read_exactly(text.encode())) == repr(expected)


@given(st.dictionaries(TEXTS, VALUES, max_size=4))
def test_what_is_stored_is_unicode_and_gives_back_what_was_sent(document):
    stored = write_exactly(with_halves_spelled(document))
    assert not has_halves(json.loads(stored), stored.encode())
    assert stored_document(stored.encode(), '{"":"halves_spelled","/a":"reason"}') == document


@given(VALUES)
def test_copies_are_copies(value):
    before = repr(value)
    assert with_texts(with_texts(value, lambda text: f"{text}!"), lambda text: text[:-1]) == value
    assert with_members(value, lambda member: member) == value
    assert sum(1 for _ in texts_in(with_members(value, str))) >= sum(1 for _ in texts_in(value))
    assert repr(value) == before


def test_numbers_at_their_limits():
    assert repr(read_exactly(b"[-0, 0, -0.0, 1E2]")) == repr(parse_json(b"[-0, 0, -0.0, 1E2]"))
    assert read_exactly(b"1" * 309) == int("1" * 309)
    for text in (
        b"1" * 310,
        b"1e309",
        b"-1e309",
        b"01",
        b"1.",
        b".1",
        b"+1",
        b"NaN",
        b"\xef\xbb\xbf1",
        b"1 2",
    ):
        with pytest.raises(ValueError, match="character"):
            read_exactly(text)


@pytest.mark.parametrize("around", [b"", b'"[[[[\\"[[["', b'"\\\\",{},[],'])
def test_depth_is_counted_outside_of_texts(around):
    depth = DOCUMENT_MAX_DEPTH - 1
    inside = around.rstrip(b",") + b"," if around else b""
    for more, answer in ((0, False), (1, True)):
        opened, closed = b"[" * (depth + more), b"]" * (depth + more)
        assert is_nested_too_deep(b"[" + inside + opened + closed + b"]") is answer
        assert is_nested_too_deep(b'{"a":' * (depth + more) + b"[" + b"]" + b"}" * (depth + more)) is answer
    assert not is_nested_too_deep(b'"' + b"[" * 1_000)
    assert not is_nested_too_deep(b"]" * 1_000 + b"[" * depth)
