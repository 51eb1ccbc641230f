"""The checks beside the tables: they can be asked, they fit the closed lists of the code, and they bite."""

import pandas as pd
import pytest

from telemetry_lake.checks import (
    EXAMPLES_MAX,
    Check,
    Severity,
    Subject,
    checks_of_batch,
    checks_of_table,
    run_checks,
)
from telemetry_lake.convert.normalize import normalized_channel, normalized_os
from telemetry_lake.failures import ConfigurationError, ErrorType, Stage
from telemetry_lake.tables import LIVE_PINGS, LIVE_REJECTED_PINGS, table_definition

GOOD_PING = {
    "document_id": "00000000-0000-4000-8000-000000000001",
    "namespace": "telemetry",
    "document_type": "main",
    "submission_timestamp": pd.Timestamp("2026-11-23T09:00:00Z"),
    "submission_date": pd.Timestamp("2026-11-23").date(),
    **dict.fromkeys(("reason", "app_name", "app_update_channel", "app_version", "app_build_id"), "OTHER"),
    "normalized_channel": "release",
    "normalized_os": "Linux",
    "country": "??",
    "sample_id": 7,
    "document_bytes": 500,
    "raw_object": "raw/v1/2026-11-23/09/node-1/s.arrows",
    "raw_object_position": 0,
}


@pytest.mark.parametrize("table", [LIVE_PINGS, LIVE_REJECTED_PINGS])
def test_checks_of_a_table_name_its_columns(table):
    columns = {column.name for column in table_definition(table).columns}
    for check in checks_of_table(table):
        assert {*check.columns, *check.arguments.get("column_list", [])} <= columns


def test_the_closed_lists_are_those_of_the_code():
    lists = {
        check.columns[0]: check.arguments["value_set"]
        for check in checks_of_table(LIVE_REJECTED_PINGS)
        if check.expectation == "ExpectColumnValuesToBeInSet"
    }
    assert lists == {"error_type": list(ErrorType), "stage": list(Stage)}
    closed = {
        check.columns[0]: check.arguments["value_set"]
        for check in checks_of_table(LIVE_PINGS)
        if check.expectation == "ExpectColumnValuesToBeInSet" and check.severity is Severity.FAIL
    }
    for channel in ("release", "esr", "beta", "aurora", "nightly", "default", None):
        assert normalized_channel(channel) in closed["normalized_channel"]
    for system in ("WINNT", "Darwin", "Linux", "Android", "iOS", "Haiku", None):
        assert normalized_os(system) in closed["normalized_os"]


@pytest.mark.parametrize(
    "column, value",
    [
        ("document_id", None),
        ("document_id", "not-a-uuid"),
        ("reason", None),
        ("normalized_channel", "Release"),
        ("normalized_os", "BeOS"),
        ("country", "Germany"),
        ("sample_id", 100),
    ],
)
def test_one_wrong_value_in_a_column_fails_the_batch(column, value):
    rows = [GOOD_PING, {**GOOD_PING, "raw_object_position": 1, column: value}]
    failed = failures(rows)
    assert {result.column for result in failed} == {column}
    assert all(result.examples == (f"{GOOD_PING['raw_object']}#1",) for result in failed)


def test_a_ping_that_became_two_rows_fails_the_batch():
    (failed,) = failures([GOOD_PING, GOOD_PING])
    assert failed.column == "raw_object+raw_object_position"


def test_a_good_row_passes_and_examples_are_few():
    assert failures([GOOD_PING]) == []
    rows = [{**GOOD_PING, "raw_object_position": number, "country": "?"} for number in range(20)]
    (failed,) = failures(rows)
    assert len(failed.examples) == EXAMPLES_MAX


def test_the_batch_has_to_add_up():
    fine = {"raw_object": "a", "missing": 0, "outside_range": 0}
    for column, value in (("missing", 1), ("missing", -1), ("outside_range", 3)):
        frame = pd.DataFrame([fine, {**fine, "raw_object": "b", column: value}])
        results = run_checks([Subject("raw objects", checks_of_batch("raw_objects"), frame, ("raw_object",))])
        assert [(result.column, result.examples) for result in results if not result.passed] == [
            (column, ("b",))
        ]


@pytest.mark.parametrize(
    "check",
    [
        {"expectation": "ExpectNothingOfTheKind", "columns": ["country"]},
        {"expectation": "ExpectColumnValuesToNotBeNull", "columns": ["no_such_column"]},
    ],
)
def test_a_check_that_cannot_be_asked_is_a_mistake_of_the_file(check):
    made = Check.model_validate({**check, "severity": "warn", "why": "because", "remedy": "none"})
    with pytest.raises(ConfigurationError, match=check["expectation"]):
        run_checks([Subject("rows", (made,), pd.DataFrame([GOOD_PING]), ("raw_object",))])


def failures(rows):
    subject = Subject(
        LIVE_PINGS, checks_of_table(LIVE_PINGS), pd.DataFrame(rows), ("raw_object", "raw_object_position")
    )
    return [
        result for result in run_checks([subject]) if not result.passed and result.severity is Severity.FAIL
    ]
