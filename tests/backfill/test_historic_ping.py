"""A document of the archive becomes the row that its ping would have become."""

import json
from datetime import UTC, date, datetime

import pytest

from lake_testing.ping_builders import DOCUMENT_ID, live_row, rejected_row
from lake_testing.small_archive import classic, converted_classic, firefox_os, unified
from telemetry_lake import columns
from telemetry_lake.backfill.units.historic_ping import (
    date_of_document,
    document_id_of_path,
    record_batch,
    submission_path,
)
from telemetry_lake.raw.raw_object import RAW_SCHEMA
from telemetry_lake.raw.submission_path import parse_submission_path

MODIFIED_MS = int(datetime(2015, 1, 2, 23, 59, tzinfo=UTC).timestamp() * 1_000)
DIMENSIONS = [name for name in columns.DIMENSIONS if name != columns.SUBMISSION_DATE]


@pytest.mark.parametrize(
    "content,document_type,version,dimensions",
    [
        (
            unified(DOCUMENT_ID),
            "main",
            "4",
            ["shutdown", "Firefox", "esr", "140.5.0", "20251103141854"],
        ),
        (
            classic(),
            "saved-session",
            "1",
            ["saved-session", "Firefox", "release", "23.0.1", "20130814063812"],
        ),
        (
            converted_classic(),
            "saved-session",
            "2",
            ["saved-session", "Firefox", "release", "23.0.1", "20130814063812"],
        ),
        (firefox_os(), "ftu", "3", ["ftu", "FirefoxOS", "nightly", "28.0", "20140301000000"]),
    ],
)
def test_every_kind_is_converted_with_what_it_says(content, document_type, version, dimensions):
    path = submission_path(DOCUMENT_ID.encode(), json.loads(content)).decode()
    row = live_row(path, content)
    assert (row["document_type"], row["document_version"]) == (document_type, version)
    assert [row[name] for name in DIMENSIONS] == dimensions


def test_what_a_document_does_not_say_is_unknown():
    document = json.loads(classic())
    for name in ("reason", "appVersion", "appBuildID"):
        del document["info"][name]
    row = live_row(submission_path(DOCUMENT_ID.encode(), document).decode(), document)
    assert row["document_type"] == "unknown"
    assert [row[name] for name in DIMENSIONS] == ["UNKNOWN", "Firefox", "release", "UNKNOWN", "UNKNOWN"]


def test_compact_histograms_in_a_version_that_has_none_are_rejected():
    document = {**json.loads(converted_classic()), "ver": 1}
    row = rejected_row(submission_path(DOCUMENT_ID.encode(), document).decode(), document)
    assert row["error_type"] == "schema_violation"


@pytest.mark.parametrize(
    "document,error_type",
    [
        (None, "invalid_json"),
        ([], "not_an_object"),
        ({"something": "else"}, "unknown_document_version"),
        ({"ping_info": {}, "client_info": {}}, "unknown_document_version"),
    ],
)
def test_what_is_no_known_document_says_why(document, error_type):
    content = b"{" if document is None else json.dumps(document).encode()
    path = submission_path(DOCUMENT_ID.encode(), document).decode()
    assert rejected_row(path, content)["error_type"] == error_type


@pytest.mark.parametrize("document_id", [b"no-uuid \xff/%?", b"", b"A" * 300, DOCUMENT_ID.upper().encode()])
def test_the_bytes_of_a_document_id_come_back_out_of_its_path(document_id):
    for document in (None, json.loads(firefox_os()), {"type": "a/b \ud83d", "application": {}}):
        assert document_id_of_path(submission_path(document_id, document).decode()) == document_id


def test_a_slash_in_a_document_stays_where_it_is():
    document = {"type": "main", "application": {"name": "a/b", "channel": "é%"}}
    path = parse_submission_path(submission_path(DOCUMENT_ID.encode(), document).decode())
    assert (path.app_name, path.app_update_channel, path.app_version) == ("a/b", "é%", "UNKNOWN")


@pytest.mark.parametrize(
    "document,day",
    [
        ({"creationDate": "2014-03-01T23:30:00-02:00"}, date(2014, 3, 2)),
        ({"creationDate": "2014-03-01T23:30:00.123Z"}, date(2014, 3, 1)),
        ({"pingTime": 1_393_632_000_000}, date(2014, 3, 1)),
        ({"creationDate": "yesterday"}, date(2015, 1, 2)),
        ({"pingTime": 1e300}, date(2015, 1, 2)),
        ({"pingTime": True}, date(2015, 1, 2)),
        (None, date(2015, 1, 2)),
    ],
)
def test_the_date_is_what_the_document_says_else_that_of_its_file(document, day):
    assert date_of_document(document, MODIFIED_MS) == day


def test_documents_have_the_form_of_a_raw_object():
    batch = record_batch([b"/submit/x", b"/submit/y"], [b"{}", b""], [date(2014, 3, 1), date(1969, 12, 31)])
    batch.validate(full=True)
    assert batch.schema.equals(RAW_SCHEMA)
    times = [datetime(2014, 3, 1, tzinfo=UTC), datetime(1969, 12, 31, tzinfo=UTC)]
    assert batch.column("submission_timestamp").to_pylist() == times
    assert batch.column("headers").to_pylist() == [[], []]
