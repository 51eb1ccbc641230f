"""The summary of volumes: what is in which step, what is left out, and how many series there are."""

from datetime import UTC, datetime, timedelta

from telemetry_lake.monitoring.volumes import (
    DAYS,
    HOURS,
    OTHERS,
    SERIES_MAX_COUNT,
    VolumeRow,
    keep_volumes,
    kept_volumes,
    volumes_of,
)
from telemetry_lake.settings import Settings
from telemetry_lake.storage.object_store import ObjectStore
from telemetry_lake.storage.records import RecordStore

NOW = datetime(2026, 11, 23, 9, 40, tzinfo=UTC)
HOUR = NOW.replace(minute=0)
DAY = NOW.replace(hour=0, minute=0)


def test_every_row_is_in_its_step_and_none_beyond_the_ends() -> None:
    hours = [
        VolumeRow(HOUR, "beta", None, 3, 30),
        VolumeRow(HOUR, "beta", None, 4, 40),
        VolumeRow(HOUR - timedelta(hours=HOURS - 1), "beta", None, 5, 50),
        VolumeRow(HOUR - timedelta(hours=HOURS), "beta", None, 1_000, 1),
        VolumeRow(HOUR + timedelta(hours=1), "beta", None, 1_000, 1),
        VolumeRow(HOUR, None, None, 1, 10),
        VolumeRow(HOUR, None, "invalid_json", 2, 20),
    ]
    days = [VolumeRow(DAY - timedelta(days=DAYS - 1), "beta", None, 9, 90)]
    found = volumes_of(hours, days, NOW)
    assert found.week.first == HOUR - timedelta(hours=HOURS - 1)
    assert [(series.name, series.total) for series in found.week.channels] == [("beta", 12), ("none", 1)]
    assert (found.week.channels[0].pings[0], found.week.channels[0].pings[-1]) == (5, 7)
    assert (found.week.channels[0].bytes[-1], len(found.week.channels[0].pings)) == (70, HOURS)
    assert [(series.name, series.total) for series in found.week.errors] == [("invalid_json", 2)]
    assert (found.year.channels[0].pings[0], len(found.year.channels[0].pings)) == (9, DAYS)


def test_today_is_the_last_day_as_long_as_it_is_today() -> None:
    days = [VolumeRow(DAY, "beta", None, 9, 1), VolumeRow(DAY, None, "invalid_json", 2, 1)]
    volumes = volumes_of([], [*days, VolumeRow(DAY - timedelta(days=1), "beta", None, 50, 1)], NOW)
    assert volumes.today(NOW) == (9, 2)
    assert volumes.today(NOW.replace(hour=23, minute=59)) == (9, 2)
    assert volumes.today(DAY + timedelta(days=1)) is None


def test_channels_beyond_the_limit_are_added_up() -> None:
    rows = [VolumeRow(HOUR, f"c{n:02}", None, 100 - n, 1) for n in range(SERIES_MAX_COUNT)]
    exactly = volumes_of(rows, (), NOW).week.channels
    assert [series.name for series in exactly] == [row.channel for row in rows]
    one_more = volumes_of([*rows, VolumeRow(HOUR, "tiny", None, 1, 1)], (), NOW).week.channels
    assert len(one_more) == SERIES_MAX_COUNT
    assert (one_more[-1].name, one_more[-1].total) == (OTHERS, 100 - (SERIES_MAX_COUNT - 1) + 1)


def test_the_summary_is_read_as_it_was_kept(lake_settings: Settings) -> None:
    records = RecordStore(ObjectStore(lake_settings.s3), lake_settings.s3.lake_bucket)
    assert kept_volumes(records) is None
    volumes = volumes_of([VolumeRow(HOUR, "beta", None, 3, 30)], (), NOW)
    keep_volumes(records, volumes)
    assert kept_volumes(records) == volumes
