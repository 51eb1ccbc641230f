"""Each golden file of sql/: its input, its job, and the rows that must come of it."""

from collections.abc import Callable
from datetime import UTC, date, datetime

import pandas as pd
import pytest
import yaml
from pydantic import JsonValue
from pyiceberg.catalog import Catalog
from pyspark.sql import SparkSession

from jobs.histogram_aggregates import histogram_aggregates
from jobs.maintenance import maintain
from jobs.ping_volumes import ping_volumes, volumes
from jobs.spark.table_checks import check_date, date_audits, questions_of, results_of
from jobs.stable_pings import stable_pings
from lake_testing.sample_rows import sample_rows
from telemetry_lake.failures import ConfigurationError, GateFailed
from telemetry_lake.settings import Settings
from telemetry_lake.tables.batch_checks import Subject, run_checks
from telemetry_lake.tables.checks import Check, Severity, checks_of_table
from telemetry_lake.tables.definitions import SQL_DIRECTORY
from telemetry_lake.units import DateRange

on_one_catalog = pytest.mark.parametrize("settings", ["rest"], indirect=True, scope="session")

TODAY = date(2026, 11, 24)

Job = Callable[[SparkSession, Settings, DateRange], object]


def make_stable(spark: SparkSession, _settings: Settings, dates: DateRange) -> object:
    return list(stable_pings(spark, dates))


def sum_up(spark: SparkSession, settings: Settings, dates: DateRange) -> object:
    return list(histogram_aggregates(spark, settings, dates, again=True))


def count_volumes(spark: SparkSession, _settings: Settings, dates: DateRange) -> object:
    return list(ping_volumes(spark, dates))


def keep_house(spark: SparkSession, _settings: Settings, dates: DateRange) -> object:
    return list(maintain(spark, dates, now=datetime(2026, 11, 24, 3, tzinfo=UTC), tables=["live.pings"]))


JOBS: dict[str, Job] = {
    "stable.pings": make_stable,
    "derived.histogram_aggregates": sum_up,
    "derived.made_dates": make_stable,
    "derived.maintenance_runs": keep_house,
    "derived.ping_volumes": count_volumes,
}


@on_one_catalog
@pytest.mark.parametrize("table", JOBS)
def test_the_golden_input_gives_the_golden_rows(
    spark: SparkSession, catalog: Catalog, settings: Settings, table: str
):
    golden = yaml.safe_load(SQL_DIRECTORY.joinpath(*table.split("."), "golden.yaml").read_text())
    for name, rows in golden["input"].items():
        catalog.load_table(name).append(sample_rows(name, rows))

    JOBS[table](spark, settings, DateRange.parse(golden["arguments"]["dates"], TODAY))

    names = list(golden["expected"][0])
    found = catalog.load_table(table).scan().to_arrow().select(names).to_pylist()
    assert sorted(found, key=str) == sorted(golden["expected"], key=str)
    results = results_of(spark.table(table), table, checks_of_table(table))
    assert results
    assert [str(result) for result in results if not result.passed] == []


@on_one_catalog
def test_a_broken_check_says_what_is_wrong_and_what_to_do(
    spark: SparkSession, catalog: Catalog, settings: Settings
):
    day = date(2026, 11, 22)
    row = {"submission_date": day, "document_id": "twice"}
    catalog.load_table("stable.pings").append(sample_rows("stable.pings", [row, row]))
    audits = date_audits(settings)
    check = r"2026-11-22: stable.pings, namespace\+document_type\+document_id: "
    found = rf"{check}.* 1 of 2 rows do not fit.*make the date again"
    with pytest.raises(GateFailed, match=found):
        check_date(spark, "stable.pings", day, audits)
    (audit,) = audits.of_day(datetime.now(UTC).date(), at_most=1)
    assert (audit.table, audit.day, audit.passed) == ("stable.pings", day, False)
    assert [result.passed for result in audit.results] == [False, True, True]


@on_one_catalog
def test_a_job_keeps_what_the_checks_of_each_date_found(
    spark: SparkSession, catalog: Catalog, settings: Settings
):
    rows = [{"submission_date": date(2026, 11, day)} for day in (22, 23)]
    catalog.load_table("live.pings").append(sample_rows("live.pings", rows))
    audits = date_audits(settings)
    before = len(audits.of_day(datetime.now(UTC).date(), at_most=100))

    list(ping_volumes(spark, DateRange(date(2026, 11, 22), date(2026, 11, 23)), audits=audits))

    kept = audits.of_day(datetime.now(UTC).date(), at_most=100)
    assert len(kept) == before + 2
    assert [(audit.table, audit.day.day) for audit in kept[:2]] == [
        ("derived.ping_volumes", 23),
        ("derived.ping_volumes", 22),
    ]
    assert all(audit.passed and len(audit.results) == 4 for audit in kept[:2])


@on_one_catalog
def test_the_summary_of_volumes_says_what_the_table_says(spark: SparkSession, catalog: Catalog):
    now = datetime(2026, 11, 23, 1, 30, tzinfo=UTC)
    pings = [
        {"submission_date": at.date(), "submission_timestamp": at, "app_update_channel": "beta"}
        for at in (now, now, datetime(2026, 11, 22, 23, 59, tzinfo=UTC), datetime(2026, 1, 2, tzinfo=UTC))
    ]
    rejected = [{**pings[0], "error_type": "invalid_json"}]
    del rejected[0]["app_update_channel"]
    catalog.load_table("live.pings").append(sample_rows("live.pings", pings))
    catalog.load_table("live.rejected_pings").append(sample_rows("live.rejected_pings", rejected))
    list(ping_volumes(spark, DateRange(date(2026, 1, 1), date(2026, 11, 23))))

    found = volumes(spark, now)

    assert [series.name for series in found.week.channels] == ["beta"]
    assert found.week.channels[0].pings[-3:] == (1, 0, 2)
    assert (sum(found.year.channels[0].pings), found.year.channels[0].pings[-2:]) == (4, (1, 2))
    assert [(series.name, series.pings[-1]) for series in found.year.errors] == [("invalid_json", 1)]


@on_one_catalog
def test_both_engines_mean_the_same_by_an_expectation(spark: SparkSession):
    rows = [("a", 1), ("b", 2), (None, 2), ("d", None), ("a", 9), ("it's", 1)]
    frame = spark.createDataFrame(rows, "name string, number int").withColumnRenamed("name", "a name")
    texts = pd.DataFrame(rows, columns=["a name", "number"]).astype({"number": "Int64"})
    texts["row"] = range(len(rows))
    many = checks(
        ("ExpectColumnValuesToNotBeNull", "number", {}),
        ("ExpectColumnValuesToNotBeNull", "a name", {"mostly": 0.8}),
        ("ExpectColumnValuesToBeUnique", "a name", {}),
        ("ExpectCompoundColumnsToBeUnique", None, {"column_list": ["a name", "number"]}),
        ("ExpectColumnValuesToBeInSet", "a name", {"value_set": ["a", "b", "d"]}),
        ("ExpectColumnValuesToBeInSet", "a name", {"value_set": ["a", "b", "d", "it's"]}),
        ("ExpectColumnValuesToBeInSet", "a name", {"value_set": ["a", "b", "d"], "mostly": 0.8}),
        ("ExpectColumnValuesToBeInSet", "a name", {"value_set": ["a", "b", "d"], "mostly": 0.81}),
        ("ExpectColumnValuesToNotBeInSet", "a name", {"value_set": ["b", "x"]}),
        ("ExpectColumnValuesToNotBeInSet", "a name", {"value_set": ["x"]}),
        ("ExpectColumnValuesToBeBetween", "number", {"min_value": 1, "max_value": 8}),
        ("ExpectColumnValuesToBeBetween", "number", {"min_value": 1}),
        ("ExpectColumnValuesToBeBetween", "number", {"max_value": 9}),
    )
    by_spark = results_of(frame, "rows", many)
    by_great_expectations = run_checks([Subject("rows", many, texts, ("row",))])

    assert [(each.column, each.passed) for each in by_spark] == [
        (each.column, each.passed) for each in by_great_expectations
    ]
    assert {each.passed for each in by_spark} == {True, False}
    counted = [number for number, each in enumerate(by_spark) if "Unique" not in each.expectation]
    assert [by_spark[number].found for number in counted] == [
        by_great_expectations[number].found for number in counted
    ]


@pytest.mark.parametrize(
    "expectation, column, arguments",
    [
        ("ExpectColumnMeanToBeBetween", "number", {"min_value": 1}),
        ("ExpectColumnValuesToBeBetween", "number", {"strict_min": True, "min_value": 1}),
        ("ExpectColumnValuesToBeUnique", "number", {"mostly": 0.9}),
        ("ExpectColumnValuesToBeInSet", "number", {"value_set": [None]}),
        ("ExpectColumnValuesToBeInSet", "number", {}),
        ("ExpectCompoundColumnsToBeUnique", None, {"column_list": ["a"], "ignore_row_if": "never"}),
    ],
)
def test_what_spark_cannot_ask_is_a_mistake_of_the_file(
    expectation: str, column: str | None, arguments: dict[str, JsonValue]
):
    with pytest.raises(ConfigurationError, match=rf"derived.x: {expectation}.*README"):
        questions_of("derived.x", checks((expectation, column, arguments)))


def checks(*contents: tuple[str, str | None, dict[str, JsonValue]]) -> tuple[Check, ...]:
    return tuple(
        Check(
            expectation=expectation,
            columns=(column,) if column else (),
            arguments=arguments,
            severity=Severity.FAIL,
            why="because",
            remedy="none",
        )
        for expectation, column, arguments in contents
    )


def test_every_golden_file_is_tested():
    found = {
        ".".join(file.parent.relative_to(SQL_DIRECTORY).parts)
        for file in SQL_DIRECTORY.glob("*/*/golden.yaml")
    }
    # That of the anomalies is what a look writes: tests/monitoring/test_look.py.
    assert found - {"derived.ping_counts", "derived.anomalies"} == set(JOBS)
