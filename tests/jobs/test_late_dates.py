"""Dates are made when they are out of date, however long ago they are."""

from collections import Counter
from datetime import UTC, date, datetime, timedelta
from itertools import count

import pytest
from pyiceberg.catalog import Catalog
from pyspark.sql import SparkSession

from jobs.count_pings import PING_COUNTS, count_late_dates
from jobs.histogram_aggregates import histogram_aggregates
from jobs.maintenance import Retention, maintain, too_many_files
from jobs.ping_volumes import ping_volumes
from jobs.spark.date_job import in_turn
from jobs.stable_pings import stable_pings
from lake_testing.sample_rows import sample_rows
from telemetry_lake.failures import FatalError, RetriableError
from telemetry_lake.settings import Settings
from telemetry_lake.tables.definitions import LIVE_PINGS, LIVE_REJECTED_PINGS, PING_VOLUMES, STABLE_PINGS
from telemetry_lake.units import MIB, DateRange

on_one_catalog = pytest.mark.parametrize("settings", ["rest"], indirect=True, scope="session")

YESTERDAY = date(2026, 11, 22)
OF_YESTERDAY = DateRange(YESTERDAY, YESTERDAY)
MONTH = [YESTERDAY - timedelta(days=days) for days in range(30, -1, -1)]
"""The days of an outage: all of their pings came yesterday."""
LONG_AGO = date(2014, 3, 1)


NUMBERS = count()


def receive(catalog: Catalog, *days: date, table: str = LIVE_PINGS) -> None:
    """A ping of each of these days, each from a raw object of its own."""
    rows: list[dict[str, object]] = [
        {"submission_date": day, "raw_object": f"{next(NUMBERS)}"} for day in days
    ]
    if table == LIVE_PINGS:
        rows = [row | {"document_id": row["raw_object"]} for row in rows]
    catalog.load_table(table).append(sample_rows(table, rows))


def test_late_dates_are_made_oldest_first_a_number_in_each_run_and_what_is_left_is_said(capsys):
    made: list[date] = []

    def make(day: date) -> date:
        made.append(day)
        return day

    days = [LONG_AGO, *MONTH]
    for late_dates in (0, 1, 20, 31):
        made.clear()
        assert list(in_turn("some.table", reversed(days), OF_YESTERDAY, make, late_dates=late_dates)) == made
        assert made == [*days[:late_dates], YESTERDAY]
    output = capsys.readouterr().out.splitlines()
    assert "31 dates from 2014-03-01 to 2026-11-21" in output[0]
    assert "11 dates from 2026-11-11 to 2026-11-21" in output[2]
    assert len(output) == 3


def test_a_date_that_fails_holds_no_other_back_and_is_said(capsys):
    def make(day: date) -> date:
        if day in MONTH[:2]:
            raise FatalError(f"{day} is broken")
        return day

    days = in_turn("some.table", MONTH, OF_YESTERDAY, make, late_dates=3)
    assert next(days) == MONTH[2]
    assert next(days) == YESTERDAY
    with pytest.raises(FatalError, match=f"{MONTH[0]} is broken"):
        next(days)
    assert f"some.table {MONTH[1]}: {MONTH[1]} is broken" in capsys.readouterr().err


def test_a_service_that_is_away_ends_the_run():
    def make(day: date) -> date:
        raise RetriableError("away")

    with pytest.raises(RetriableError):
        list(in_turn("some.table", MONTH, OF_YESTERDAY, make, late_dates=3))


@pytest.mark.long
@on_one_catalog
def test_after_a_long_outage_every_date_becomes_stable_and_aggregated_by_itself(
    spark: SparkSession, catalog: Catalog, settings: Settings
):
    days = [LONG_AGO, MONTH[0], MONTH[15], YESTERDAY]
    receive(catalog, *days)
    made = [each.day for each in stable_pings(spark, OF_YESTERDAY, late_dates=2)]
    assert made == [LONG_AGO, MONTH[0], YESTERDAY]
    assert [each.day for each in stable_pings(spark, OF_YESTERDAY, late_dates=2)] == [MONTH[15]]
    assert not list(stable_pings(spark, OF_YESTERDAY, late_dates=2))

    receive(catalog, LONG_AGO)
    catalog.load_table(LIVE_PINGS).delete(f"submission_date = '{MONTH[0]}'")  # by retention
    assert [each.day for each in stable_pings(spark, OF_YESTERDAY, late_dates=2)] == [LONG_AGO]
    stable = catalog.load_table(STABLE_PINGS).scan().to_arrow().column("submission_date").to_pylist()
    assert Counter(stable) == {LONG_AGO: 2, **dict.fromkeys(days[1:], 1)}

    summed = histogram_aggregates(spark, settings, OF_YESTERDAY, late_dates=2)
    assert [each.day for each in summed] == [LONG_AGO, MONTH[0], YESTERDAY]
    summed = histogram_aggregates(spark, settings, OF_YESTERDAY, late_dates=2)
    assert [each.day for each in summed] == [MONTH[15]]


@on_one_catalog
def test_volumes_of_late_dates_are_counted_and_stay_when_retention_has_taken_the_pings(
    spark: SparkSession, catalog: Catalog
):
    receive(catalog, LONG_AGO, LONG_AGO, MONTH[0], YESTERDAY)
    receive(catalog, LONG_AGO, MONTH[0], table=LIVE_REJECTED_PINGS)
    counted = [each.day for each in ping_volumes(spark, OF_YESTERDAY, late_dates=1)]
    assert counted == [LONG_AGO, YESTERDAY]
    assert [each.day for each in ping_volumes(spark, OF_YESTERDAY, late_dates=1)] == [MONTH[0]]

    catalog.load_table(LIVE_PINGS).delete(f"submission_date = '{MONTH[0]}'")  # by retention
    assert not list(ping_volumes(spark, OF_YESTERDAY, late_dates=9))
    catalog.load_table(LIVE_REJECTED_PINGS).delete(f"submission_date = '{LONG_AGO}'")  # by a replay
    receive(catalog, LONG_AGO)
    assert [each.day for each in ping_volumes(spark, OF_YESTERDAY, late_dates=9)] == [LONG_AGO]
    rows = catalog.load_table(PING_VOLUMES).scan().to_arrow().to_pylist()
    pings = Counter[date]()
    for row in rows:
        pings[row["submission_date"]] += row["pings"]
    assert pings == {LONG_AGO: 3, MONTH[0]: 2, YESTERDAY: 1}


@on_one_catalog
def test_pings_of_late_dates_are_counted_once_and_again_when_more_came(spark: SparkSession, catalog: Catalog):
    receive(catalog, LONG_AGO, MONTH[0], MONTH[1], YESTERDAY)

    def counted(late_dates: int) -> list[date]:
        return [each.day for each in count_late_dates(spark, OF_YESTERDAY, late_dates=late_dates)]

    assert counted(2) == [LONG_AGO, MONTH[0]]
    receive(catalog, LONG_AGO)
    assert counted(2) == [LONG_AGO, MONTH[1]]
    catalog.load_table(LIVE_PINGS).delete(f"submission_date = '{MONTH[0]}'")  # by retention
    assert counted(2) == []
    rows = catalog.load_table(PING_COUNTS).scan().to_arrow().to_pylist()
    assert {row["submission_date"]: row["pings"] for row in rows} == {LONG_AGO: 2, MONTH[0]: 1, MONTH[1]: 1}


@on_one_catalog
def test_dates_whose_maintenance_did_not_run_are_compacted_later(spark: SparkSession, catalog: Catalog):
    for _ in range(3):
        receive(catalog, LONG_AGO, MONTH[0], MONTH[1])
    receive(catalog, MONTH[2])
    receive(catalog, MONTH[2])
    assert too_many_files(spark, LIVE_PINGS, YESTERDAY, 256 * MIB) == [LONG_AGO, MONTH[0], MONTH[1]]
    assert too_many_files(spark, LIVE_PINGS, MONTH[0], 256 * MIB) == [LONG_AGO]

    now = datetime(2026, 11, 23, 3, 30, tzinfo=UTC)
    never = Retention(live_days=9_000, days=9_000, orphan_days=9_000)

    def rewritten(day: int) -> int:
        at = now + timedelta(days=day)
        run = maintain(spark, OF_YESTERDAY, now=at, tables=[LIVE_PINGS], retention=never, late_dates=2)
        return sum(each.files_rewritten for each in run)

    assert rewritten(0) == 6
    assert too_many_files(spark, LIVE_PINGS, YESTERDAY, 256 * MIB) == [MONTH[1]]
    assert rewritten(1) == 3
    assert rewritten(2) == 0
    table = catalog.load_table(LIVE_PINGS)
    files = Counter(task.file.partition[0] for task in table.scan().plan_files())
    assert sorted(files.values()) == [1, 1, 1, 2]
    assert table.scan().count() == 11
    assert list(table.refs()) == ["main"]
