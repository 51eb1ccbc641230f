"""A job whose driver is killed in the middle leaves nothing that a rerun does not put right."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterable
from datetime import UTC, date, datetime
from typing import Any, Final

import pytest
from pyarrow.fs import FileSelector, FileType
from pyiceberg.catalog import Catalog
from pyspark.sql import SparkSession

from jobs.histogram_aggregates import histogram_aggregates
from jobs.maintenance import maintain
from jobs.ping_volumes import ping_volumes
from jobs.stable_pings import stable_pings
from lake_testing.coinciding_pings import coinciding_pings
from lake_testing.sample_rows import sample_rows
from lake_testing.stack import wait_until
from telemetry_lake.project_files import PROJECT_ROOT
from telemetry_lake.settings import Settings
from telemetry_lake.tables.catalog import staging_area
from telemetry_lake.tables.definitions import LIVE_PINGS, STABLE_PINGS
from telemetry_lake.units import DateRange

DATES = DateRange(date(2026, 11, 20), date(2026, 11, 23))
KILL_DEADLINE_SECONDS = 300
FILES = 4

Rerun = Callable[[SparkSession, Settings], Iterable[object]]

JOBS: Final[dict[str, tuple[str, str, Rerun]]] = {
    "stable_pings": (LIVE_PINGS, STABLE_PINGS, lambda spark, _: stable_pings(spark, DATES)),
    "histogram_aggregates": (
        STABLE_PINGS,
        "derived.histogram_aggregates",
        lambda spark, settings: histogram_aggregates(spark, settings, DATES, again=True),
    ),
    "ping_volumes": (LIVE_PINGS, "derived.ping_volumes", lambda spark, _: ping_volumes(spark, DATES)),
    "maintenance": (
        LIVE_PINGS,
        LIVE_PINGS,
        lambda spark, _: maintain(spark, DATES, now=datetime.now(UTC), tables=[LIVE_PINGS]),
    ),
}
OPTIONS = {"histogram_aggregates": ["--again"], "maintenance": ["--table", LIVE_PINGS]}


def environment(settings: Settings) -> dict[str, str]:
    """The settings of a test's lake for a process of its own."""
    s3 = settings.s3
    assert s3.endpoint_url
    assert s3.access_key_id
    assert s3.secret_access_key
    return {
        **os.environ,
        "TELEMETRY_LAKE_S3__ENDPOINT_URL": s3.endpoint_url,
        "TELEMETRY_LAKE_S3__LAKE_BUCKET": s3.lake_bucket,
        "TELEMETRY_LAKE_S3__ACCESS_KEY_ID": s3.access_key_id,
        "TELEMETRY_LAKE_S3__SECRET_ACCESS_KEY": s3.secret_access_key.get_secret_value(),
        "TELEMETRY_LAKE_CATALOG__TAKES_S3_KEY": "true",
        "TELEMETRY_LAKE_CATALOG__NAME": settings.catalog.name,
        "TELEMETRY_LAKE_CATALOG__PROPERTIES": json.dumps(settings.catalog.properties),
        "TELEMETRY_LAKE_CATALOG__SPARK_PROPERTIES": json.dumps(settings.catalog.spark_properties),
    }


def data_files(catalog: Catalog, name: str) -> set[str]:
    """Every data file in the table's folder, whether or not a snapshot names it."""
    area = staging_area(catalog.load_table(name), "")
    found = area.filesystem.get_file_info(FileSelector(area.path, allow_not_found=True, recursive=True))
    return {item.path for item in found if item.type == FileType.File}


def rows(catalog: Catalog, name: str) -> list[dict[str, Any]]:
    return sorted(catalog.load_table(name).scan().to_arrow().to_pylist(), key=str)


@pytest.mark.long
@pytest.mark.timeout(900)
@pytest.mark.parametrize("settings", ["rest"], indirect=True, scope="session")
@pytest.mark.parametrize("name", JOBS)
def test_a_rerun_after_a_kill_gives_the_same_table(
    spark: SparkSession, catalog: Catalog, settings: Settings, name: str
):
    source, target, rerun = JOBS[name]
    pings = coinciding_pings(seed=7)
    for start in range(FILES):
        rows_of_file = [{**ping, "document_id": f"{start} {n}"} for n, ping in enumerate(pings[start::FILES])]
        catalog.load_table(source).append(sample_rows(source, rows_of_file))
    before = data_files(catalog, target)

    program = subprocess.Popen(
        [sys.executable, "-m", f"jobs.{name}", "--dates", str(DATES), *OPTIONS.get(name, [])],
        cwd=PROJECT_ROOT,
        env=environment(settings),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    try:
        wait_until(
            lambda: data_files(catalog, target) - before or program.poll() is not None,
            deadline_seconds=KILL_DEADLINE_SECONDS,
            what=f"{name} writes its first file",
        )
    finally:
        os.killpg(program.pid, signal.SIGKILL)
        output, _ = program.communicate()
    assert program.returncode == -signal.SIGKILL, output.decode()

    list(rerun(spark, settings))
    after_the_kill = rows(catalog, target)
    assert after_the_kill
    if target == source:
        assert len(after_the_kill) == len(pings)
        return
    for table in (target, "derived.made_dates"):
        catalog.load_table(table).delete()
    list(rerun(spark, settings))
    assert rows(catalog, target) == after_the_kill
