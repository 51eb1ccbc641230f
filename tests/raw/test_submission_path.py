"""The grammar of submission paths, and how lenient the ingest server is against the conversion."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from telemetry_lake.failures import ErrorType, PingRejected, Stage
from telemetry_lake.raw.submission_path import SubmissionPath, is_submission, parse_submission_path

ID = "6c1f8a5e-4d0b-4a8c-9a53-3f7f6a2f6a11"


def test_the_form_of_firefox_telemetry():
    path = f"/submit/telemetry/{ID.upper()}/main/Firefox/145.0/release/20261101120000"
    assert parse_submission_path(path) == SubmissionPath(
        "telemetry", "main", ID, None, "Firefox", "145.0", "release", "20261101120000"
    )


def test_the_generic_form():
    path = f"/submit/org-mozilla-fenix/baseline/1/{ID}"
    assert parse_submission_path(path) == SubmissionPath("org-mozilla-fenix", "baseline", ID, "1")


def test_a_trailing_slash_is_tolerated_and_values_are_decoded_once():
    path = f"/submit/telemetry/{ID}/main/B%2FG/1.0/a%2520b/2013/"
    parsed = parse_submission_path(path)
    assert (parsed.app_name, parsed.app_update_channel) == ("B/G", "a%20b")


@pytest.mark.parametrize(
    "path, error_type",
    [
        (f"/submit/telemetry/{ID}", ErrorType.BARE_DOCUMENT_ID),
        (f"/submit/telemetry/{ID}/", ErrorType.BARE_DOCUMENT_ID),
        (f"/submit/telemetry/{ID}/main/Firefox", ErrorType.INVALID_PATH),
        ("/submit/telemetry/not-a-uuid/main/Firefox/1/release/1", ErrorType.INVALID_DOCUMENT_ID),
        (f"/submit/telemetry/{{{ID}}}/main/Firefox/1/release/1", ErrorType.INVALID_DOCUMENT_ID),
        (f"/submit/telemetry/{ID}/m%2Fain/Firefox/1/release/1", ErrorType.INVALID_PATH),
        (f"/submit/Glean/baseline/1/{ID}", ErrorType.INVALID_PATH),
        (f"/submit/glean/baseline/one/{ID}", ErrorType.INVALID_PATH),
        ("/submit/glean/baseline/1/1", ErrorType.INVALID_DOCUMENT_ID),
        ("/submit/telemetry", ErrorType.INVALID_PATH),
        ("/submit//", ErrorType.INVALID_PATH),
        ("/submit//main/1/x", ErrorType.INVALID_PATH),
        (f"/submit/glean//1/{ID}", ErrorType.INVALID_PATH),
        (f"/submit/glean/baseline/1/{ID}//", ErrorType.INVALID_PATH),
        ("/submit/glean/baseline/1", ErrorType.INVALID_PATH),
        (f"/submit/glean/baseline/1/{ID}/more", ErrorType.INVALID_PATH),
        (f"/submit/telemetry/{ID}/main/Firefox/1/release/1/more", ErrorType.INVALID_PATH),
        (f"//submit/telemetry/{ID}/main/Firefox/1/release/1", ErrorType.INVALID_PATH),
    ],
)
def test_what_the_server_accepts_and_the_conversion_rejects(path, error_type):
    assert is_submission(path)
    with pytest.raises(PingRejected) as rejection:
        parse_submission_path(path)
    assert (rejection.value.error_type, rejection.value.stage) == (error_type, Stage.PATH)


@pytest.mark.parametrize(
    "path, reason",
    [
        (f"//submit/glean/baseline/1/{ID}", "begins with more than one slash"),
        (f"/submit/glean//1/{ID}", "a part of the path is empty"),
        ("/submit/glean/baseline/1", "number of parts below /submit/ is 3 instead of 4"),
        ("/submit/telemetry", "number of parts below /submit/ is 1 instead of 2 to 7"),
    ],
)
def test_the_rejection_of_an_odd_path_says_what_is_odd(path, reason):
    with pytest.raises(PingRejected, match=reason):
        parse_submission_path(path)


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/submit",
        "/submit/",
        "//submit/",
        f"/x/submit/glean/baseline/1/{ID}",
        f"/Submit/glean/baseline/1/{ID}",
    ],
)
def test_other_paths_are_no_submissions(path):
    assert not is_submission(path)
    with pytest.raises(PingRejected):
        parse_submission_path(path)


@given(st.text())
def test_any_text_is_parsed_or_rejected(text):
    for path in (text, "/submit/" + text, "/submit/telemetry/" + text):
        try:
            parsed = parse_submission_path(path)
        except PingRejected:
            continue
        assert is_submission(path)
        assert parsed.document_id == parsed.document_id.lower()
