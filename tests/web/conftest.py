"""One server of the web pages for all tests of a process, over the cubes of a small fleet."""

import csv
import io
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Any

import httpx
import pyarrow as pa
import pytest

from lake_testing.aggregate_rows import FIRST, LAST, aggregate_rows, aggregate_tables, definitions_of
from lake_testing.cube_sets import make_cubes
from lake_testing.stack import Lake, wait_until
from lake_testing.web_pages import RunningPages
from telemetry_lake.project_files import PROJECT_ROOT
from telemetry_lake.tables.catalog import create_tables, load_lake_catalog
from telemetry_lake.tables.definitions import HISTOGRAM_AGGREGATES


@dataclass(frozen=True, slots=True)
class Served:
    """A running server, and the rows of the aggregates that it shows."""

    lake: Lake
    pages: RunningPages
    rows: dict[date, list[dict[str, Any]]]

    def make_cubes_until(self, last: date) -> str:
        """Make cubes of the dates up to one, wait until they are served, and return their version."""
        rows = aggregate_tables({day: rows for day, rows in self.rows.items() if day <= last})
        # As if the last pings had just come.
        made_at = {day: datetime.now(UTC) - timedelta(hours=2) for day in rows}
        manifest = make_cubes(self.lake.settings, rows, definitions=definitions_of, made_at=made_at)
        assert manifest is not None
        wait_until(
            lambda: self.version() == manifest.version, deadline_seconds=30, what="the new cubes are served"
        )
        return manifest.version

    def version(self) -> str | None:
        """Return the version that is served."""
        answer = httpx.get(f"{self.pages.url}/__heartbeat__")
        version: str | None = answer.json()["dashboard"]["version"]
        return version


@pytest.fixture(scope="session")
def served(new_lake: Callable[[], Lake], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    lake = new_lake()
    pages = RunningPages(
        lake,
        tmp_path_factory.mktemp("web"),
        CUBES_POLL_SECONDS="0.3",
        # More readers come at once than there are places, to a machine that does other things as well.
        QUERY_WAIT_SECONDS="60",
    )
    try:
        pages.start()
        served = Served(lake, pages, aggregate_rows(many_keys=205))
        assert httpx.get(f"{pages.url}/__heartbeat__").status_code == 503
        served.make_cubes_until(LAST)
        yield served
    finally:
        pages.kill()


@pytest.fixture(scope="session")
def site(served: Served) -> Iterator[httpx.Client]:
    """A client of the server."""
    with httpx.Client(base_url=served.pages.url, timeout=30) as client:
        yield client


Queried = Callable[[str], list[dict[str, str]]]


@pytest.fixture(scope="session")
def query_command(served: Served) -> Queried:
    """Return a function that runs `python -m telemetry_lake query`, over the rows that the server shows."""
    catalog = load_lake_catalog(served.lake.settings)
    create_tables(catalog)
    rows = aggregate_tables(served.rows).values()
    catalog.load_table(HISTOGRAM_AGGREGATES).append(pa.concat_tables(rows))

    def query(sql: str) -> list[dict[str, str]]:
        done = subprocess.run(
            [sys.executable, "-m", "telemetry_lake", "query", "--format", "csv", "--", sql],
            cwd=PROJECT_ROOT,
            env={**os.environ, **served.lake.environment},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return list(csv.DictReader(io.StringIO(done.stdout)))

    return query


@pytest.fixture(scope="session")
def first_date() -> date:
    return FIRST
