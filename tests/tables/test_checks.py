"""The checks beside the tables: they can be asked, they fit the closed lists of the code, and they bite."""

import pandas as pd
import polars as pl
import pytest
from pydantic import JsonValue, ValidationError

from telemetry_lake.convert.derivation.derived import normalized_channel, normalized_os
from telemetry_lake.failures import ConfigurationError, ErrorType, Stage
from telemetry_lake.tables.batch_checks import EXAMPLES_MAX, Subject, run_checks
from telemetry_lake.tables.checks import (
    Check,
    CheckResult,
    CheckResults,
    Severity,
    checks_of_batch,
    checks_of_table,
)
from telemetry_lake.tables.definitions import LIVE_PINGS, LIVE_REJECTED_PINGS, table_definition, table_names

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


@pytest.mark.parametrize("table", table_names())
def test_checks_of_a_table_name_its_columns(table):
    columns = {column.name for column in table_definition(table).columns}
    for check in checks_of_table(table):
        assert {*check.columns, *check.column_list} <= columns


@pytest.mark.parametrize(
    "content, wrong",
    [
        ({}, "either `expectation` or `every_row`"),
        ({"expectation": "ExpectColumnValuesToNotBeNull", "every_row": "true"}, "either `expectation` or"),
        ({"every_row": "true", "columns": ["country"]}, "belong to an `expectation`"),
        ({"every_row": "true", "severity": "error"}, "severity"),
        ({"unique": ["country"]}, "unique"),
    ],
)
def test_a_check_has_one_form(content, wrong):
    with pytest.raises(ValidationError, match=wrong):
        Check.model_validate({"severity": "warn", "why": "because", "remedy": "none", **content})


def test_a_condition_of_every_row_cannot_be_a_gate_of_batches():
    check = Check(every_row="country = '??'", severity=Severity.WARN, why="because", remedy="none")
    with pytest.raises(ConfigurationError, match="write an expectation"):
        run_checks([Subject("rows", (check,), pd.DataFrame([GOOD_PING]), ("raw_object",))])


def test_a_result_says_what_was_found_where():
    result = CheckResult(
        subject="stable.pings",
        expectation="pings > 0",
        column="",
        severity=Severity.FAIL,
        passed=False,
        found="1 of 2 rows do not fit",
        examples=(),
        why="because",
        remedy="none",
    )
    assert str(result) == "stable.pings: pings > 0 found 1 of 2 rows do not fit"
    of_column = result.model_copy(update={"column": "pings", "examples": ("a#1", "a#2")})
    assert str(of_column).startswith("stable.pings, pings: pings > 0")
    assert str(of_column).endswith("(for example a#1, a#2)")
    passed = result.model_copy(update={"passed": True})
    results = CheckResults(results=(result, passed))
    assert results.failures(Severity.FAIL) == [result]
    assert results.failures(Severity.WARN) == []


def test_the_closed_lists_are_those_of_the_code():
    lists = {
        check.columns[0]: check.arguments["value_set"]
        for check in checks_of_table(LIVE_REJECTED_PINGS)
        if check.expectation == "ExpectColumnValuesToBeInSet"
    }
    assert lists == {"error_type": list(ErrorType), "stage": list(Stage)}
    closed = {
        check.columns[0]: list_of(check.arguments["value_set"])
        for check in checks_of_table(LIVE_PINGS)
        if check.expectation == "ExpectColumnValuesToBeInSet" and check.severity is Severity.FAIL
    }
    sent = pl.DataFrame(
        {
            "app_update_channel": ["release", "esr", "beta", "aurora", "nightly", "default", None],
            "os": ["WINNT", "Darwin", "Linux", "Android", "iOS", "Haiku", None],
        }
    )
    for column in sent.select(normalized_channel(), normalized_os()):
        assert set(column) <= set(closed[column.name])


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


def list_of(value: JsonValue) -> list[JsonValue]:
    assert isinstance(value, list)
    return value


def failures(rows):
    subject = Subject(
        LIVE_PINGS, checks_of_table(LIVE_PINGS), pd.DataFrame(rows), ("raw_object", "raw_object_position")
    )
    return [
        result for result in run_checks([subject]) if not result.passed and result.severity is Severity.FAIL
    ]
