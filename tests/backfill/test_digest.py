"""The digest says the same of the same records, and something else of any others."""

import json
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lake_testing.ping_builders import classic_document, linear, live_row, telemetry_path
from telemetry_lake.backfill.units.digest import Digest, canonical_text, hash_of_bytes, hash_of_value
from telemetry_lake.documents.restore import restore_document
from telemetry_lake.documents.text import parse_json

KEY = "0" * 32

values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.integers(-(2**60), 2**60).map(float)
    | st.text(st.characters(exclude_categories=["Cs"], exclude_characters="."), max_size=8),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text("ab\u00e9.0,", max_size=3), inner, max_size=4)
    ),
    max_leaves=12,
)
documents = st.dictionaries(st.text("abc", max_size=3), values, max_size=5)


def shuffled(value):
    """The same value with its keys in another order and whole numbers written another way."""
    if isinstance(value, dict):
        return {name: shuffled(value[name]) for name in sorted(value, reverse=True)}
    if isinstance(value, list):
        return [shuffled(member) for member in value]
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if type(value) is int and abs(value) < 2**53:
        return float(value)
    return value


@given(documents)
def test_equal_values_have_equal_texts_however_they_are_written(document):
    spaced = json.dumps(shuffled(document), indent=2).encode()
    assert canonical_text(parse_json(spaced)) == canonical_text(document)


@given(documents, documents)
def test_different_values_have_different_texts(one, two):
    same = json.dumps(one, sort_keys=True) == json.dumps(two, sort_keys=True)
    if same or canonical_text(one) == canonical_text(two):
        # Python calls 1 and True equal, which JSON does not.
        assert one == two


@pytest.mark.parametrize(
    "text", [b"523.0", b"-0.0", b"-0", b"1e22", b"1e+16", b"1E3", b"123456789012345678901234"]
)
def test_whole_numbers_are_whole_numbers(text):
    document = {"a": [json.loads(text)], "b": json.loads(text)}
    whole = int(json.loads(text))
    assert canonical_text(document) == f'{{"a":[{whole}],"b":{whole}}}'.encode()


def test_a_fraction_of_zero_in_a_string_is_the_one_thing_that_does_not_count():
    assert canonical_text({"a": "version 1.0, or so"}) == canonical_text({"a": "version 1, or so"})
    assert canonical_text({"a": "version 1.0"}) != canonical_text({"a": "version 1"})


def test_a_deep_document_has_a_text():
    deep = json.loads(b'{"a":' * 900 + b"1.0" + b"}" * 900)
    assert canonical_text(deep) == canonical_text(json.loads(json.dumps(deep)))


def test_a_converted_document_has_the_digest_of_what_was_sent():
    sums = {"sum": 523.0, "log_sum": 1e22, "sum_squares_lo": 7, "sum_squares_hi": 0.5}
    document = classic_document(
        histograms={"CYCLE_COLLECTOR_FULL": {"values": {"0": 1}, **sums}, "ODD": linear({})}
    )
    row = live_row(telemetry_path("saved-session"), document)
    assert hash_of_value(KEY, "id", restore_document(row)) == hash_of_value(KEY, "id", document)


def test_the_order_does_not_matter_and_everything_else_does():
    records = [(b"%d" % number, b"content %d" % number) for number in range(20)]

    def digest(found):
        total = Digest()
        for document_id, content in found:
            total.add(hash_of_bytes(KEY, document_id, content))
        return str(total)

    others = random.Random(1).sample(records, len(records))
    assert digest(records) == digest(others)
    assert len(digest(records)) == 32
    different = [
        records[1:],
        [*records, records[0]],
        [*records[1:], (records[0][0], records[1][1])],
        [*records[1:], (records[0][0] + b"c", records[0][1][1:])],
    ]
    assert len({digest(records), *map(digest, different)}) == 5


def test_the_key_and_the_kind_of_content_matter():
    hashes = {
        hash_of_bytes(KEY, b"id", b"{}"),
        hash_of_bytes("1" * 32, b"id", b"{}"),
        hash_of_value(KEY, "id", {}),
    }
    assert len(hashes) == 3
