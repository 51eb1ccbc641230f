"""The program against a lake with real tables: what it reads, what it makes, and what it makes again."""

import subprocess
import sys
from datetime import UTC, date, datetime, timedelta
from io import BytesIO

import polars as pl
import pytest

from lake_testing.sample_rows import sample_rows
from lake_testing.stack import Lake
from telemetry_lake.dashboard.format import View
from telemetry_lake.dashboard.making.versions import CubeVersions
from telemetry_lake.project_files import PROJECT_ROOT
from telemetry_lake.storage.object_store import ObjectStore
from telemetry_lake.tables.catalog import create_tables, load_lake_catalog
from telemetry_lake.tables.definitions import HISTOGRAM_AGGREGATES, MADE_DATES, STABLE_PINGS

YESTERDAY, TODAY = date(2026, 11, 22), date(2026, 11, 23)
NOON = datetime(2026, 11, 23, 12, tzinfo=UTC)


@pytest.fixture
def catalog(lake: Lake):
    catalog = load_lake_catalog(lake.settings)
    create_tables(catalog)
    return catalog


def replace(catalog, name: str, row: dict[str, object], where: str) -> None:
    table = catalog.load_table(name)
    if table.scan(where).count():
        table.delete(where)
    table.append(sample_rows(name, [row]))


def make(catalog, day: date, pings: int, at: datetime) -> None:
    """Replace a date of the aggregates, and record it, as the job does."""
    row: dict[str, object] = {
        "submission_date": day,
        "app_update_channel": "nightly",
        "name": "GC_MS",
        "process": "parent",
        "histogram_type": 2,
        "bucket_count": 3,
        "range_low": 1,
        "range_high": 2,
        "pings": pings,
        "buckets": [0, 1, 2],
        "counts": [pings, 1, 0],
        "normalized": [0.75, 0.25, 0.0],
    }
    replace(catalog, HISTOGRAM_AGGREGATES, row, f"submission_date = '{day}'")
    for table in (STABLE_PINGS, HISTOGRAM_AGGREGATES):
        record: dict[str, object] = {
            "table_name": table,
            "submission_date": day,
            "source": "{}",
            "rows": 1,
            "made_at": at,
        }
        replace(catalog, MADE_DATES, record, f"submission_date = '{day}' AND table_name = '{table}'")


def run_job(lake: Lake) -> str:
    program = subprocess.run(
        [sys.executable, "jobs/dashboard_cubes.py"],
        cwd=PROJECT_ROOT,
        env=lake.environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert program.returncode == 0, program.stdout + program.stderr
    return program.stdout


def test_the_job_makes_what_has_changed_and_only_that(lake: Lake, catalog):
    assert run_job(lake) == "nothing to do: the cubes are up to date\n"
    make(catalog, YESTERDAY, 5, NOON - timedelta(hours=10))
    make(catalog, TODAY, 7, NOON)
    first_lines = run_job(lake).splitlines()
    assert len(first_lines) == 1
    assert "2 dates in 4 segments" in first_lines[0]
    assert first_lines[0].endswith(f"data until {NOON}")
    assert run_job(lake) == "nothing to do: the cubes are up to date\n"

    versions = CubeVersions(ObjectStore(lake.settings.s3), lake.settings.s3.lake_bucket)
    first = versions.current().manifest
    assert first is not None
    assert (first.data_until, first.preliminary_date) == (NOON, TODAY)
    make(catalog, TODAY, 9, NOON + timedelta(hours=12))
    run_job(lake)
    second = versions.current().manifest
    assert second is not None
    assert second.data_until == NOON + timedelta(hours=12)
    assert second.preliminary_date is None
    assert (
        len({segment.key for segment in first.segments} & {segment.key for segment in second.segments}) == 2
    )
    for view in View:
        rows = pl.concat(
            pl.read_parquet(BytesIO(versions.get(segment))) for segment in second.segments_of(view)
        )
        assert rows["pings"].sum() == 5 + 9
        assert rows["buckets"].to_list() == [[0, 1], [0, 1]]
        assert rows["weights"].to_list() == [[3 * 2**30, 2**30]] * 2
    dictionary = pl.read_parquet(BytesIO(versions.get(second.dictionary)))
    assert dictionary.to_dicts() == [
        {
            "metric": "GC_MS",
            "family": "histogram",
            "kind": "boolean",
            "keyed": False,
            "description": "",
            "labels": [],
            "processes": ["parent"],
            "channels": ["nightly"],
            "first_date": YESTERDAY,
            "last_date": TODAY,
            "pings": 14,
            "definitions": 1,
            "expires": None,
        }
    ]
