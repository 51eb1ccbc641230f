"""The DAGs of the dashboard: one waits for pings of today and sums them, one makes what is shown of them."""

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from dags import live_pings
from dags.live_pings import PingsArrive, has_pings
from lake_testing.airflow_runs import run_dags
from lake_testing.sample_rows import sample_rows
from telemetry_lake.dashboard.making.versions import CubeVersions
from telemetry_lake.settings import ENV_FILE_VARIABLE, Role
from telemetry_lake.storage.object_store import ObjectStore
from telemetry_lake.tables.catalog import create_tables, load_lake_catalog
from telemetry_lake.tables.definitions import LIVE_PINGS

TODAY = datetime.now(UTC).date()
HISTOGRAM = {
    "process": "parent",
    "name": "GC_MS",
    "key": None,
    "histogram_type": 1,
    "bucket_count": 3,
    "range_low": 1,
    "range_high": 10,
    "buckets": "0,1",
    "counts": "3,1",
    "sum": 5.0,
    "log_sum": -1.0,
    "log_sum_squares": -1.0,
    "sum_squares_lo": -1.0,
    "sum_squares_hi": -1.0,
}


def append(lake, day) -> None:
    row = {"submission_date": day, "document_id": f"of {day}", "histograms": [HISTOGRAM]}
    load_lake_catalog(lake.settings).load_table(LIVE_PINGS).append(sample_rows(LIVE_PINGS, [row]))


@pytest.fixture
def found_lake(lake, monkeypatch):
    """A lake that programs find without being told."""
    create_tables(load_lake_catalog(lake.settings))
    monkeypatch.setenv(ENV_FILE_VARIABLE, str(lake.env_file))
    return lake


async def first_event(trigger: PingsArrive) -> Any:
    async for event in trigger.run():
        return event.payload
    return None


def test_the_trigger_fires_when_pings_of_today_are_there(found_lake, monkeypatch):
    monkeypatch.setattr(live_pings, "POLL_SECONDS", 0.01)
    append(found_lake, TODAY - timedelta(days=1))
    assert not has_pings(TODAY, Role.DOORBELL)
    asked: list[bool] = []

    def has_pings_later(day, role) -> bool:
        asked.append(has_pings(day, role))
        if len(asked) == 1:
            raise OSError("the catalog is restarted")
        if len(asked) == 2:
            append(found_lake, day)
        return asked[-1]

    monkeypatch.setattr(live_pings, "has_pings", has_pings_later)
    until = (datetime.now(UTC) + timedelta(minutes=5)).isoformat()
    assert asyncio.run(first_event(PingsArrive(until))) == {"arrived": True}
    assert asked == [False, False, True]


def test_the_trigger_fires_without_pings_when_its_time_is_up(found_lake):
    path, arguments = PingsArrive(datetime.now(UTC).isoformat()).serialize()
    assert path == "dags.live_pings.PingsArrive"
    assert asyncio.run(first_event(PingsArrive(**arguments))) == {"arrived": False}


@pytest.mark.long
@pytest.mark.timeout(600)
def test_pings_of_today_are_in_the_cubes_after_one_run_of_each(tmp_path, found_lake):
    append(found_lake, TODAY)
    runs, _ = run_dags(tmp_path, found_lake, ("fresh_aggregates", {}), ("dashboard", {}))
    assert runs[0]["tasks"] == {"pings": ["success"], "aggregates": ["success"]}
    assert runs[1]["tasks"] == {"cubes": ["success"]}
    settings = found_lake.settings
    manifest = CubeVersions(ObjectStore(settings.s3), settings.s3.lake_bucket).current().manifest
    assert manifest is not None
    assert manifest.preliminary_date == TODAY
    assert [segment.rows for segment in manifest.segments] == [1, 1]
