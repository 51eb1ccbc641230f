"""Each golden file of sql/: its input, its job, and the rows that must come of it."""

from collections.abc import Callable
from datetime import UTC, date, datetime

import pytest
import yaml
from pyiceberg.catalog import Catalog
from pyspark.sql import SparkSession

from jobs.date_range import DateRange
from jobs.histogram_aggregates import histogram_aggregates
from jobs.maintenance import maintain
from jobs.ping_volumes import ping_volumes
from jobs.stable_pings import stable_pings
from jobs.table_checks import check_date, check_rows
from telemetry_lake.failures import GateFailed
from telemetry_lake.settings import Settings
from telemetry_lake.tables import SQL_DIRECTORY
from tests.query.sample_rows import sample_rows

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
    assert check_rows(spark.table(table), table, "the golden rows") == []


@on_one_catalog
def test_a_broken_check_says_what_is_wrong_and_what_to_do(spark: SparkSession, catalog: Catalog):
    day = date(2026, 11, 22)
    row = {"submission_date": day, "document_id": "twice"}
    catalog.load_table("stable.pings").append(sample_rows("stable.pings", [row, row]))
    with pytest.raises(GateFailed, match=r"2026-11-22: 1 rows break .*document_id.*make the date again"):
        check_date(spark, "stable.pings", day)


def test_every_golden_file_is_tested():
    found = {
        ".".join(file.parent.relative_to(SQL_DIRECTORY).parts)
        for file in SQL_DIRECTORY.glob("*/*/golden.yaml")
    }
    assert found - {"derived.ping_counts"} == set(JOBS)
