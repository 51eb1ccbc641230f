"""An index message survives its round trip, and anything else on the queue is named for what it is."""

import json
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from telemetry_lake.raw.index_message import IndexMessage, InvalidIndexMessage

START = datetime(2026, 11, 23, 14, 0, 0, 123456, tzinfo=UTC)


def message(**changes):
    fields = {
        "bucket": "raw",
        "key": "raw/v1/2026-11-23/14/node-1/segment.arrows",
        "bytes": 10,
        "ping_count": 1,
        "sha256": "0" * 64,
        "first_submission_timestamp": START,
        "last_submission_timestamp": START + timedelta(seconds=59),
    }
    return IndexMessage(**(fields | changes))


@given(st.integers(1, 2**40), st.integers(1, 10**9), st.timedeltas(timedelta(0), timedelta(days=1)))
def test_a_message_survives_the_queue(size, count, length):
    sent = message(bytes=size, ping_count=count, last_submission_timestamp=START + length)
    assert IndexMessage.from_json(sent.to_json()) == sent


@given(st.integers(1, 2**40), st.integers(1, 10**9), st.timedeltas(timedelta(0), timedelta(days=1)))
def test_a_message_is_made_again_of_the_metadata_of_its_object(size, count, length):
    sent = message(bytes=size, ping_count=count, last_submission_timestamp=START + length)
    assert IndexMessage.from_metadata(sent.bucket, sent.key, sent.bytes, sent.metadata()) == sent


@pytest.mark.parametrize("missing", ["ping-count", "sha256", "first-submission-timestamp"])
def test_no_message_is_made_of_metadata_that_is_not_ours(missing):
    sent = message()
    metadata = {name: value for name, value in sent.metadata().items() if name != missing}
    assert IndexMessage.from_metadata(sent.bucket, sent.key, sent.bytes, metadata) is None
    assert IndexMessage.from_metadata(sent.bucket, sent.key, sent.bytes, metadata | {missing: "x"}) is None


@pytest.mark.parametrize(
    "field, value",
    [
        ("version", 2),
        ("key", "somewhere/else"),
        ("bytes", 0),
        ("ping_count", -1),
        ("sha256", "xyz"),
        ("first_submission_timestamp", "2026-11-23T14:00:00"),
        ("last_submission_timestamp", "2026-11-23T13:00:00Z"),
        ("surprise", 1),
    ],
)
def test_a_field_that_does_not_fit_is_named(field, value):
    body = json.loads(message().to_json()) | {field: value}
    with pytest.raises(InvalidIndexMessage, match=field):
        IndexMessage.from_json(json.dumps(body))


@pytest.mark.parametrize("body", ["", "{", "[]", "null", "{}"])
def test_what_is_no_message_at_all_is_refused(body):
    with pytest.raises(InvalidIndexMessage, match="dead-letter queue"):
        IndexMessage.from_json(body)
