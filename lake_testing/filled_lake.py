"""A lake whose tables hold a handful of known pings, in several files."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import date
from typing import Any

import pytest
from pyiceberg.catalog import Catalog

from lake_testing.sample_rows import sample_rows
from lake_testing.stack import Lake
from telemetry_lake.tables.catalog import create_tables, load_lake_catalog
from telemetry_lake.tables.definitions import LIVE_PINGS, LIVE_REJECTED_PINGS

SUNDAY = date(2026, 11, 22)
MONDAY = date(2026, 11, 23)

# (submission date, document type, channel) of each ping, one append after the other.
PINGS: list[list[tuple[date, str, str]]] = [
    [(SUNDAY, "main", "release"), (SUNDAY, "main", "beta"), (SUNDAY, "crash", "beta")],
    [(MONDAY, "main", "release"), (MONDAY, "event", "nightly"), (SUNDAY, "main", "release")],
]
FILES = 5
"""Each append makes a file for each date and document type."""


@dataclass(frozen=True, slots=True)
class FilledLake:
    """A lake, and its catalog for tests that write more."""

    lake: Lake
    catalog: Catalog


def ping(number: int, day: date, document_type: str, channel: str) -> dict[str, Any]:
    """One row of live.pings."""
    return {
        "document_id": f"00000000-0000-4000-8000-{number:012d}",
        "submission_date": day,
        "document_type": document_type,
        "app_update_channel": channel,
        "document_bytes": 1_000 + number,
    }


@pytest.fixture(scope="session")
def filled_lake(new_lake: Callable[[], Lake]) -> FilledLake:
    """Tables with PINGS in them and one rejected ping; tests only read it."""
    lake = new_lake()
    catalog = load_lake_catalog(lake.settings)
    create_tables(catalog)
    number = 0
    for append in PINGS:
        rows = []
        for day, document_type, channel in append:
            rows.append(ping(number, day, document_type, channel))
            number += 1
        catalog.load_table(LIVE_PINGS).append(sample_rows(LIVE_PINGS, rows))
    rejected = {"submission_date": MONDAY, "error_type": "invalid_json", "body": b"{\xff"}
    catalog.load_table(LIVE_REJECTED_PINGS).append(sample_rows(LIVE_REJECTED_PINGS, [rejected]))
    return FilledLake(lake, catalog)
